"""Images in tar and zip files."""

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from imgsearch import images, shards
from imgsearch.cli.console import short_path
from imgsearch.errors import ImageError, NothingFoundError
from imgsearch.events import Event, Note, Outcome
from imgsearch.ingest import IngestOptions, IngestReport, ingest
from imgsearch.removal import remove_paths
from imgsearch.shards import access, opening, shard
from imgsearch.sources import Candidate, ScanLog, Unusable, resolve, scan
from imgsearch.stores import VectorStore, open_store
from imgsearch.types import ImageRecord
from imgsearch.uris import MemberUrl, ObjectUrl, canonical_path, is_shard, path_to_uri, uri_to_path
from tests.conftest import Painter
from tests.fakes import ColorEncoder
from tests.shards import tar_of, write_shard, zip_of


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    monkeypatch.setenv("IMGSEARCH_HOME", str(home))
    return home


@pytest.fixture
def store(tmp_path: Path) -> Iterator[VectorStore]:
    with open_store(str(tmp_path / "store")) as opened:
        yield opened


@pytest.fixture
def photo(paint: Painter) -> Callable[[int], bytes]:
    return lambda seed: paint(f"{seed}.png", seed).read_bytes()


Photo = Callable[[int], bytes]


class Runner:
    def __init__(self, store: VectorStore) -> None:
        self.store = store
        self.events: list[Event] = []

    def __call__(self, *sources: str | Path, **options: Any) -> IngestReport:
        self.events.clear()
        return ingest(
            list(map(str, sources)),
            self.store,
            "images",
            options=IngestOptions(**options),
            listener=self.events.append,
            encoder_opener=ColorEncoder().open,
        )

    @property
    def notes(self) -> str:
        return "\n".join(event.text for event in self.events if isinstance(event, Note))

    @property
    def rejected(self) -> dict[str, str]:
        outcomes = [event for event in self.events if isinstance(event, Outcome)]
        return {
            uri_to_path(each.uri).partition("#")[2]: each.reason
            for each in outcomes
            if each.status == "rejected"
        }

    def records(self) -> dict[str, ImageRecord]:
        """The records by their members' names."""
        found = (each for batch in self.store.open("images").scan() for each in batch)
        return {member.name: each for each in found if (member := MemberUrl.parse(each.uri))}


@pytest.fixture
def run(store: VectorStore) -> Runner:
    return Runner(store)


@pytest.mark.parametrize(
    "name", ["a.jpg", "folder/a b#1%.jpg", "zeile\n.jpg", "é/日本.jpg", "./a.jpg", "bad\udcff.jpg"]
)
@pytest.mark.parametrize("of", ["/photos/x #.tar", "s3://bucket/x.tar"])
def test_the_uri_of_a_member_is_its_path_and_names_it(of: str, name: str) -> None:
    url = MemberUrl.of(of, name)
    text = str(url)
    assert text.isascii()
    assert MemberUrl.parse(text) == url
    assert (url.shard_path, url.name) == (of, name)
    assert uri_to_path(text) == path_to_uri(text) == canonical_path(text) == text
    assert ObjectUrl.parse(text) is None


@pytest.mark.parametrize(
    "text", ["/a/b.tar", "/a/b.tar#c.jpg", "file:///a.jpg#b", "s3://b/a#1.jpg"]
)
def test_other_texts_name_no_member(text: str) -> None:
    assert MemberUrl.parse(text) is None


