"""`export` and `import`: collections out to files and back, and vectors of other programs in."""

import csv
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from imgsearch import ImageIndex
from imgsearch.encoders.base import Vectors, normalized
from imgsearch.errors import (
    CollectionMismatchError,
    MetadataError,
    MissingEncoderError,
    Remedy,
    SourceError,
    UsageError,
)
from imgsearch.events import Event, Note
from imgsearch.exchange import exporting, importing, readers
from imgsearch.server.settings import Settings
from imgsearch.stores import open_store
from imgsearch.stores.base import Collection
from imgsearch.stores.lance.store import LanceStore
from imgsearch.types import Hit, Stamp
from imgsearch.uris import path_to_uri, record_id
from tests.conftest import SAMPLES, Cli, Painter
from tests.fakes import ColorEncoder
from tests.serving import serving
from tests.store_contract import DIMENSION, STAMP, everything, record, vectors, write
from tests.test_weaviate_store import unique_name

SHIRT = SAMPLES / "images" / "10101.jpg"
AWKWARD = {
    "path": "a, b",
    "Year": 2**60,
    "share": 0.1,
    "new": True,
    "words": 'a "b"\nc',
    "ID": " x",
}


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "BATCH", 100)
    monkeypatch.setattr(readers, "_ROWS", 64)


def fill(store: LanceStore | Any, name: str = "pictures", count: int = 250) -> Collection:
    """Records with fields of all types, some with names that the columns of a record have."""
    collection: Collection = store.create(name, STAMP)
    kinds = {str: "str", int: "int", float: "float", bool: "bool"}
    collection.add_fields({name: kinds[type(value)] for name, value in AWKWARD.items()})  # type: ignore[misc]
    names = list(AWKWARD)
    records = [
        record(number, **{each: AWKWARD[each] for each in names[: number % (len(names) + 1)]})  # type: ignore[arg-type]
        for number in range(count)
    ]
    write(collection, records)
    return collection


def check_equal(one: Collection, other: Collection) -> None:
    assert (other.stamp, other.fields) == (one.stamp, one.fields)
    assert other.vector_dtype == one.vector_dtype
    records = everything(one)
    assert everything(other) == records
    expected, found = one.vectors_by_id(list(records)), other.vectors_by_id(list(records))
    for each in records:
        np.testing.assert_allclose(found[each], expected[each], atol=1e-6)
    for query in vectors(3, seed=5):
        scored = zip(one.search(query, 20), other.search(query, 20), strict=True)
        for mine, theirs in scored:
            assert mine.record == theirs.record
            assert mine.score == pytest.approx(theirs.score, abs=1e-6)


@pytest.mark.parametrize("name", ["out.parquet", "out.npy"])
def test_an_import_of_an_export_is_the_same_collection(tmp_path: Path, name: str) -> None:
    with open_store(str(tmp_path / "a")) as a, open_store(str(tmp_path / "b")) as b:
        original = fill(a)
        out = tmp_path / name
        report = exporting.export(original, a.url, str(out))
        assert (report.images, report.dimension, report.interrupted) == (250, DIMENSION, False)
        assert report.bytes == sum(os.path.getsize(each) for each in report.files)
        result = importing.import_vectors(str(out), b, "back")
        assert (result.found, result.imported, result.rejected) == (250, 250, 0)
        assert result.verified
        check_equal(original, b.open("back"))
        again = importing.import_vectors(str(out), b, "back")
        assert (again.imported, again.skipped) == (0, 250)


