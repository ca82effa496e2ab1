"""Images in object stores: a real S3 server, and faults by a proxy in front of it."""

import json
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import S3Store

from imgsearch import objects
from imgsearch.analysis.diff import Diff
from imgsearch.errors import NothingFoundError, SourceError
from imgsearch.ingest import IngestOptions, IngestReport, ingest
from imgsearch.server.settings import Settings
from imgsearch.sources import Candidate, ScanLog, resolve, scan
from imgsearch.stores import VectorStore, open_store
from imgsearch.uris import ObjectUrl
from tests.conftest import SAMPLES, Cli, Painter
from tests.fakes import ColorEncoder
from tests.faulty_http import Fault, FaultyProxy, proxy_of
from tests.serving import serving
from tests.shards import tar_of, write_shard
from tools import s3

_FOLDERS = count()


Put = Callable[[str, bytes | Path], None]


@pytest.fixture
def bucket(s3_settings: None) -> str:
    """A bucket with a folder that is new: `BUCKET/FOLDER`."""
    return f"tests/{next(_FOLDERS)}"


@pytest.fixture
def put(bucket: str) -> Put:
    store = S3Store("tests", prefix=bucket.partition("/")[2])

    def put_one(key: str, content: bytes | Path) -> None:
        obstore.put(store, key, content if isinstance(content, bytes) else content.read_bytes())

    return put_one


@pytest.fixture
def proxy(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    with proxy_of(s3_endpoint) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.url)
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Iterator[VectorStore]:
    with open_store(str(tmp_path / "store")) as opened:
        yield opened


def delete(bucket: str, key: str) -> None:
    name, _, folder = bucket.partition("/")
    obstore.delete(S3Store(name, prefix=folder), key)


Run = Callable[..., IngestReport]


@pytest.fixture
def run(store: VectorStore) -> Run:
    def once(*sources: str, stdin: Iterable[str] = (), **options: Any) -> IngestReport:
        return ingest(
            list(sources),
            store,
            "images",
            options=IngestOptions(**options),
            stdin=stdin,
            encoder_opener=ColorEncoder().open,
        )

    return once


def found(*names: str) -> list[str]:
    return [entry.path for entry in scan(resolve(names), ScanLog())]


def paths(store: VectorStore) -> set[str]:
    return {record.path for batch in store.open("images").scan() for record in batch}


@pytest.fixture
def photo(paint: Painter) -> Callable[[int], Path]:
    return lambda seed: paint(f"{seed}.png", seed)


Photo = Callable[[int], Path]


@pytest.mark.parametrize(
    ("text", "key", "url"),
    [
        ("s3://b/a/c.jpg", "a/c.jpg", "s3://b/a/c.jpg"),
        ("s3://b/a b#1.jpg", "a b#1.jpg", "s3://b/a%20b%231.jpg"),
        ("gs://b/%C3%A9.jpg", "é.jpg", "gs://b/%C3%A9.jpg"),
        ("az://b/folder/", "folder", "az://b/folder"),
        ("s3://b", "", "s3://b"),
    ],
)
def test_a_url_names_an_object(text: str, key: str, url: str) -> None:
    parsed = ObjectUrl.parse(text)
    assert parsed is not None
    assert parsed.key == key
    assert str(parsed) == url
    assert ObjectUrl.parse(url) == parsed


@pytest.mark.parametrize("text", ["/a/b.jpg", "file:///a", "s3:/b/c", "s3://", "http://h/a.jpg"])
def test_other_names_are_no_objects(text: str) -> None:
    assert ObjectUrl.parse(text) is None


def test_versions_differ_within_a_millisecond_and_are_exact_to_it() -> None:
    when = datetime(2026, 11, 28, 1, 2, 3, 456000, UTC)
    first, second = objects.version(when, '"a"'), objects.version(when, '"b"')
    assert first != second
    assert first // 10**6 == second // 10**6 == round(when.timestamp() * 1000)