def test_a_file_that_is_named_like_a_member_is_a_file(tmp_path: Path) -> None:
    write_shard(tmp_path / "x.tar", [])
    name = str(tmp_path / "x.tar#1.jpg")
    assert MemberUrl.named(name) == MemberUrl.of(str(tmp_path / "x.tar"), "1.jpg")
    Path(name).write_bytes(b"an image")
    assert MemberUrl.named(name) is None
    assert canonical_path(name) == name
    assert not is_shard(name)


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_members_are_indexed_like_files_and_their_bytes_are_those_of_the_files(
    run: Runner, tmp_path: Path, photo: Photo, kind: str
) -> None:
    names = ["1.png", "deep/er/2.png", "a#b%c\n.png", "ünï.png"]
    files = [(name, photo(seed)) for seed, name in enumerate(names)]
    path = write_shard(tmp_path / f"x.{kind}", [*files, ("readme.md", b"text"), ("empty.png", b"")])
    report = run(path)
    assert (report.indexed, report.other_files, report.rejected) == (4, 2, 0)
    records = run.records()
    assert sorted(records) == sorted(names)
    for name, content in files:
        assert images.read_original(records[name], lambda file: file.read()) == content


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_an_unchanged_shard_is_skipped_without_a_look_into_it(
    run: Runner, tmp_path: Path, photo: Photo, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_shard(tmp_path / f"x.{kind}", [("1.png", photo(1)), ("2.png", photo(2))])
    run(path)
    monkeypatch.setattr(opening, "_open", opening._open.__class__())

    def read(*_: object) -> None:
        raise AssertionError("the shard was read")

    monkeypatch.setattr(access, "open_reader", read)
    monkeypatch.setattr(access, "read", read)
    report = run(path)
    assert (report.skipped, report.found) == (2, 2)


def test_a_changed_shard_is_read_again_and_pruned_of_what_is_gone(
    run: Runner, tmp_path: Path, photo: Photo
) -> None:
    path = write_shard(tmp_path / "x.tar", [("1.png", photo(1)), ("2.png", photo(2))])
    other = write_shard(tmp_path / "other.tar", [("1.png", photo(4))])
    run(path, other)
    write_shard(path, [("2.png", photo(2)), ("3.png", photo(3))])
    report = run(path, prune=True)
    assert (report.indexed, report.reused, report.removed) == (1, 1, 1)
    assert sorted(run.records()) == ["1.png", "2.png", "3.png"]


def test_a_file_of_json_or_text_beside_an_image_is_its_metadata(
    run: Runner, tmp_path: Path, photo: Photo
) -> None:
    files = [
        ("a/1.json", json.dumps({"price": 1, "ok": True, "tags": ["x"], "no": None}).encode()),
        ("a/1.png", photo(1)),
        ("a/1.txt", b"ein Hut\n"),
        ("2.left.png", photo(2)),
        ("2.json", json.dumps({"price": 2.5}).encode()),
        ("3.png", photo(3)),
        ("3.json", b"{broken"),
    ]
    run(write_shard(tmp_path / "x.tar", files))
    found = {name: dict(record.metadata) for name, record in run.records().items()}
    first = {"price": 1.0, "ok": True, "tags": '["x"]', "description": "ein Hut"}
    assert found == {"a/1.png": first, "2.left.png": {"price": 2.5}, "3.png": {}}
    assert run.store.open("images").fields["price"] == "float"
    assert "no JSON objects" in run.notes
    assert "3.json" in run.notes


def test_fields_follow_the_shard_and_a_value_of_another_type_is_noted(
    run: Runner, tmp_path: Path, photo: Photo
) -> None:
    path = tmp_path / "x.zip"
    write_shard(path, [("1.png", photo(1)), ("1.json", b'{"price": 1, "old": "x"}')])
    run(path)
    write_shard(path, [("1.png", photo(1)), ("1.json", b'{"price": "much", "new": 2}')])
    run(path)
    assert run.records()["1.png"].metadata == {"new": 2}
    assert "'price' as int" in run.notes
    assert run(path).skipped == 1


def test_of_members_of_one_name_the_last_counts(run: Runner, tmp_path: Path, photo: Photo) -> None:
    path = write_shard(tmp_path / "x.tar", [("1.png", photo(1)), ("1.png", photo(2))])
    for _ in range(2):
        report = run(path)
        assert report.rejected == 1
        assert run.rejected == {"1.png": shard.SUPERSEDED}
        content = images.read_original(run.records()["1.png"], lambda file: file.read())
        assert content == photo(2)


def test_links_devices_and_hidden_files_are_left_out_and_nothing_is_written(
    run: Runner, tmp_path: Path, photo: Photo
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind in (("link.png", tarfile.SYMTYPE), ("pipe.png", tarfile.FIFOTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
        for name in ("._1.png", "__MACOSX/1.png", "../up.png", "/abs.png", "./dot.png"):
            entry = tarfile.TarInfo(name)
            entry.size = len(photo(1))
            archive.addfile(entry, io.BytesIO(photo(1)))
    folder = tmp_path / "deep"
    folder.mkdir()
    (folder / "x.tar").write_bytes(buffer.getvalue())
    before = sorted(tmp_path.iterdir())
    report = run(folder / "x.tar")
    assert report.left_out == 2
    assert run.rejected == {"link.png": "a link in the tar", "pipe.png": "not a regular file"}
    assert sorted(run.records()) == ["../up.png", "./dot.png", "/abs.png"]
    made = {each.name for each in set(tmp_path.iterdir()) - set(before)}
    assert made <= {"home", "store", "1.png"}


def test_what_a_tar_has_before_it_is_cut_off_is_indexed_and_nothing_is_pruned(
    run: Runner, tmp_path: Path, photo: Photo
) -> None:
    path = tmp_path / "x.tar"
    whole = tar_of([(f"{seed}.png", photo(seed)) for seed in range(3)])
    path.write_bytes(whole)
    run(path)
    path.write_bytes(whole[: len(whole) // 3])
    report = run(path, prune=True)
    assert report.removed == 0
    assert report.unreadable[0][0] == str(path)
    assert "the tar" in report.unreadable[0][1]
    assert len(run.records()) == 3


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no archive at all" * 99, "damaged"),
        (b"", "damaged"),
        (tar_of([("1.png", b"x" * 600)])[:1536] + b"\1" * 4096, "damaged at byte 1,536"),
        (tar_of([("1.png", b"x" * 512)])[:1024], "without a mark of its end"),
    ],
)
def test_a_damaged_tar_is_reported(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    log = ScanLog()
    list(scan(resolve([str(tmp_path / "x.tar")]), log))
    assert reason in log.unreadable[0][1]


def test_a_shard_without_an_image_is_an_error_that_names_it(run: Runner, tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(b"no zip")
    with pytest.raises(NothingFoundError, match=r"x\.zip: the zip is damaged"):
        run(path)


def test_deflated_members_are_unpacked_and_others_are_rejected_with_the_reason(
    run: Runner, tmp_path: Path, photo: Photo
) -> None:
    path = tmp_path / "x.zip"
    content = photo(1)
    path.write_bytes(zip_of([("1.png", content)], zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("2.png", content, zipfile.ZIP_LZMA)
    run(path)
    assert run.rejected["2.png"].startswith("compressed by lzma")
    (record,) = run.records().values()
    assert images.read_original(record, lambda file: file.read()) == content


def test_an_encrypted_member_and_a_bomb_are_rejected(
    tmp_path: Path, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgsearch.shards.zips.MAX_UNPACKED", 1000)
    content = bytearray(
        zip_of([("1.png", b"\0" * 5000), ("2.png", b"x" * 10)], zipfile.ZIP_DEFLATED)
    )
    directory = content.index(b"PK\1\2", content.index(b"PK\1\2") + 1)
    content[directory + 8] |= 1
    (tmp_path / "x.zip").write_bytes(content)
    found = list(scan(resolve([str(tmp_path / "x.zip")]), ScanLog()))
    reasons = [each.reason for each in found if isinstance(each, Unusable)]
    assert reasons == ["5,000 bytes unpacked, more than 1,000", "encrypted in the zip"]


def test_a_member_that_is_not_what_the_directory_says_is_an_error(
    tmp_path: Path, photo: Photo
) -> None:
    path = tmp_path / "x.zip"
    content = bytearray(zip_of([("1.png", b"\0" * 50000)], zipfile.ZIP_DEFLATED))
    directory = content.index(b"PK\1\2")
    content[directory + 24 : directory + 28] = (100).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(ImageError, match="larger than the zip says"):
        images.fingerprint(str(MemberUrl.of(str(path), "1.png")))


def test_a_damaged_member_is_rejected(tmp_path: Path, photo: Photo) -> None:
    path = write_shard(tmp_path / "x.zip", [("1.png", b"a" * 100)])
    path.write_bytes(path.read_bytes().replace(b"aaa", b"aab", 1))
    with pytest.raises(ImageError, match="checksum"):
        images.fingerprint(str(MemberUrl.of(str(path), "1.png")))


def test_shards_in_a_folder_are_counted_and_read_only_by_a_glob(
    run: Runner, tmp_path: Path, photo: Photo, paint: Painter
) -> None:
    paint("photos/0.png", 0)
    for seed in (1, 2):
        write_shard(tmp_path / f"photos/{seed}.tar", [(f"{seed}.png", photo(seed))])
    report = run(tmp_path / "photos")
    assert report.indexed == 1
    assert "2 .tar, .zip or .parquet files in the folders were not read" in run.notes
    report = run(tmp_path / "photos", tmp_path / "photos/*.tar", prune=True)
    assert (report.indexed, report.skipped, report.removed) == (2, 1, 0)
    assert "were not read" not in run.notes
    (tmp_path / "photos/2.tar").unlink()
    assert run(tmp_path / "photos", prune=True).removed == 1
    assert list(run.records()) == ["1.png"]


def test_a_member_and_a_whole_shard_can_be_removed(
    run: Runner, tmp_path: Path, photo: Photo
) -> None:
    path = write_shard(tmp_path / "x.tar", [(f"a/{n}.png", photo(n)) for n in range(4)])
    write_shard(tmp_path / "y.tar", [("1.png", photo(1))])
    run(path, tmp_path / "y.tar")
    collection = run.store.open("images")
    assert remove_paths(collection, [f"{path}#a/1.png"]) == 1
    assert remove_paths(collection, [next(iter(run.records().values())).uri]) == 1
    assert remove_paths(collection, [path]) == 2
    assert len(run.records()) == 1


def test_the_index_of_a_shard_that_is_lost_is_made_again(
    run: Runner, tmp_path: Path, photo: Photo, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_shard(tmp_path / "x.tar", [("1.png", photo(1))])
    run(path)
    (record,) = run.records().values()
    (index,) = (home / "shards").iterdir()
    monkeypatch.setattr(opening, "_open", opening._open.__class__())
    index.write_bytes(b"no database")
    assert images.read_original(record, lambda file: file.read()) == photo(1)


def test_the_oldest_indexes_are_removed_beyond_a_size(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def index_of(number: int) -> set[Path]:
        before = set((home / "shards").glob("*.sqlite"))
        shards.open_shard(path_to_uri(str(write_shard(tmp_path / f"{number}.tar", []))))
        made = set((home / "shards").iterdir()) - before
        for path in made:
            os.utime(path, (number, number))
        return made

    first, second = index_of(1), index_of(2)
    size = sum(path.stat().st_size for path in second)
    monkeypatch.setattr(shard, "_MAX_INDEXES_BYTES", 2 * size)
    third = index_of(3)
    assert first
    assert set((home / "shards").iterdir()) == second | third


def test_rows_of_a_table_name_members(run: Runner, tmp_path: Path, photo: Photo) -> None:
    path = write_shard(tmp_path / "x.tar", [("1.png", photo(1)), ("a/2.png", photo(2))])
    table = tmp_path / "table.csv"
    table.write_text("filename,color\n1.png,red\na/2.png,blue\n")
    run(path, metadata=str(table))
    found = {name: record.metadata["color"] for name, record in run.records().items()}
    assert found == {"1.png": "red", "a/2.png": "blue"}


def test_a_changed_shard_is_not_taken_for_the_indexed_one(
    run: Runner, tmp_path: Path, photo: Photo
) -> None:
    path = write_shard(tmp_path / "x.tar", [("1.png", photo(1))])
    run(path)
    (record,) = run.records().values()
    write_shard(path, [("1.png", photo(2))])
    with pytest.raises(images.ChangedError):
        images.read_original(record, lambda file: file.read())
    write_shard(path, [("0.png", photo(2)), ("1.png", photo(1))])
    assert images.read_original(record, lambda file: file.read()) == photo(1)
    path.unlink()
    with pytest.raises(ImageError):
        images.read_original(record, lambda file: file.read())


def test_a_list_names_shards_and_members(tmp_path: Path, photo: Photo) -> None:
    x = write_shard(tmp_path / "x.tar", [("1.png", photo(1)), ("2.png", photo(2))])
    y = write_shard(tmp_path / "y.zip", [("1.png", photo(1))])
    lines = [f"{x}#2.png", str(y), f"{x}#3.png"]
    found = list(scan(resolve(["-"]), ScanLog(), lines))
    paths = [each.path for each in found if isinstance(each, Candidate)]
    assert paths == [str(MemberUrl.of(str(x), "2.png")), str(MemberUrl.of(str(y), "1.png"))]
    assert [each.reason for each in found if isinstance(each, Unusable)] == [
        "no such member in the shard"
    ]


def test_a_member_is_queried_served_and_compared_like_a_file(
    store: VectorStore, tmp_path: Path, photo: Photo
) -> None:
    from imgsearch.index import ImageIndex
    from imgsearch.server.settings import Settings
    from tests.serving import serving

    files = [("a/1.png", photo(1)), ("a/ü.png", photo(2)), ("copy.png", photo(1))]
    place = write_shard(tmp_path / "set.tar", files)
    with ImageIndex("images", store=store, encoder_opener=ColorEncoder().open) as index:
        index.add(place)
        hit, *_ = index.search(f"{place}#a/ü.png")
        assert short_path(hit.record.path) == f"{place}#a/ü.png"
        assert all(each.hits[0].score > 0.999 for each in index.search_many(place, k=1))
        (group,) = index.duplicates(exact_only=True)
        assert {MemberUrl.parse(each.record.path).name for each in group.members} <= {  # type: ignore[union-attr]
            "a/1.png",
            "copy.png",
        }
    settings = Settings(store.url, "images", data=tmp_path / "data")
    with serving(settings, ColorEncoder()) as served:
        address = f"/v1/collections/images/records/{hit.record.id}"
        assert served.client.get(f"{address}/image").content == photo(2)
        assert served.client.get(f"{address}/thumbnail").headers["content-type"] == "image/webp"