def test_a_parquet_file_says_what_it_holds(tmp_path: Path) -> None:
    with open_store(str(tmp_path / "a")) as a:
        exporting.export(fill(a), a.url, str(tmp_path / "out.parquet"))
    file = parquet.ParquetFile(tmp_path / "out.parquet")
    assert file.metadata.num_row_groups == 3
    kind = file.schema_arrow.field("vector").type
    assert (kind.list_size, kind.value_type) == (DIMENSION, pa.float32())
    assert Stamp.from_dict(json.loads(file.schema_arrow.metadata[b"imgsearch"])["stamp"]) == STAMP
    assert {"id", "uri", "path", "field_path", "Year", "field_ID"} <= set(file.schema_arrow.names)
    row = file.read().to_pylist()[6]
    assert row["path"] == "/pictures/000006.jpg"
    assert (row["field_path"], row["Year"], row["words"]) == ("a, b", 2**60, 'a "b"\nc')
    np.testing.assert_allclose(row["vector"], vectors(250)[6], atol=1e-6)


def test_conditions_choose_what_is_exported(tmp_path: Path, cli: Cli) -> None:
    with open_store(str(tmp_path / "a")) as a:
        fill(a)
    at = ("--store", tmp_path / "a", "--collection", "pictures")
    done = cli("export", tmp_path / "out.npy", *at, "--where", "new=true", "--json")
    assert done.json["images"] == sum(number % 7 >= 4 for number in range(250))
    assert np.load(tmp_path / "out.npy").shape == (done.json["images"], DIMENSION)
    with open(tmp_path / "out.csv", newline="") as file:
        assert {row["new"] for row in csv.DictReader(file)} == {"true"}


def test_an_export_is_written_whole_or_not_at_all(tmp_path: Path, cli: Cli) -> None:
    with open_store(str(tmp_path / "a")) as a:
        collection = fill(a)
        out = tmp_path / "out"
        out.mkdir()
        (out / "x.parquet").write_text("not a table")
        (out / "y.csv").write_text("my,own,table\n")
        for name in ("x.parquet", "y.npy", "z.txt", "missing/z.npy"):
            with pytest.raises((UsageError, SourceError), match=r"x\.|y\.csv|z\.(txt|npy)"):
                exporting.export(collection, a.url, str(out / name))
        stop = threading.Event()
        for name in ("s.parquet", "s.npy"):
            stop.clear()
            report = exporting.export(
                collection, a.url, str(out / name), listener=lambda _: stop.set(), stop=stop
            )
            assert (report.interrupted, report.files) == (True, ())
        assert sorted(each.name for each in out.iterdir()) == ["x.parquet", "y.csv"]


def embeddings(count: int, dtype: str = "float32", seed: int = 1) -> Any:
    drawn = np.random.default_rng(seed).standard_normal((count, 16))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(dtype)


def clip_output(folder: Path, *shards: dict[str, list[Any]]) -> list[Vectors]:
    """Write what clip-retrieval writes: float16 vectors, and Parquet by pandas."""
    made = []
    for place in ("img_emb", "metadata"):
        (folder / place).mkdir(parents=True)
    for number, columns in enumerate(shards):
        found = embeddings(len(next(iter(columns.values()))), "float16", seed=number)
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", found)
        parquet.write_table(pa.table(columns), folder / "metadata" / f"metadata_{number}.parquet")
        made.append(found.astype(np.float32))
    return made


@pytest.fixture(params=["embedded", pytest.param("server", marks=pytest.mark.weaviate)])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ImageIndex]:
    server = request.param == "server"
    url = request.getfixturevalue("one_node") if server else str(tmp_path / "store")
    with ImageIndex(unique_name(), store=url, timeout=20) as index:
        yield index
        if index.exists():
            index.drop()