def test_a_scan_yields_the_images_below_a_url(bucket: str, put: Put, photo: Photo) -> None:
    for key in ("shop/b.png", "shop/a/1 #%é.png", "shop/noextension", "shopping/x.png"):
        put(key, photo(1))
    put("shop/.hidden/x.png", photo(1))
    put("shop/styles.csv", b"id\n1\n")
    put("shop/none.png", b"")
    log = ScanLog()
    entries = list(scan(resolve([f"s3://{bucket}/shop/"]), log))
    base = f"s3://{bucket}/shop"
    urls = [f"{base}/a/1%20%23%25%C3%A9.png", f"{base}/b.png", f"{base}/noextension"]
    assert [entry.path for entry in entries] == urls
    assert all(isinstance(entry, Candidate) and entry.uri == entry.path for entry in entries)
    assert (log.left_out, log.other_files) == (1, 2)
    assert found(f"s3://{bucket}/shop", f"s3://{bucket}/shop/a", urls[1]) == urls
    assert found(f"s3://{bucket}/shop/a", f"s3://{bucket}/shop", urls[1]) == urls


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("shop/*.png", ["1.png", "2.png"]),
        ("shop/[12].png", ["1.png", "2.png"]),
        ("shop/**/*.png", ["1.png", "2.png", "a/1.png", "a/b/3.png"]),
        ("shop/?.png", ["1.png", "2.png"]),
        ("*/a/*.png", ["a/1.png"]),
    ],
)
def test_a_glob_matches_objects(
    bucket: str, put: Put, photo: Photo, pattern: str, matches: list[str]
) -> None:
    for key in ("1.png", "2.png", "2.txt", "a/1.png", "a/b/3.png"):
        put(f"shop/{key}", photo(1))
    glob, base = f"s3://{bucket}/{pattern}", f"s3://{bucket}/shop"
    assert found(glob) == [f"{base}/{key}" for key in matches]
    everything = {f"{base}/{key}" for key in ("1.png", "2.png", "a/1.png", "a/b/3.png")}
    assert len(found(glob, base)) == 4
    assert set(found(glob, base)) == everything


def test_a_url_of_nothing_is_an_error(bucket: str, put: Put, photo: Photo) -> None:
    put("shop/b.png", photo(1))
    with pytest.raises(SourceError, match=r"shop/c.png: no such object or folder; nothing was"):
        resolve([f"s3://{bucket}/shop/c.png"])


