"""`copy` copies a collection with its vectors between any two stores, and can be repeated."""

import threading
from pathlib import Path

import numpy as np
import pytest

from imgsearch import copying
from imgsearch.copying import copy
from imgsearch.errors import CollectionMismatchError, Remedy
from imgsearch.events import Event, Outcome
from imgsearch.stores import open_store
from imgsearch.stores.base import Collection, VectorStore
from tests.conftest import Cli
from tests.store_contract import OTHER_STAMP, STAMP, everything, record, vectors, write
from tests.test_weaviate_store import unique_name

COUNT = 5000


def fill(store: VectorStore, name: str = "pictures", count: int = COUNT) -> Collection:
    collection = store.create(name, STAMP)
    collection.add_fields({"year": "int", "kind": "str"})
    records = [record(number, year=number % 7, kind=f"{number % 3}") for number in range(count)]
    assert collection.upsert(records, vectors(count)) == {}
    return collection


def check_equal(one: Collection, other: Collection) -> None:
    assert other.stamp == one.stamp
    records = everything(one)
    assert everything(other) == records
    ids = list(records)[:500]
    expected, found = one.vectors_by_id(ids), other.vectors_by_id(ids)
    for each in ids:
        np.testing.assert_allclose(found[each], expected[each], atol=1e-5)


def test_a_copy_has_every_record_and_vector(tmp_path: Path) -> None:
    with open_store(str(tmp_path / "a")) as a, open_store(str(tmp_path / "b")) as b:
        original = fill(a)
        report = copy(a, b, "pictures", "backup")
        assert (report.found, report.copied, report.skipped, report.rejected) == (
            COUNT,
            COUNT,
            0,
            0,
        )
        assert report.verified
        check_equal(original, b.open("backup"))


def test_a_second_copy_copies_only_new_and_changed_records(tmp_path: Path) -> None:
    with open_store(str(tmp_path / "a")) as a, open_store(str(tmp_path / "b")) as b:
        original = fill(a, count=100)
        copy(a, b, "pictures", "pictures")
        original.update_metadata({record(1).id: {"year": 2020}})
        write(original, [record(500)], seed=3)
        report = copy(a, b, "pictures", "pictures")
        assert (report.found, report.copied, report.skipped) == (101, 2, 99)
        check_equal(original, b.open("pictures"))


def test_a_stopped_copy_continues_with_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "BATCH", 100)
    stop = threading.Event()

    def stop_soon(event: Event) -> None:
        if isinstance(event, Outcome):
            stop.set()

    with open_store(str(tmp_path / "a")) as a, open_store(str(tmp_path / "b")) as b:
        original = fill(a)
        first = copy(a, b, "pictures", "pictures", stop_soon, stop)
        assert first.interrupted
        assert not first.verified
        assert 0 < first.copied < COUNT
        second = copy(a, b, "pictures", "pictures")
        assert (second.copied, second.skipped) == (COUNT - first.copied, first.copied)
        check_equal(original, b.open("pictures"))


def test_a_collection_of_another_model_is_an_error(tmp_path: Path) -> None:
    with open_store(str(tmp_path / "a")) as a, open_store(str(tmp_path / "b")) as b:
        fill(a, count=10)
        b.create("pictures", OTHER_STAMP)
        with pytest.raises(
            CollectionMismatchError,
            match="colors, not shapes",
            check=lambda error: error.remedies == (Remedy.COPY_TO_OTHER_NAME,),
        ):
            copy(a, b, "pictures", "pictures")


def test_the_command_copies_and_prints_a_summary(tmp_path: Path, cli: Cli) -> None:
    with open_store(str(tmp_path / "a")) as a:
        fill(a, count=10)
    words = ("copy", "--from", tmp_path / "a", "--to", tmp_path / "b", "--collection", "pictures")
    first = cli(*words, "--as", "backup", "--json")
    assert (first.code, first.json["copied"], first.json["as"]) == (0, 10, "backup")
    again = cli(*words, "--as", "backup")
    assert (again.code, "10 skipped, 0 rejected, verified" in again.out) == (0, True)
    missing = cli(*words[:-1], "nowhere")
    assert (missing.code, "nowhere" in missing.err) == (1, True)


@pytest.mark.weaviate
@pytest.mark.slow
def test_copies_to_and_from_weaviate_are_equal(tmp_path: Path, one_node: str) -> None:
    name = unique_name()
    with open_store(str(tmp_path / "a")) as a, open_store(one_node, 30) as server:
        original = fill(a)
        assert copy(a, server, "pictures", name).copied == COUNT
        check_equal(original, server.open(name))
        assert copy(a, server, "pictures", name).skipped == COUNT
        assert copy(server, a, name, "returned").copied == COUNT
        check_equal(original, a.open("returned"))
        server.drop(name)
