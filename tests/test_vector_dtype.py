"""Vectors stored as float16: half the space, the same hits, and errors for what does not fit."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from imgsearch import ImageIndex
from imgsearch.copying import copy
from imgsearch.encoders.base import normalized
from imgsearch.encoders.request import EncoderRequest
from imgsearch.errors import CollectionMismatchError, Remedy, UsageError
from imgsearch.ingest import IngestOptions, IngestReport, ingest
from imgsearch.stores import open_store
from imgsearch.stores.base import Collection, Vectors, VectorStore, check_dtype_of_store
from imgsearch.stores.lance import vector_index
from imgsearch.types import Condition, Stamp, VectorDtype
from tests.conftest import Cli, Painter
from tests.fakes import ColorEncoder
from tests.store_contract import STAMP, everything, record, vectors, write

DIMENSION = 64
WIDE = Stamp("wide", "a" * 64, "none", DIMENSION)


def wide_vectors(count: int, seed: int = 0) -> Vectors:
    drawn = np.random.default_rng(seed).standard_normal((count, DIMENSION))
    return normalized(drawn.astype(np.float32))


def fill(store: VectorStore, name: str, vector_dtype: VectorDtype, count: int = 2000) -> Collection:
    collection = store.create(name, WIDE, {"even": "bool"}, vector_dtype)
    records = [record(number, even=number % 2 == 0) for number in range(count)]
    assert collection.upsert(records, wide_vectors(count)) == {}
    return collection


@pytest.fixture
def folder(paint: Painter) -> Path:
    for number in range(6):
        paint(f"shop/{number}.jpg", number)
    return paint("shop/6.jpg", 6).parent


def add(
    store: VectorStore, folder: Path, vector_dtype: VectorDtype | None, *, replace: bool = False
) -> tuple[IngestReport, int]:
    """Ingest; return the report and how many images were encoded."""
    encoder = ColorEncoder()
    options = IngestOptions(workers=1, replace=replace, vector_dtype=vector_dtype)
    report = ingest(
        [str(folder)], store, "images", EncoderRequest(), options, encoder_opener=encoder.open
    )
    return report, encoder.encoded


def test_float16_takes_half_the_space_and_finds_the_same(tmp_path: Path) -> None:
    with open_store(str(tmp_path)) as store:
        full, half = fill(store, "full", "float32"), fill(store, "half", "float16")
        assert (full.vector_dtype, half.vector_dtype) == ("float32", "float16")
        sizes = [each.info().bytes or 0 for each in (full, half)]
        assert sizes[0] - sizes[1] > 0.45 * 2000 * DIMENSION * 4
        for query in wide_vectors(10, seed=1):
            for where in [], [Condition("even", "=", True)]:
                wanted, found = full.search(query, 10, where), half.search(query, 10, where)
                same = {each.record.id for each in found} & {each.record.id for each in wanted}
                assert len(same) >= 9
                assert [each.score for each in found] == pytest.approx(
                    [each.score for each in wanted], abs=2e-4
                )


@pytest.mark.slow
def test_an_index_over_float16_is_tuned_and_finds_what_comparing_all_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_index, "MIN_ROWS", 1000)
    with open_store(str(tmp_path)) as store:
        half = fill(store, "half", "float16")
        half.optimize()
        assert half.info().details["vector_index"]["recall"] >= 0.99
        for query in wide_vectors(10, seed=1):
            exact = half.search(query, 10, exact=True)
            assert half.search(query, 10) == exact


def test_vectors_are_returned_as_float32_of_length_one(tmp_path: Path) -> None:
    with open_store(str(tmp_path)) as store:
        half = fill(store, "half", "float16", 100)
        found = half.vectors_by_id(list(everything(half)))
        stacked = np.stack(list(found.values()))
        assert stacked.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(stacked, axis=1), 1, atol=1e-6)


def test_vectors_that_are_written_again_stay_equal(tmp_path: Path) -> None:
    with open_store(str(tmp_path)) as store:
        half = fill(store, "half", "float16", 100)
        before = half.vectors_by_id(list(everything(half)))
        assert copy(store, store, "half", "again").verified
        again = store.open("again")
        assert again.vector_dtype == "float16"
        after = again.vectors_by_id(list(before))
        assert all(np.array_equal(after[each], before[each]) for each in before)


def test_a_copy_converts_to_the_number_format_asked_for(tmp_path: Path) -> None:
    with open_store(str(tmp_path)) as store:
        full = fill(store, "full", "float32", 100)
        assert copy(store, store, "full", "half", vector_dtype="float16").verified
        half = store.open("half")
        assert (half.vector_dtype, half.stamp) == ("float16", full.stamp)
        assert everything(half) == everything(full)
        with pytest.raises(CollectionMismatchError, match="keeps its vectors as float16") as error:
            copy(store, store, "full", "half", vector_dtype="float32")
        assert Remedy.COPY_TO_OTHER_NAME in error.value.remedies
        # Without one the copy keeps its own.
        write_more = [record(200, even=True)]
        full.upsert(write_more, wide_vectors(1, seed=9))
        assert copy(store, store, "full", "half").copied == 1


def test_an_ingest_keeps_the_number_format_of_its_collection(
    tmp_path: Path, folder: Path, paint: Painter
) -> None:
    with open_store(str(tmp_path / "store")) as store:
        add(store, folder, "float16")
        paint("shop/7.jpg", 7)
        assert add(store, folder, None)[0].indexed == 1
        collection = store.open("images")
        assert (collection.vector_dtype, collection.count()) == ("float16", 8)
        assert collection.info().to_dict()["vector_dtype"] == "float16"
        with pytest.raises(CollectionMismatchError, match="float16, not as float32") as error:
            add(store, folder, "float32")
        assert Remedy.REPLACE_VECTORS in error.value.remedies


def test_replacing_converts_without_encoding(tmp_path: Path, folder: Path) -> None:
    with open_store(str(tmp_path / "store")) as store:
        add(store, folder, None)
        before = everything(store.open("images"))
        report, encoded = add(store, folder, "float16", replace=True)
        assert (report.reused, encoded, report.verified) == (7, 0, True)
        collection = store.open("images")
        assert (collection.vector_dtype, everything(collection)) == ("float16", before)
        report, encoded = add(store, folder, "float16", replace=True)
        assert (report.skipped, encoded) == (7, 0)


def test_a_replacement_by_another_model_keeps_the_number_format(
    tmp_path: Path, folder: Path
) -> None:
    with open_store(str(tmp_path / "store")) as store:
        add(store, folder, "float16")
        encoder = ColorEncoder("1" * 64)
        ingest(
            [str(folder)],
            store,
            "images",
            EncoderRequest("colors"),
            IngestOptions(workers=1, replace=True),
            encoder_opener=encoder.open,
        )
        collection = store.open("images")
        assert (collection.vector_dtype, collection.stamp.weights) == ("float16", "1" * 64)


def test_a_replacement_of_another_number_format_is_begun_again(tmp_path: Path) -> None:
    with open_store(str(tmp_path)) as store:
        write(store.create("images", STAMP), [record(1)])
        write(store.replacement("images", STAMP, {}, "float16"), [record(2)])
        assert store.replacement("images", STAMP, {}, "float16").count() == 1
        assert store.replacement("images", STAMP, {}, "float32").count() == 0


def test_a_handle_from_before_a_conversion_reads_and_writes(tmp_path: Path) -> None:
    with open_store(str(tmp_path)) as store:
        handle = store.create("images", STAMP)
        write(handle, [record(1)])
        new = store.replacement("images", STAMP, {}, "float16")
        new.upsert([record(1)], vectors(1))
        store.promote("images", STAMP)
        write(handle, [record(2)], seed=2)
        assert (handle.count(), handle.vector_dtype) == (2, "float16")


def test_a_store_without_float16_says_what_offers_it() -> None:
    server = cast(Any, SimpleNamespace(url="weaviate://host", vector_dtypes=("float32",)))
    check_dtype_of_store(server, None)
    check_dtype_of_store(server, "float32")
    with pytest.raises(UsageError, match="only the embedded store offers") as error:
        check_dtype_of_store(server, "float16")
    assert error.value.remedies == (Remedy.LEAVE_OUT_VECTOR_DTYPE,)


def test_the_commands_take_the_number_format(tmp_path: Path, cli: Cli) -> None:
    with open_store(str(tmp_path / "a")) as store:
        fill(store, "images", "float32", 10)
    words = ("copy", "--from", tmp_path / "a", "--to", tmp_path / "b", "--vector-dtype", "float16")
    assert cli(*words).code == 0
    shown = cli("info", "--store", tmp_path / "b")
    assert "vectors stored as float16" in shown.out
    again = cli(*words[:-1], "float32")
    assert (again.code, "omit --vector-dtype" in again.err) == (1, True)
    assert cli(*words[:-1], "float64").code == 2


def test_the_python_api_takes_the_number_format(tmp_path: Path, folder: Path) -> None:
    with ImageIndex(
        store=tmp_path / "store", vector_dtype="float16", encoder_opener=ColorEncoder().open
    ) as index:
        index.add(folder)
        assert index.info().vector_dtype == "float16"