def test_the_output_of_clip_retrieval_is_imported(
    index: ImageIndex, paint: Painter, tmp_path: Path
) -> None:
    here = paint("photos/0.png", 1)
    copy = here.with_name("copy.png")
    shutil.copy(here, copy)
    digest = "AB" * 32
    first: dict[str, list[Any]] = {
        "image_path": ["0.png", "copy.png", str(tmp_path / "away" / "2.png")],
        "caption": ["a red shirt", "a blue shirt", None],
        "similarity": [0.25, float("nan"), 0.5],
        "exif": ["{}", "{}", "{}"],
        "tags": [["a"], ["b"], []],
    }
    second: dict[str, list[Any]] = {
        "image_path": ["000000001", None],
        "url": [None, "https://example.org/1.jpg"],
        "caption": ["a hat", "a hat"],
        "width": [640, None],
        "height": [480, None],
        "sha256": [None, digest],
    }
    shards = clip_output(tmp_path / "clip", first, second)
    report = index.import_vectors(
        tmp_path / "clip", model_name="ViT-B/32", images=str(tmp_path / "photos")
    )
    assert (report.found, report.imported, report.rejected, report.normalized) == (5, 5, 0, 0)
    assert (report.made_elsewhere, report.files_read, report.verified) == (True, 2, True)
    assert report.ignored_columns == ("tags",)
    assert index.collection.stamp == Stamp.elsewhere("ViT-B/32", 16)
    found = {each.uri: each for each in index.records()}
    uri = path_to_uri(str(here))
    assert found[uri].metadata == {"caption": "a red shirt", "similarity": 0.25}
    assert (found[uri].size, found[uri].sha256) == (
        here.stat().st_size,
        found[path_to_uri(str(copy))].sha256,
    )
    away = found[path_to_uri(str(tmp_path / "away" / "2.png"))]
    assert (away.sha256, away.size, away.mtime_ns) == (f"unread:{away.id}", 0, 0)
    named = found[path_to_uri(str(tmp_path / "photos" / "000000001"))]
    assert (named.width, named.height) == (640, 480)
    assert found["https://example.org/1.jpg"].sha256 == digest.lower()
    # Records whose content is unknown are not taken for copies of each other.
    hits = index.search_vector(shards[0][0] / np.linalg.norm(shards[0][0]), k=5)
    assert [hit.copies for hit in hits] == [2, 1, 1, 1]
    assert hits[0].score == pytest.approx(1, abs=1e-3)
    assert [hit.record.uri for hit in index.search(text="hat")] != []


def test_a_query_image_says_which_encoder_is_missing(
    index: ImageIndex, cli: Cli, tmp_path: Path
) -> None:
    np.save(tmp_path / "v.npy", embeddings(3))
    (tmp_path / "v.csv").write_text("id,kind\na,hat\nb,hat\nc,shoe\n")
    index.import_vectors(tmp_path / "v.npy", model_name="clip")
    with pytest.raises(
        MissingEncoderError,
        match="made elsewhere, by clip",
        check=lambda error: error.remedies == (Remedy.SEARCH_BY_RECORD, Remedy.SEARCH_BY_VECTOR),
    ):
        index.search(SHIRT)
    at = ("--store", index.store.url, "--collection", index.name)
    failed = cli("query", SHIRT, *at)
    assert (failed.code, "--record ID" in failed.err) == (1, True)
    assert "made elsewhere" in cli("ingest", SAMPLES / "images", *at).err
    [best, *_] = cli("query", "--record", record_id("item:b"), *at, "--json").json["hits"]
    assert (best["uri"], best["path"]) == ("item:b", "item:b")
    np.save(tmp_path / "q.npy", 3 * embeddings(3)[1:])
    told = cli(
        "query", "--vector", tmp_path / "q.npy", *at, "--json", "-k", 1, "--where", "kind=hat"
    )
    lines = [json.loads(line) for line in told.out.splitlines()]
    assert [line["query"] for line in lines] == [f"{tmp_path}/q.npy[0]", f"{tmp_path}/q.npy[1]"]
    assert lines[0]["hits"][0]["uri"] == "item:b"
    assert lines[0]["hits"][0]["score"] == pytest.approx(1)
    for bad in (embeddings(3)[:, :5], np.zeros(16, np.float32), np.arange(16)):
        np.save(tmp_path / "bad.npy", bad)
        refused = cli("query", "--vector", tmp_path / "bad.npy", *at)
        assert refused.code in (1, 2)
        assert "bad.npy" in refused.err
    assert cli("remove", "item:c", *at, "--json").json["removed"] == 1


