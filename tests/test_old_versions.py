"""Old versions of a collection: removed at rest, and kept while a reader needs them."""

import datetime
import subprocess
import sys
import threading
from pathlib import Path

import lance
import pytest

from imgsearch.stores.lance import local, maintenance, readers
from imgsearch.stores.lance.collection import LanceCollection
from imgsearch.stores.lance.folders import Work
from imgsearch.stores.lance.readers import at_work, is_at_work
from imgsearch.stores.lance.store import LanceStore
from tests.store_contract import STAMP, everything, record, write

COUNT = 6000  # more than a batch of a scan


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "AGE_AT_REST", datetime.timedelta(0))


@pytest.fixture
def collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LanceCollection:
    """In six fragments, which `optimize` merges."""
    collection = LanceStore(tmp_path).create("images", STAMP)
    for start in range(0, COUNT, 1000):
        write(collection, [record(number) for number in range(start, start + 1000)], start)
    monkeypatch.setattr(maintenance, "_SMALL_FRAGMENTS", 2)
    return collection


def _path(collection: LanceCollection) -> Path:
    return Path(collection.folder.url)


def versions(collection: LanceCollection) -> int:
    return len(lance.dataset(str(_path(collection))).versions())


def data_files(collection: LanceCollection) -> int:
    return sum(1 for each in (_path(collection) / "data").iterdir())


def test_nothing_old_is_left_at_rest(collection: LanceCollection) -> None:
    assert data_files(collection) == 6
    collection.optimize()
    assert data_files(collection) == 2
    assert versions(collection) == 1
    assert len(everything(collection)) == COUNT


def test_a_scan_keeps_its_version_until_it_ends(collection: LanceCollection) -> None:
    scan = LanceStore(_path(collection).parent).open("images").scan()
    seen = [each.id for each in next(scan)]
    collection.delete([record(number).id for number in range(100)])
    collection.optimize()
    assert versions(collection) > 1
    seen += [each.id for batch in scan for each in batch]
    assert len(set(seen)) == COUNT
    collection.optimize()
    assert versions(collection) == 1


def test_a_scan_of_the_writer_itself_keeps_its_version(collection: LanceCollection) -> None:
    seen = 0
    for uris in collection.uris():
        seen += len(uris)
        collection.delete([record(seen - 1).id])
        collection.optimize()
    assert seen == COUNT


def test_an_abandoned_scan_keeps_nothing(collection: LanceCollection) -> None:
    scan = collection.scan()
    next(scan)
    assert is_at_work(_path(collection), Work.SCAN)
    del scan
    collection.optimize()
    assert versions(collection) == 1


def test_a_killed_reader_keeps_nothing(collection: LanceCollection) -> None:
    code = (
        "import sys; from imgsearch.stores.lance.store import LanceStore\n"
        "scan = LanceStore(sys.argv[1]).open('images').scan()\n"
        "next(scan); print('scanning', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(_path(collection).parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "scanning\n"
        collection.optimize()
        assert versions(collection) > 1
        reader.kill()
    collection.optimize()
    assert versions(collection) == 1


def test_how_long_versions_are_kept_follows_from_who_reads(tmp_path: Path) -> None:
    kept = LanceStore(tmp_path).create("images", STAMP).folder.age_to_keep
    kept()  # makes the locks
    assert kept() == local.AGE_AT_REST
    with at_work(tmp_path / "images.lance", Work.READ):
        assert kept() == local.AGE_WHILE_READ
        with at_work(tmp_path / "images.lance", Work.SCAN):
            assert kept() == local.AGE_WHILE_SCANNED
    assert kept() == local.AGE_AT_REST


def test_versions_stay_an_hour_where_there_are_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = LanceStore(tmp_path).create("images", STAMP)
    monkeypatch.setattr(readers, "fcntl", None)
    assert collection.folder.age_to_keep() == datetime.timedelta(hours=1)
    assert collection.count() == 0


def test_searches_go_on_while_versions_are_removed(collection: LanceCollection) -> None:
    reader = LanceStore(_path(collection).parent).open("images")
    query = next(iter(collection.vectors_by_id([record(1).id]).values()))
    done, failures = threading.Event(), list[BaseException]()

    def search() -> None:
        try:
            while not done.is_set():
                assert reader.search(query, 1)[0].score == pytest.approx(1)
                assert reader.vectors_by_digest([record(1).sha256])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(40):
        write(collection, [record(10_000 + number)], number)
        collection.optimize()
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []
