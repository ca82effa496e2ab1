"""The embedded store in object storage: the contract suite on a real S3 server, and the lease."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import count

import lance
import pytest

from imgsearch.copying import copy
from imgsearch.errors import StoreBusyError, StoreError, UsageError
from imgsearch.events import Event, Note
from imgsearch.ingest import ingest
from imgsearch.stores import VectorStore, is_server, open_store
from imgsearch.stores.lance import lease
from imgsearch.stores.lance.store import LanceStore
from tests.conftest import SAMPLES, Cli, Painter
from tests.fakes import ColorEncoder
from tests.faulty_http import Fault, proxy_of
from tests.store_contract import STAMP, StoreContract, everything, record, vectors, write
from tools import s3

_STORES = count()


@pytest.fixture
def url(s3_settings: None) -> str:
    """The URL of a store of its own."""
    return f"s3://tests/stores/{next(_STORES)}"


@pytest.mark.slow
class TestLanceStoreOnS3(StoreContract):
    @pytest.fixture
    def store(self, url: str) -> Iterator[VectorStore]:
        with open_store(url) as opened:
            yield opened


def test_a_url_of_a_bucket_names_the_store(url: str) -> None:
    assert open_store(f"lance:{url}/").url == url
    assert is_server(url)
    with pytest.raises(UsageError, match="cannot hold a store"):
        open_store("s3://tests/a b#c")


def test_concurrent_upserts_without_the_lease_write_each_record_once(url: str) -> None:
    LanceStore(url).create("images", STAMP)
    records, failures = [record(number) for number in range(800)], list[BaseException]()

    def upsert(seed: int) -> None:
        try:
            LanceStore(url).open("images").upsert(records, vectors(800, seed))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=upsert, args=(seed,)) for seed in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not failures
    assert len(everything(LanceStore(url).open("images"))) == 800


def test_a_second_writer_waits_reports_and_gives_up(url: str) -> None:
    events: list[Event] = []
    with (
        LanceStore(url).write_lock("images"),
        pytest.raises(StoreBusyError, match="another process has been writing"),
        LanceStore(url, lock_timeout=0.1).write_lock("images", events.append),
    ):
        pass
    assert any(isinstance(each, Note) and "waiting" in each.text for each in events)
    with LanceStore(url, lock_timeout=0.1).write_lock("images"):  # released, not lapsed
        pass


def test_a_writer_whose_lease_was_taken_over_stops_before_it_commits(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "SECONDS", 0.5)
    monkeypatch.setattr(lease, "_MARGIN", 1.0)
    monkeypatch.setattr(lease.Lease, "_keep", lambda _: None)  # as if the machine slept
    first, second = LanceStore(url), LanceStore(url, lock_timeout=20)
    with first.write_lock("images"):
        collection = first.create("images", STAMP)
        write(collection, [record(1)])
        with second.write_lock("images"):
            with pytest.raises(StoreError, match="another process is writing"):
                write(collection, [record(2)])
            write(second.open("images"), [record(3)])
    assert set(everything(second.open("images"))) == {record(1).id, record(3).id}


def test_a_lapsed_lease_that_nobody_took_is_renewed(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "SECONDS", 0.0)
    store = LanceStore(url)
    with store.write_lock("images"):
        write(store.create("images", STAMP), [record(1)])
    assert store.open("images").count() == 1


_KILLED_WRITER = """
import os, sys
from tests.store_contract import STAMP, record, write
from imgsearch.stores import open_store
store = open_store(sys.argv[1])
with store.write_lock("images"):
    write(store.create("images", STAMP), [record(n) for n in range(10)])
    os.kill(os.getpid(), 9)
"""


def test_the_lease_of_a_killed_writer_ends_and_its_data_is_whole(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run([sys.executable, "-c", _KILLED_WRITER, url], check=False)
    monkeypatch.setattr(lease, "SECONDS", 1.0)
    monkeypatch.setattr(lease, "_MARGIN", 0.0)
    store = LanceStore(url, lock_timeout=20)
    with store.write_lock("images"):
        write(store.open("images"), [record(99)])
    assert len(everything(store.open("images"))) == 11


def test_a_dropped_collection_leaves_no_object_behind(url: str) -> None:
    store = LanceStore(url)
    write(store.create("images", STAMP), [record(1)])
    store.open("images").attach("scores", "{}")
    store.drop("images")
    assert store.names() == []
    assert store.create("images", STAMP).attachment("scores") is None
    with pytest.raises((OSError, ValueError)):
        lance.dataset(f"{url}/images~next.lance")


@pytest.mark.parametrize("fault", ["503", "reset"])
def test_a_failed_request_is_repeated(
    url: str, s3_endpoint: str, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxy_of(s3_endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        numbers = count()
        proxy.choose = lambda *_: fault if next(numbers) % 7 == 3 else None
        store = LanceStore(url)
        with store.write_lock("images"):
            write(store.create("images", STAMP), [record(n) for n in range(50)])
        assert len(everything(store.open("images"))) == 50


def test_a_store_that_is_away_is_named_without_secrets(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match=r"s3://tests/.*Check that the bucket") as failure:
        LanceStore(url).names()
    assert s3.SECRET_KEY not in str(failure.value)


def test_a_copy_goes_there_and_back(url: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    local = LanceStore(tmp_path_factory.mktemp("local"))
    write(local.create("images", STAMP), [record(n) for n in range(20)])
    assert copy(local, LanceStore(url), "images", "images").verified
    assert copy(LanceStore(url), local, "images", "back").verified
    assert everything(local.open("back")) == everything(local.open("images"))


def test_an_ingest_into_a_bucket_skips_what_is_there(url: str, paint: Painter) -> None:
    folder = paint("shop/1.png", 1).parent
    for indexed, skipped in ((1, 0), (0, 1)):
        with LanceStore(url) as store:
            report = ingest([str(folder)], store, "colors", encoder_opener=ColorEncoder().open)
        assert (report.indexed, report.skipped) == (indexed, skipped)


def test_the_commands_work_on_a_bucket(url: str, sample_store: str, cli: Cli) -> None:
    assert cli("copy", "--from", sample_store, "--to", url).code == 0
    options = ("--store", url)
    picture = next(SAMPLES.rglob("*.jpg"))
    hits = cli("query", picture, *options, "--json")
    assert hits.code == 0, hits.err
    assert picture.name in hits.out
    shown = cli("info", *options)
    assert shown.code == 0, shown.err
    assert cli("remove", "--collection", "images", "--yes", *options).code == 0
    assert LanceStore(url).names() == []