def test_unusable_rows_are_rejected_with_their_reason(tmp_path: Path, cli: Cli) -> None:
    found = embeddings(6, "float64")
    found[1, 3] = np.nan
    found[2] = 0
    found[5] *= 3
    columns = {
        "path": ["/a/0.jpg", "/a/1.jpg", "/a/2.jpg", "/a/0.jpg", "", "/a/5.jpg", "/a/6.jpg"],
        "emb": [*found.tolist(), [1.0]],
    }
    parquet.write_table(pa.table(columns), tmp_path / "v.parquet")
    notes: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Note):
            notes.append(event.text)

    with open_store(str(tmp_path / "store")) as store:
        options = importing.ImportOptions(model_name="clip")
        report = importing.import_vectors(
            str(tmp_path / "v.parquet"), store, "v", options, listener=listen
        )
        stored = store.open("v").vectors_by_id([record_id("file:///a/5.jpg")])
    assert (report.found, report.imported, report.rejected, report.normalized) == (7, 2, 5, 1)
    assert [(each.uri, each.reason) for each in report.problems] == [
        ("file:///a/1.jpg", "its vector has values that are not finite numbers"),
        ("file:///a/2.jpg", "its vector is zero"),
        ("file:///a/0.jpg", "another row is of the same image"),
        (f"{tmp_path}/v.parquet#4", "it does not say which image it is"),
        ("file:///a/6.jpg", "its vector has 1 dimensions, not 16"),
    ]
    assert notes == ["1 vectors were not L2-normalized, and have been"]
    assert np.linalg.norm(next(iter(stored.values()))) == pytest.approx(1)
    words = ("import", tmp_path / "v.parquet", "--store", tmp_path / "store", "--collection", "w")
    strict = cli(*words, "--model-name", "clip", "--strict", "--report", tmp_path / "report.jsonl")
    assert strict.code == 1
    lines = (tmp_path / "report.jsonl").read_text().splitlines()
    statuses = [json.loads(line)["status"] for line in lines]
    assert sorted(statuses) == ["indexed"] * 2 + ["rejected"] * 5


def test_wrong_files_are_reported(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"path": ["/a"]}), tmp_path / "no-vectors.parquet")
    two = pa.table({"path": ["/a"], "one": [[1.0]], "two": [[1.0]]})
    parquet.write_table(two, tmp_path / "two.parquet")
    parquet.write_table(pa.table({"score": [1.0], "vector": [[1.0]]}), tmp_path / "where.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "two.parquet").read_bytes()[:100])
    np.save(tmp_path / "lone.npy", embeddings(2))
    np.save(tmp_path / "short.npy", embeddings(2))
    (tmp_path / "short.csv").write_text("id,kind\na,b\n")
    np.save(tmp_path / "ints.npy", np.arange(4).reshape(2, 2))
    (tmp_path / "ints.csv").write_text("id,kind\na,b\nc,d\n")
    np.save(tmp_path / "flat.npy", embeddings(1)[0])
    (tmp_path / "flat.csv").write_text("id,kind\na,b\n")
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "text.csv").write_text("id,kind\na,b\n")
    (tmp_path / "empty").mkdir()
    expected = {
        "no-vectors.parquet": "no column of vectors",
        "two.parquet": "several columns of vectors: one, two",
        "where.parquet": "no column says where the images are",
        "cut.parquet": "cannot be read",
        "lone.npy": "no table",
        "short.npy": "2 vectors, but .* 1 rows",
        "ints.npy": "vectors are floats",
        "flat.npy": r"shape \(16,\)",
        "text.npy": "not a .npy file",
        "empty": "neither",
        "missing": "no such file",
        "text.csv": "format is unknown",
    }
    with open_store(str(tmp_path / "store")) as store:
        for name, reason in expected.items():
            options = importing.ImportOptions(model_name="clip")
            with pytest.raises((MetadataError, SourceError, UsageError), match=reason):
                importing.import_vectors(str(tmp_path / name), store, "v", options)
        (tmp_path / "lone.csv").write_text("id,kind\na,b\nc,d\n")
        with pytest.raises(
            MetadataError, check=lambda error: error.remedies == (Remedy.NAME_THE_MODEL_OF_VECTORS,)
        ):
            importing.import_vectors(str(tmp_path / "lone.npy"), store, "v")
        assert store.names() == []
        fill(store, "v", 3)
        with pytest.raises(CollectionMismatchError, match="made elsewhere"):
            importing.import_vectors(
                str(tmp_path / "lone.npy"), store, "v", importing.ImportOptions(model_name="clip")
            )