def test_wrong_keys_are_an_error_without_secrets(
    bucket: str, put: Put, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("shop/b.png", photo(1))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    for name in ("shop", "shop/b.png"):
        with pytest.raises(SourceError, match="access denied") as failed:
            resolve([f"s3://{bucket}/{name}"])
        assert "wrong-secret" not in str(failed.value)
        assert "<" not in str(failed.value)


def test_an_ingest_reads_only_what_has_changed(
    bucket: str, put: Put, photo: Photo, run: Run, proxy: FaultyProxy
) -> None:
    for seed in range(5):
        put(f"shop/{seed}.png", photo(seed))
    put("shop/copy.png", photo(0))
    put("shop/broken.png", b"no image")
    first = run(f"s3://{bucket}/shop")
    assert (first.indexed, first.reused, first.rejected, first.verified) == (5, 1, 1, True)
    put("shop/0.png", photo(7))
    proxy.requests.clear()
    second = run(f"s3://{bucket}/shop")
    assert (second.indexed, second.skipped, second.rejected) == (1, 5, 1)
    read = [path for method, path in proxy.requests if method == "GET" and ".png" in path]
    assert sorted(path.rpartition("/")[2] for path in read) == ["0.png", "broken.png"]


def test_a_table_next_to_the_objects_gives_metadata(
    bucket: str, put: Put, photo: Photo, run: Run, store: VectorStore
) -> None:
    put("shop/images/1 é.png", photo(1))
    put("shop/styles.csv", "id,color\n1 é,red\n".encode())
    run(f"s3://{bucket}/shop/images")
    [[record]] = store.open("images").scan()
    assert record.metadata == {"color": "red"}


def test_urls_on_stdin_are_objects(
    bucket: str, put: Put, photo: Photo, run: Run, store: VectorStore
) -> None:
    put("shop/1.png", photo(1))
    there, missing = f"s3://{bucket}/shop/1.png", f"s3://{bucket}/shop/2.png"
    report = run("-", stdin=[there, missing])
    assert (report.indexed, report.rejected) == (1, 1)
    assert [(each.uri, each.reason) for each in report.problems] == [(missing, "no such object")]
    assert paths(store) == {there}


def test_prune_removes_the_records_of_deleted_objects(
    bucket: str, put: Put, photo: Photo, run: Run, store: VectorStore
) -> None:
    for seed in range(3):
        put(f"shop/{seed}.png", photo(seed))
    put("other/9.png", photo(9))
    run(f"s3://{bucket}")
    delete(bucket, "shop/1.png")
    delete(bucket, "other/9.png")
    assert run(f"s3://{bucket}/shop").removed == 0
    assert run(f"s3://{bucket}/shop", prune=True).removed == 1
    assert paths(store) == {f"s3://{bucket}/{key}.png" for key in ("shop/0", "shop/2", "other/9")}


def test_a_listing_that_fails_prunes_nothing(
    bucket: str, put: Put, photo: Photo, run: Run, store: VectorStore
) -> None:
    for seed in range(4):
        put(f"shop/{seed}.png", photo(seed))
    run(f"s3://{bucket}/shop")
    delete(bucket, "shop/3.png")
    with pytest.MonkeyPatch.context() as patch:
        real = objects.list_objects

        def broken(url: ObjectUrl) -> Iterator[objects.ObjectInfo]:
            for number, info in enumerate(real(url)):
                if number == 2:
                    raise objects.ObjectError("the connection was lost")
                yield info

        patch.setattr(sys.modules["imgsearch.sources.scan"], "list_objects", broken)
        report = run(f"s3://{bucket}/shop", prune=True)
    assert report.removed == 0
    assert report.unreadable == [(f"s3://{bucket}/shop", "the connection was lost")]
    assert len(paths(store)) == 4


@pytest.mark.parametrize("fault", ["503", "reset", "truncated"])
def test_a_fault_that_passes_is_retried(
    bucket: str, put: Put, photo: Photo, run: Run, proxy: FaultyProxy, fault: Fault
) -> None:
    for seed in range(3):
        put(f"shop/{seed}.png", photo(seed))
    seen = set[str]()

    def first_time(method: str, path: str) -> Fault | None:
        if method != "GET" or ".png" not in path or path in seen:
            return None
        seen.add(path)
        return fault

    proxy.choose = first_time
    report = run(f"s3://{bucket}/shop")
    assert len(seen) == 3
    assert (report.indexed, report.rejected) == (3, 0)


def test_a_fault_that_stays_rejects_the_object_with_its_reason(
    bucket: str, put: Put, photo: Photo, run: Run, proxy: FaultyProxy
) -> None:
    put("shop/1.png", photo(1))
    put("shop/2.png", photo(2))
    proxy.choose = lambda method, path: "403" if method == "GET" and "1.png" in path else None
    report = run(f"s3://{bucket}/shop")
    assert (report.indexed, report.rejected) == (1, 1)
    assert report.problems[0].uri.endswith("/1.png")
    assert "access denied" in report.problems[0].reason


def test_a_store_that_stays_away_ends_the_run_and_the_next_one_continues(
    bucket: str,
    put: Put,
    photo: Photo,
    run: Run,
    proxy: FaultyProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(objects, "_RETRIES", 0)
    monkeypatch.setattr("imgsearch.ingest.limits.AWAY_READS", 5)
    for seed in range(12):
        put(f"shop/{seed:02}.png", photo(seed))
    run(f"s3://{bucket}/shop/00.png")
    proxy.choose = lambda _, path: "503" if ".png" in path else None
    with pytest.raises(SourceError, match="Is the object store away"):
        run(f"s3://{bucket}/shop")
    proxy.choose = lambda *_: None
    report = run(f"s3://{bucket}/shop")
    assert (report.skipped, report.indexed) == (1, 11)


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_failure_to_read_a_shard_is_not_taken_for_damage(
    bucket: str,
    put: Put,
    photo: Photo,
    run: Run,
    proxy: FaultyProxy,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    kind: str,
) -> None:
    monkeypatch.setattr(objects, "_RETRIES", 0)
    shard = write_shard(tmp_path / f"x.{kind}", [("1.png", photo(1).read_bytes())])
    put(shard.name, shard)
    proxy.choose = lambda method, path: "503" if method == "GET" and "/x." in path else None
    with pytest.raises(NothingFoundError, match=shard.name):
        run(f"s3://{bucket}/{shard.name}")
    proxy.choose = lambda *_: None
    assert run(f"s3://{bucket}/{shard.name}").indexed == 1


def test_diff_compares_a_url_with_a_collection_and_asks_for_no_object(
    bucket: str, put: Put, photo: Photo, run: Run, store: VectorStore, proxy: FaultyProxy
) -> None:
    for seed in range(3):
        put(f"shop/{seed}.png", photo(seed))
    put("y.tar", tar_of([("1.png", photo(8).read_bytes()), ("2.png", photo(9).read_bytes())]))
    run(f"s3://{bucket}/shop", f"s3://{bucket}/y.tar")
    delete(bucket, "shop/1.png")
    put("shop/new.png", photo(5))
    put("y.tar", tar_of([("1.png", photo(8).read_bytes())]))

    def differences(of: str) -> set[tuple[str, str]]:
        def opened(_: object) -> ColorEncoder:
            return ColorEncoder()

        found = Diff(store.open("images"), f"s3://{bucket}/{of}", opened, near=False)
        return {(each.kind, each.path.removeprefix(f"s3://{bucket}/")) for each in found}

    proxy.requests.clear()
    assert differences("shop") == {("removed", "shop/1.png"), ("added", "shop/new.png")}
    assert [path for method, path in proxy.requests if method == "HEAD" and "1.png" in path] == []
    assert differences("y.tar") == {("removed", "y.tar#2.png")}


def test_reads_overlap(bucket: str, put: Put, photo: Photo, run: Run, proxy: FaultyProxy) -> None:
    for seed in range(40):
        put(f"shop/{seed:02}.png", photo(seed))
    active, most, lock = 0, 0, threading.Lock()

    def choose(method: str, path: str) -> None:
        nonlocal active, most
        if method == "GET" and ".png" in path:
            with lock:
                active += 1
                most = max(most, active)
            time.sleep(0.2)
            with lock:
                active -= 1

    proxy.choose = choose
    assert run(f"s3://{bucket}/shop").indexed == 40
    assert most >= 20


def test_commands_take_urls(
    bucket: str, put: Put, cli: Cli, sample_store: str, tmp_path: Path
) -> None:
    images = SAMPLES / "images"
    for name in ("10101.jpg", "10102.jpg"):
        put(f"new/{name}", images / name)
    url, store = f"s3://{bucket}/new", str(tmp_path / "store")
    shutil.copytree(sample_store, store)
    one = cli("query", f"{url}/10101.jpg", "--k", 1, "--store", store, "--json")
    assert Path(json.loads(one.out)["hits"][0]["path"]).name == "10101.jpg"
    many = cli("query", url, "--k", 1, "--store", store, "--json")
    lines = [json.loads(line) for line in many.out.splitlines()]
    assert [line["query"] for line in lines] == [f"{url}/10101.jpg", f"{url}/10102.jpg"]
    found = cli("duplicates", url, "--store", store, "--json")
    groups = [json.loads(line) for line in found.out.splitlines()]
    assert [each["members"][0]["path"] for each in groups] == [
        f"{url}/{name}" for name in ("10101.jpg", "10102.jpg")
    ]
    assert "only folders can be watched" in cli("watch", url, "--store", store).err
    assert cli("ingest", url, "--store", store).code == 0
    page = tmp_path / "hits.html"
    assert cli("query", f"{url}/10101.jpg", "--store", store, "--gallery", page).code == 0
    assert page.read_text().count("data:image/webp") > 5
    removed = cli("remove", url, "--store", store, "--json")
    assert json.loads(removed.out)["removed"] == 2


def test_a_service_serves_objects_and_their_thumbnails(
    bucket: str, put: Put, photo: Photo, run: Run, store: VectorStore, tmp_path: Path
) -> None:
    put("shop/1.png", photo(1))
    run(f"s3://{bucket}/shop")
    [[record]] = store.open("images").scan()
    with serving(Settings(str(tmp_path / "store")), ColorEncoder()) as served:
        place = f"/v1/collections/images/records/{record.id}"
        original = served.client.get(f"{place}/image")
        assert original.content == photo(1).read_bytes()
        assert original.headers["content-type"] == "image/png"
        thumbnail = served.client.get(f"{place}/thumbnail")
        assert thumbnail.headers["content-type"] == "image/webp"
        put("shop/1.png", photo(2))
        assert served.client.get(f"{place}/image").status_code == 404


def test_keys_of_a_profile_are_used(
    bucket: str,
    put: Put,
    photo: Photo,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    put("shop/1.png", photo(1))
    profile = tmp_path / "credentials"
    profile.write_text(
        f"[work]\naws_access_key_id = {s3.ACCESS_KEY}\naws_secret_access_key = {s3.SECRET_KEY}\n"
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profile))
    monkeypatch.setenv("AWS_PROFILE", "work")
    assert found(f"s3://{bucket}/shop") == [f"s3://{bucket}/shop/1.png"]
