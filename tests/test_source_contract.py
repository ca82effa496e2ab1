"""What every kind of source promises: the same images give the same records."""

import io
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from obstore.store import S3Store

from imgsearch import images, objects
from imgsearch.ingest import IngestOptions, IngestReport, ingest
from imgsearch.removal import remove_paths
from imgsearch.shards import access, opening
from imgsearch.stores import VectorStore, open_store
from imgsearch.types import ImageRecord
from tests.conftest import Painter
from tests.fakes import ColorEncoder
from tests.shards import tar_of, zip_of
from tools import s3

Pictures = Mapping[str, bytes]
FIELDS: dict[str, dict[str, Any]] = {
    "1.png": {"price": 1.5, "name": "hat"},
    "b/2.png": {"price": 2.5},
}
_FOLDERS = count()


class Kind(ABC):
    """A way to hold images. `has_fields` says whether it also holds metadata of its own."""

    has_fields = True
    others = 1
    """Files that are no images next to them."""

    def __init__(self, place: "Place") -> None:
        self.place = place

    @abstractmethod
    def write(self, pictures: Pictures) -> str:
        """Write the images, in place of those before, and return the source."""

    def name_of(self, record: ImageRecord, source: str) -> str:
        return record.path.removeprefix(source)[1:]


class Place:
    """Where a shard is: a local folder, or one in a bucket."""

    def __init__(self, url: str) -> None:
        self.url = url

    def write(self, name: str, content: bytes) -> str:
        path = f"{self.url}/{name}"
        if path.startswith("s3://"):
            obstore.put(S3Store("tests"), path.removeprefix("s3://tests/"), content)
        else:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_bytes(content)
        return path

    def clear(self) -> None:
        if self.url.startswith("s3://"):
            store, prefix = S3Store("tests"), self.url.removeprefix("s3://tests/")
            for page in obstore.list(store, prefix):
                obstore.delete(store, [each["path"] for each in page])
        else:
            for path in Path(self.url).rglob("*.*"):
                path.unlink()


class Folder(Kind):
    has_fields = False

    def write(self, pictures: Pictures) -> str:
        self.place.write("photos/notes.md", b"no image")
        self.place.clear()
        self.place.write("photos/notes.md", b"no image")
        for name, content in pictures.items():
            self.place.write(f"photos/{name}", content)
        return f"{self.place.url}/photos"


class Tar(Kind):
    pack = staticmethod(tar_of)
    extension = "tar"
    others = 3

    def write(self, pictures: Pictures) -> str:
        files = [("notes.md", b"no image"), *pictures.items()]
        for name, fields in FIELDS.items():
            files.append((name.replace(".png", ".json"), json.dumps(fields).encode()))
        return self.place.write(f"x.{self.extension}", self.pack(files))


class Zip(Tar):
    pack = staticmethod(zip_of)
    extension = "zip"


class Parquet(Kind):
    def write(self, pictures: Pictures) -> str:
        self.names = [*pictures, "no image"]
        table = pa.table(
            {
                "image": [{"bytes": content, "path": name} for name, content in pictures.items()]
                + [None],
                "price": [FIELDS.get(name, {}).get("price") for name in self.names],
                "name": [FIELDS.get(name, {}).get("name") for name in self.names],
            }
        )
        buffer = io.BytesIO()
        pq.write_table(table, buffer, row_group_size=2)
        return self.place.write("x.parquet", buffer.getvalue())

    def name_of(self, record: ImageRecord, source: str) -> str:
        return self.names[int(super().name_of(record, source).removeprefix("row="))]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    if reason := s3.available():
        pytest.skip(reason)
    with s3.serving() as url:
        yield url


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    if request.param == "local":
        return Place(str(tmp_path / "source"))
    for name, value in s3.environment(request.getfixturevalue("endpoint")).items():
        monkeypatch.setenv(name, value)
    return Place(f"s3://tests/contract-{next(_FOLDERS)}")


@pytest.fixture(params=[Folder, Tar, Zip, Parquet])
def kind(request: pytest.FixtureRequest, place: Place) -> Kind:
    made: Kind = request.param(place)
    return made


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[VectorStore]:
    monkeypatch.setenv("IMGSEARCH_HOME", str(tmp_path / "home"))
    with open_store(str(tmp_path / "store")) as opened:
        yield opened


Run = Callable[..., IngestReport]


@pytest.fixture
def run(store: VectorStore) -> Run:
    def once(source: str, **options: Any) -> IngestReport:
        opener = ColorEncoder().open
        return ingest(
            [source], store, "images", options=IngestOptions(**options), encoder_opener=opener
        )

    return once


@pytest.fixture
def pictures(paint: Painter) -> dict[str, bytes]:
    names = ["1.png", "b/2.png", "b/ü #%.png"]
    return {name: paint(f"in/{seed}.png", seed).read_bytes() for seed, name in enumerate(names)}


def records(store: VectorStore) -> list[ImageRecord]:
    return [record for batch in store.open("images").scan() for record in batch]


def test_a_source_keeps_its_promises(
    kind: Kind, run: Run, store: VectorStore, pictures: dict[str, bytes], paint: Painter
) -> None:
    source = kind.write(pictures)
    report = run(source)
    assert (report.indexed, report.other_files, report.rejected) == (3, kind.others, 0)
    found = {record.uri: record for record in records(store)}
    assert len(found) == 3
    contents = {r.uri: images.read_original(r, lambda file: file.read()) for r in found.values()}
    assert sorted(contents.values()) == sorted(pictures.values())
    assert all(images.version_at(r.path) == (r.size, r.mtime_ns) for r in found.values())
    if kind.has_fields:
        fields = {contents[r.uri]: dict(r.metadata) for r in found.values()}
        assert fields == {each: FIELDS.get(name, {}) for name, each in pictures.items()}
    assert run(source).skipped == 3

    with_another = pictures | {"new.png": paint("in/9.png", 9).read_bytes()}
    del with_another["1.png"]
    report = run(kind.write(with_another), prune=True)
    assert (report.indexed, report.rejected) == (1, 0)
    current = [images.read_original(record, lambda file: file.read()) for record in records(store)]
    assert sorted(current) == sorted(with_another.values())

    first, *_ = records(store)
    assert remove_paths(store.open("images"), [first.path]) == 1
    assert remove_paths(store.open("images"), [source]) == 2


@pytest.mark.parametrize("kind", [Tar, Zip, Parquet], indirect=True)
def test_an_unchanged_shard_is_not_read(
    kind: Kind, run: Run, pictures: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = kind.write(pictures)
    run(source)
    monkeypatch.setattr(opening, "_open", opening._open.__class__())

    def read(*_: object) -> None:
        raise AssertionError("the shard was read")

    monkeypatch.setattr(access, "open_reader", read)
    monkeypatch.setattr(access, "read", read)
    assert run(source).skipped == 3


@pytest.mark.parametrize(("place", "kind"), [("s3", Tar)], indirect=True)
def test_a_member_is_read_by_its_range(
    kind: Kind,
    run: Run,
    store: VectorStore,
    monkeypatch: pytest.MonkeyPatch,
    paint: Painter,
) -> None:
    content = {f"{seed}.png": bytes([seed]) * 10_000 for seed in range(5)}
    content["5.png"] = paint("5.png", 5).read_bytes()
    run(kind.write(content))
    (record,) = records(store)
    asked = []
    real = objects.read_range

    def read_range(info: Any, start: int, stop: int) -> Any:
        asked.append(stop - start)
        return real(info, start, stop)

    monkeypatch.setattr(objects, "read_range", read_range)
    assert images.read_original(record, lambda file: file.read()) == content["5.png"]
    assert len(asked) == 1
    assert asked[0] <= record.size + 1100