def test_an_exported_collection_finds_the_same_by_image_in_another_store(
    sample_store: str, tmp_path: Path, cli: Cli
) -> None:
    assert cli("export", tmp_path / "out.parquet", "--store", sample_store).code == 0
    assert cli("import", tmp_path / "out.parquet", "--store", tmp_path / "b").code == 0

    def hits(store: object) -> list[Hit]:
        return cli("query", SHIRT, "--store", store, "--json", "-k", 20).json["hits"]  # type: ignore[no-any-return]

    assert hits(tmp_path / "b") == hits(sample_store)


def test_pruning_and_serving_leave_records_without_a_file_alone(
    tmp_path: Path, paint: Painter
) -> None:
    photos = paint("photos/0.png", 1).parent
    encoder = ColorEncoder()
    with ImageIndex(store=tmp_path / "store", encoder_opener=encoder.open) as index:
        index.add(photos)
        paths = ["https://example.org/9.jpg", str(photos / "gone.png")]
        vector = normalized(np.ones((2, 48), np.float32))
        other = {"path": paths, "vector": vector.tolist()}
        parquet.write_table(pa.table(other), tmp_path / "v.parquet")
        away = ImageIndex("away", store=tmp_path / "store")
        away.import_vectors(tmp_path / "v.parquet", model_name="clip")
        stored = away.collection
        copied = stored.vectors_by_id([record_id(paths[0])])
        index.collection.upsert(
            list(stored.lookup(list(copied)).values()), np.stack(list(copied.values()))
        )
        assert index.add(photos, prune=True).removed == 0
        assert index.count() == 2
    settings = Settings(str(tmp_path / "store"), "away", data=tmp_path / "home")
    with serving(settings) as served:
        [hit, _] = served.client.post(
            "/v1/collections/away/search", data={"record": record_id(paths[0])}
        ).json()["hits"]
        assert hit["sha256"] == f"unread:{hit['id']}"
        for kind in ("image", "thumbnail"):
            assert served.client.get(hit[kind]).status_code == 404
        refused = served.client.post(
            "/v1/collections/away/search", files={"image": SHIRT.read_bytes()}
        )
        assert refused.status_code == 409
        assert "made elsewhere, by clip" in refused.json()["detail"]


@pytest.mark.weaviate
@pytest.mark.slow
def test_an_export_of_a_server_comes_back_into_either_store(tmp_path: Path, one_node: str) -> None:
    name = unique_name()
    with open_store(str(tmp_path / "a")) as a, open_store(one_node, 30) as server:
        original = fill(server, name)
        exporting.export(original, server.url, str(tmp_path / "out.parquet"))
        importing.import_vectors(str(tmp_path / "out.parquet"), a, "back")
        importing.import_vectors(str(tmp_path / "out.parquet"), server, f"{name}-b")
        check_equal(original, a.open("back"))
        check_equal(original, server.open(f"{name}-b"))
        for each in (name, f"{name}-b"):
            server.drop(each)
