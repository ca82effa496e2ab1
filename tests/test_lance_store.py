"""The contract suite on the embedded store, and what only an embedded store promises."""

import datetime
import multiprocessing
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lance
import numpy as np
import pytest

from imgsearch.analysis.evaluate import evaluate
from imgsearch.copying import copy
from imgsearch.encoders.base import normalized
from imgsearch.errors import CollectionMismatchError, Remedy, StoreBusyError, StoreError, UsageError
from imgsearch.events import Event, Note, Stage
from imgsearch.search import SearchRequest, search_vector
from imgsearch.stores import check_name, open_store
from imgsearch.stores.base import VectorStore
from imgsearch.stores.lance import filters, local, maintenance, scalar_indexes, vector_index
from imgsearch.stores.lance.collection import LanceCollection
from imgsearch.stores.lance.dataset import Dataset
from imgsearch.stores.lance.folders import DatasetFolder
from imgsearch.stores.lance.segments import count_to_merge
from imgsearch.stores.lance.store import LanceStore
from imgsearch.types import Condition, FieldType, Stamp, VectorDtype
from tests.store_contract import (
    OTHER_STAMP,
    STAMP,
    StoreContract,
    everything,
    record,
    vectors,
    write,
)


class TestLanceStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[VectorStore]:
        with open_store(str(tmp_path / "store")) as opened:
            yield opened


class _HalfStore(LanceStore):
    def _create(
        self,
        folder: DatasetFolder,
        stamp: Stamp,
        fields: Mapping[str, FieldType],
        vector_dtype: VectorDtype,
    ) -> None:
        super()._create(folder, stamp, fields, "float16")


class TestLanceStoreInFloat16(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[VectorStore]:
        with _HalfStore(str(tmp_path / "store")) as opened:
            yield opened


def test_looking_into_a_store_that_is_not_there_makes_nothing(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "nowhere"))
    assert store.names() == []
    assert not (tmp_path / "nowhere").exists()


def test_a_collection_without_words_is_copied_to_have_them(tmp_path: Path) -> None:
    """As they were made before words could be searched."""
    with open_store(str(tmp_path)) as store:
        old = store.create("old", STAMP)
        old.add_fields({"kind": "str"})
        write(old, [record(1, kind="shoe")])
        lance.dataset(str(tmp_path / "old.lance")).drop_columns(["words"])
        old = store.open("old")
        write(old, [record(2, kind="boot")])
        old.update_metadata({record(1).id: {"kind": "hat"}})
        with pytest.raises(
            CollectionMismatchError, check=lambda error: error.remedies == (Remedy.COPY,)
        ):
            old.search_text(["hat"], 5)
        assert copy(store, store, "old", "new").verified
        assert [each.record for each in store.open("new").search_text(["hat"], 5)] == [
            record(1, kind="hat")
        ]


def test_a_store_is_named_by_folder_or_url(tmp_path: Path) -> None:
    for url in (str(tmp_path), f"lance:{tmp_path}", f"lance://{tmp_path}"):
        assert open_store(url).url == str(tmp_path)


def test_an_unknown_kind_of_store_is_rejected() -> None:
    with pytest.raises(UsageError, match="not known"):
        open_store("ftp://somewhere/store")


@pytest.mark.parametrize("name", ["", "9lives", "a/b", "../x", "a b", "ä", "x" * 101, "a.b"])
def test_a_collection_name_that_some_store_cannot_hold_is_rejected(name: str) -> None:
    with pytest.raises(UsageError):
        check_name(name)


def test_a_foreign_dataset_is_no_collection(tmp_path: Path) -> None:
    import lance
    import pyarrow as pa

    lance.write_dataset(pa.table({"a": [1]}), str(tmp_path / "theirs.lance"))
    with pytest.raises(CollectionMismatchError, match="no collection"):
        LanceStore(tmp_path).open("theirs")


def test_a_store_that_cannot_be_written_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = LanceStore(tmp_path / "file" / "store")
    with (
        pytest.raises(StoreError, match="cannot be written") as failure,
        store.write_lock("images"),
    ):
        pass
    assert "\n" not in str(failure.value)


def test_a_second_writer_reports_and_waits_until_the_first_is_done(tmp_path: Path) -> None:
    first, second = LanceStore(tmp_path), LanceStore(tmp_path)
    events: list[Event] = []
    order: list[str] = []
    waiting = threading.Event()

    def listen(event: Event) -> None:
        events.append(event)
        waiting.set()

    def write_second() -> None:
        with second.write_lock("images", listen):
            order.append("second")

    with first.write_lock("images"):
        thread = threading.Thread(target=write_second)
        thread.start()
        assert waiting.wait(60)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert any(isinstance(event, Note) and "waiting" in event.text for event in events)


def test_a_second_writer_gives_up_in_the_end(tmp_path: Path) -> None:
    second = LanceStore(tmp_path, lock_timeout=0.1)
    with (
        LanceStore(tmp_path).write_lock("images"),
        pytest.raises(StoreBusyError, match="images"),
        second.write_lock("images"),
    ):
        pass


def test_writers_of_different_collections_do_not_wait(tmp_path: Path) -> None:
    second = LanceStore(tmp_path, lock_timeout=0.1)
    with LanceStore(tmp_path).write_lock("one"), second.write_lock("two"):
        pass


_ENDLESS_WRITER = """
import sys
from tests.store_contract import STAMP, record, write
from imgsearch.stores import open_store
store = open_store(sys.argv[1])
with store.write_lock("images"):
    collection = store.create("images", STAMP)
    for start in range(0, 10**6, 10):
        write(collection, [record(n) for n in range(start, start + 10)], seed=start)
        print(start + 10, flush=True)
"""


def test_a_killed_writer_leaves_a_store_that_opens_with_all_that_was_written(
    tmp_path: Path,
) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", _ENDLESS_WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    written = 0
    while written < 100:
        written = int(writer.stdout.readline())
    writer.kill()
    writer.wait()
    rest = writer.stdout.read().split()
    writer.stdout.close()
    written = int(rest[-1]) if rest else written
    store = LanceStore(tmp_path, lock_timeout=5)
    with store.write_lock("images"):  # the lock ended with the process
        collection = store.open("images")
        assert collection.count() in (written, written + 10)
        write(collection, [record(10**7)])
    assert len(everything(collection)) == collection.count()


def test_readers_in_other_processes_see_every_version_whole(tmp_path: Path) -> None:
    store = LanceStore(tmp_path)
    collection = store.create("images", STAMP)
    write(collection, [record(number) for number in range(10)])
    context = multiprocessing.get_context("spawn")
    done, results = context.Event(), context.Queue()
    readers = [context.Process(target=_read_on, args=(tmp_path, done, results)) for _ in range(2)]
    for reader in readers:
        reader.start()
    assert [results.get(timeout=240) for _ in readers] == ["ready", "ready"]
    for start in range(10, 200, 10):
        write(collection, [record(number) for number in range(start, start + 10)], seed=start)
    collection.optimize()
    time.sleep(0.1)
    done.set()
    assert [results.get(timeout=240) for _ in readers] == ["good", "good"]
    for reader in readers:
        reader.join()


def _read_on(folder: Path, done: threading.Event, results: "multiprocessing.Queue[str]") -> None:
    collection = LanceStore(folder).open("images")
    results.put("ready")
    seen = 0
    try:
        while not done.is_set():
            count = collection.count()
            assert count % 10 == 0
            assert count >= seen
            assert len(collection.search(vectors(1)[0], 5)) == 5
            seen = count
    except BaseException as error:
        results.put(repr(error))
    else:
        results.put("good")


def test_small_writes_are_compacted_on_the_way(tmp_path: Path) -> None:
    collection = LanceStore(tmp_path).create("images", STAMP)
    for number in range(150):
        write(collection, [record(number)], seed=number)
    assert len(collection._dataset.handle.get_fragments()) < 30
    assert len(everything(collection)) == 150


def test_small_writes_of_many_runs_are_compacted_at_the_end_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    LanceStore(tmp_path).create("images", STAMP)
    for number in range(150):
        collection = LanceStore(tmp_path).open("images")
        write(collection, [record(number)], seed=number)
    # Also during the runs, though each run wrote one record.
    assert len(collection._dataset.handle.get_fragments()) < 70
    monkeypatch.setattr(maintenance, "_SMALL_FRAGMENTS", 0)
    collection.optimize()
    assert len(collection._dataset.handle.get_fragments()) == 1
    assert len(everything(collection)) == 150


def test_a_write_succeeds_if_the_cleanup_after_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "_VERSIONS_BETWEEN_CLEANUPS", 1)
    collection = LanceStore(tmp_path).create("images", STAMP)

    def full() -> None:
        raise OSError("LanceError(IO): No space left on device (os error 28)")

    monkeypatch.setattr(collection._maintenance, "_remove_old_versions", full)
    write(collection, [record(1)])
    assert collection.count() == 1
    with pytest.raises(StoreError, match="disk is full"):
        collection.optimize()


def test_edits_of_single_records_leave_few_files_whoever_makes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "_VERSIONS_BETWEEN_CLEANUPS", 16)
    monkeypatch.setattr(maintenance, "_TINY_FRAGMENTS", 8)
    monkeypatch.setattr(local, "AGE_AT_REST", datetime.timedelta(0))
    made = LanceStore(tmp_path).create("images", STAMP)
    made.add_fields({"year": "int"})
    write(made, [record(number) for number in range(40)])
    files: list[int] = []
    for number in range(120):
        editor = LanceStore(tmp_path).open("images")
        if number % 3:
            editor.update_metadata({record(number % 40).id: {"year": number}})
        else:
            editor.upsert([record(1000 + number)], vectors(1, seed=number))
            assert editor.delete([record(1000 + number).id]) == 1
        files.append(sum(1 for path in tmp_path.rglob("*") if path.is_file()))
    assert max(files[40:]) <= 1.5 * max(files[:40])
    assert len(editor._dataset.newest().get_fragments()) < 40
    years = {each.metadata.get("year") for each in everything(made).values()}
    assert years >= {number for number in range(90, 120) if number % 3}
    assert made.count() == 40


@pytest.mark.parametrize(("rows_compared", "fragments"), [(4000, 4), (1000, 2)])
def test_fragments_are_small_only_while_searches_compare_all_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_compared: int, fragments: int
) -> None:
    monkeypatch.setattr(vector_index, "MIN_ROWS", rows_compared)
    monkeypatch.setattr(maintenance, "_ROWS_PER_FRAGMENT", 500)
    monkeypatch.setattr(maintenance, "_SMALL_FRAGMENTS", 19)
    collection = LanceStore(tmp_path).create("images", STAMP)
    for number in range(20):
        first = 100 * number
        write(collection, [record(each) for each in range(first, first + 100)], seed=number)
    # Merged after the nineteenth.
    assert len(collection._dataset.handle.get_fragments()) == fragments
    assert len(everything(collection)) == 2000


def test_a_commit_that_was_overtaken_is_tried_again(tmp_path: Path) -> None:
    collection = LanceStore(tmp_path).create("images", STAMP)
    attempts: list[int] = []

    def conflicting() -> None:
        attempts.append(1)
        if len(attempts) < 3:
            raise OSError("Retryable commit conflict for version 7")

    collection._dataset.retry("cannot be written to", conflicting)
    assert len(attempts) == 3


def test_a_full_disk_is_named_and_what_was_written_stays(tmp_path: Path) -> None:
    collection = LanceStore(tmp_path).create("images", STAMP)
    write(collection, [record(1)])

    def full() -> None:
        raise OSError("LanceError(IO): No space left on device (os error 28), /x/y.rs:1:2")

    with pytest.raises(StoreError, match="disk is full"):
        collection._dataset.retry("cannot be written to", full)
    assert collection.count() == 1


@pytest.mark.parametrize(
    ("new", "segments", "merged"),
    [(10, [], 0), (10, [100, 11], 0), (10, [100, 10], 1), (10, [100, 21, 20, 10], 3), (9, [9], 1)],
)
def test_an_index_merges_segments_that_are_no_larger(
    new: int, segments: list[int], merged: int
) -> None:
    assert count_to_merge(segments, new) == merged


def test_few_rows_are_read_for_content_with_many_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(str(tmp_path)) as store:
        collection = store.create("images", STAMP)
        copies = [record(number, content=number % 10) for number in range(3000)]
        write(collection, copies)
        digests = [each.sha256 for each in copies[:10]]
        read, rows = Dataset.read, list[int]()

        def count(*arguments: Any, **options: Any) -> Any:
            table = read(*arguments, **options)
            rows.append(len(table))
            return table

        monkeypatch.setattr(Dataset, "read", count)
        assert set(collection.vectors_by_digest(digests)) == set(digests)
        assert sum(rows) < 20 * len(digests)


_ROWS = 4000


def _lower_thresholds(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(scalar_indexes, "MIN_ROWS", 1000)
    patch.setattr(scalar_indexes, "MAX_UNINDEXED", 500)
    patch.setattr(vector_index, "MIN_ROWS", 1000)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two equal collections: one without indexes, one with them, tuned in full."""
    folder = tmp_path_factory.mktemp("built")
    store = LanceStore(folder)
    collection = store.create("images", STAMP)
    collection.add_fields({"number": "int"})
    write(collection, [record(number, number=number) for number in range(_ROWS)])
    shutil.copytree(folder / "images.lance", folder / "indexed.lance")
    with pytest.MonkeyPatch.context() as patch:
        _lower_thresholds(patch)
        store.open("indexed").optimize()
    return folder


@pytest.fixture
def quick_tuning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tune by a few queries, for tests of what does not depend on the result."""
    monkeypatch.setattr(vector_index, "_SAMPLE", 8)
    monkeypatch.setattr(vector_index, "_FILTERED_SAMPLE", 2)


class TestIndex:
    """With the thresholds lowered, so that small collections get the indexes of large ones."""

    @pytest.fixture(autouse=True)
    def _low_thresholds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        _lower_thresholds(monkeypatch)

    @pytest.fixture
    def collection(self, built: Path, tmp_path: Path) -> LanceCollection:
        shutil.copytree(built / "images.lance", tmp_path / "images.lance")
        return LanceStore(tmp_path).open("images")

    @pytest.fixture
    def indexed(self, built: Path, tmp_path: Path) -> LanceCollection:
        shutil.copytree(built / "indexed.lance", tmp_path / "indexed.lance")
        return LanceStore(tmp_path).open("indexed")

    def test_words_are_found_inside_and_outside_the_index(
        self, collection: LanceCollection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(vector_index, "MIN_ROWS", 10**6)
        collection.add_fields({"kind": "str"})
        seven, eight = record(7).id, record(8).id
        collection.update_metadata({seven: {"kind": "Käse 鞋"}, eight: {"kind": "a shoe"}})
        words = ["kase", "鞋", "a", "shoe"]
        before = collection.search_text(words, 5)
        assert {each.record.id for each in before} == {seven, eight}
        collection.optimize()
        assert collection._maintenance.has_index("words")
        assert collection.search_text(words, 5) == before
        write(collection, [record(9_999, kind="shoe")])
        found = collection.search_text(["shoe"], 5)
        assert {each.record.id for each in found} == {eight, record(9_999).id}

    @pytest.mark.parametrize("k", [1, 3, 40, 400])
    def test_the_first_uris_of_many_equal_matches_are_found(
        self, collection: LanceCollection, monkeypatch: pytest.MonkeyPatch, k: int
    ) -> None:
        monkeypatch.setattr(vector_index, "MIN_ROWS", 10**6)
        monkeypatch.setattr("imgsearch.stores.lance.collection._EQUAL_MATCHES", 20)
        collection.add_fields({"kind": "str"})
        order = np.random.default_rng(0).permutation(300).tolist()
        kinds = {each: "red shoe" if each % 50 == 7 else "shoe hat" for each in order}
        write(collection, [record(10_000 + each, kind=kinds[each]) for each in order])
        collection.optimize()
        found = [each.record for each in collection.search_text(["red", "shoe"], k)]
        both = [each for each in sorted(order) if each % 50 == 7]
        one = [each for each in sorted(order) if each % 50 != 7]
        expected = [record(10_000 + each, kind=kinds[each]) for each in both + one]
        assert found == expected[:k]

    @pytest.mark.usefixtures("quick_tuning")
    def test_it_is_built_and_extended_with_a_line_of_progress(
        self, collection: LanceCollection
    ) -> None:
        events: list[Event] = []
        collection.optimize(events.append)
        stages = [event.text for event in events if isinstance(event, Stage)]
        assert any("building the index of vector" in text for text in stages)
        more = [record(number, number=number) for number in range(_ROWS, _ROWS + 1000)]
        write(collection, more, seed=1)
        events.clear()
        collection.optimize(events.append)
        stages = [event.text for event in events if isinstance(event, Stage)]
        assert any("adding 1,000 records" in text for text in stages)
        assert collection._maintenance.indexed_rows()["vector"] == _ROWS + 1000
        events.clear()
        collection.optimize(events.append)
        assert events == []

    def test_an_ingest_indexes_what_it_looks_up_in_few_segments(
        self, indexed: LanceCollection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(maintenance, "_UPSERTS_BETWEEN_INDEXING", 2)
        rows = _ROWS
        for upsert in range(40):
            write(indexed, [record(rows + each) for each in range(260)], seed=upsert)
            rows += 260
            for column in ("id", "sha256", "uri"):
                assert rows - indexed._maintenance.indexed_rows()[column] <= 2 * 260
        segments = [len(each.segments) for each in indexed._dataset.handle.describe_indices()]
        assert max(segments) <= 6
        wanted = [record(number) for number in (0, _ROWS - 1, _ROWS, rows - 1)]
        assert set(indexed.lookup([each.id for each in wanted])) == {x.id for x in wanted}
        assert set(indexed.vectors_by_digest([each.sha256 for each in wanted])) == {
            each.sha256 for each in wanted
        }
        indexed.delete([wanted[0].id])
        indexed.upsert([wanted[1]], vectors(1))
        assert indexed.lookup([each.id for each in wanted]).keys() == {
            each.id for each in wanted[1:]
        }
        assert len(everything(indexed, "file:///pictures/0000")) == 99

    def test_neighbors_are_found_in_one_read_and_scattered_ones_by_uri(
        self, indexed: LanceCollection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read, conditions = indexed._dataset.read, list[str]()

        def watched(columns: list[str], condition: str, **options: Any) -> Any:
            conditions.append(condition)
            return read(columns, condition, **options)

        monkeypatch.setattr(indexed._dataset, "read", watched)
        near = [record(number) for number in range(100)]
        scattered = [record(number) for number in range(0, _ROWS, _ROWS // 100)]
        gone = [f"file:///{number}/0.jpg" for number in range(100)]
        for wanted, reads in ((near, [" <= "]), (scattered, [" <= ", " IN "])):
            found = indexed.file_stats([each.uri for each in wanted])
            assert found == {each.uri: (each.size, each.mtime_ns) for each in wanted}
            assert len(conditions) == len(reads)
            assert all(sign in each for sign, each in zip(reads, conditions, strict=True))
            conditions.clear()
        assert indexed.file_stats(gone) == {}
        assert len(conditions) == 1
        assert " IN " in conditions[0]

    def test_without_an_index_of_uris_that_of_ids_finds_files(
        self, indexed: LanceCollection
    ) -> None:
        dataset = indexed._dataset.writable()
        dataset.drop_index("uri_idx")
        indexed._dataset.newest()
        wanted = [record(number) for number in (0, 7, _ROWS - 1)]
        expected = {each.uri: (each.size, each.mtime_ns) for each in wanted}
        assert indexed.file_stats(list(expected)) == expected

    def test_a_folder_is_read_by_the_index_of_uris(self, indexed: LanceCollection) -> None:
        condition = filters.starts_with_any("uri", ["file:///pictures/0001", "file:///other/"])
        plan = indexed._dataset.handle.scanner(columns=["uri"], filter=condition).explain_plan()
        assert "ScalarIndexQuery" in plan
        assert len(everything(indexed, "file:///pictures/0001")) == 100

    def test_pages_are_read_by_the_index_of_ids(
        self, indexed: LanceCollection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(indexed, "_lowest_ids", None)  # the way without an index
        by_id = sorted(
            (record(number, number=number) for number in range(_ROWS)), key=lambda each: each.id
        )
        assert indexed.page(40) == by_id[:40]
        assert indexed.page(40, by_id[-20].id) == by_id[-19:]
        where = [Condition("number", "<", 2000)]
        expected = [each for each in by_id if each.metadata["number"] < 2000]  # type: ignore[operator]
        assert (
            indexed.page(20, by_id[9].id, where)
            == [x for x in expected if x not in by_id[:10]][:20]
        )

    def test_a_version_is_counted_once(
        self, indexed: LanceCollection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        counted: list[object] = []
        count_rows = lance.LanceDataset.count_rows

        def count(dataset: lance.LanceDataset, **options: Any) -> int:
            counted.append(options)
            return int(count_rows(dataset, **options))

        monkeypatch.setattr(lance.LanceDataset, "count_rows", count)
        where = [Condition("number", "<", 100)]
        assert [indexed.count(where) for _ in range(3)] == [100] * 3
        assert len(counted) == 1
        indexed.delete([record(5).id])
        assert indexed.count(where) == 99

    def test_recall_holds_with_and_without_filters(self, indexed: LanceCollection) -> None:
        for where in ([], [Condition("number", "<", 400)], [Condition("number", "<", 40)]):
            hits = 0
            for query in vectors(20, seed=3):
                exact = {each.record.id for each in indexed.search(query, 10, where, exact=True)}
                found = {each.record.id for each in indexed.search(query, 10, where)}
                hits += len(exact & found)
            assert hits / 200 >= 0.98, where

    def test_it_is_tuned_until_it_finds_what_comparing_all_finds(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On vectors whose neighbors are spread over many partitions."""
        made = LanceStore(tmp_path).create("hard", STAMP)
        chance = np.random.default_rng(1)
        centers = vectors(300, seed=5)
        count = _ROWS + 50
        parts = [
            chance.uniform(0, 1, (count, 1)) * centers[chance.integers(0, 300, count)]
            for _ in range(3)
        ]
        mixed = normalized(np.sum(parts, axis=0, dtype=np.float32))
        made.upsert([record(number) for number in range(_ROWS)], mixed[:_ROWS])
        made.optimize()

        def recall() -> float:
            hits = 0
            for query in mixed[_ROWS:]:
                exact = made.search(query, 10, exact=True)[-1].score
                hits += sum(each.score >= exact - 1e-6 for each in made.search(query, 10))
            return hits / 500

        probing = made._index.probing()
        assert probing is not None
        assert (probing.rows, probing.partitions) == (_ROWS, 63)
        assert probing.recall >= 0.99
        assert made.info().details["vector_index"] == {
            "partitions": 63,
            "probes": probing.probes,
            "refine": probing.refine,
            "filtered_refine": probing.filtered_refine,
            "recall": round(probing.recall, 4),
        }
        assert recall() >= 0.98
        least = replace(probing, probes=1, refine=1)
        monkeypatch.setattr(made._index, "probing", lambda: least)
        assert recall() < 0.9

    @pytest.mark.usefixtures("quick_tuning")
    def test_distinct_contents_are_found_among_copies_that_fill_partitions(
        self, tmp_path: Path
    ) -> None:
        made = LanceStore(tmp_path).create("copies", STAMP)
        contents = vectors(30, seed=5)
        numbers = np.arange(_ROWS) % 30
        made.upsert([record(n, content=n % 30) for n in range(_ROWS)], contents[numbers])
        made.optimize()
        assert made._index.exists()
        for query in vectors(3, seed=6):
            nearest = np.argsort(-(contents @ query))
            for k in (1, 10, 30):
                hits = search_vector(made, query, SearchRequest(k=k))
                assert [int(hit.record.sha256, 16) for hit in hits] == nearest[:k].tolist()

    @pytest.mark.usefixtures("quick_tuning")
    def test_an_index_of_an_earlier_version_is_searched_and_tuned_by_the_next_optimize(
        self, indexed: LanceCollection
    ) -> None:
        stored = record(7).id
        query = indexed.vectors_by_id([stored])[stored]  # any search finds it
        indexed._dataset.writable().delete_config_keys(["imgsearch:vector_index"])
        assert indexed.search(query, 1)[0].record.id == stored
        assert indexed._index.probing() is None
        assert indexed.info().details == {}
        indexed.optimize()
        assert indexed._index.probing() is not None

    def test_an_evaluation_tells_how_it_is_tuned(
        self, collection: LanceCollection, indexed: LanceCollection
    ) -> None:
        assert evaluate(collection, "number", sample=2).vector_index is None
        shown = evaluate(indexed, "number", sample=2).to_dict()["vector_index"]
        assert shown == indexed.info().details["vector_index"]

    @pytest.mark.parametrize(
        ("seconds_between", "most_unindexed", "fewest"), [(20, 100, 1), (0, 300, 101)]
    )
    def test_few_records_are_outside_the_index_and_few_segments_in_it(
        self,
        indexed: LanceCollection,
        monkeypatch: pytest.MonkeyPatch,
        seconds_between: int,
        most_unindexed: int,
        fewest: int,
    ) -> None:
        """An ingest at speed leaves more of them for later, as indexing them takes a second."""
        monkeypatch.setattr(vector_index, "MAX_UNINDEXED", 100)
        monkeypatch.setattr(vector_index, "MAX_UNINDEXED_AT_SPEED", 300)
        now, extend = [0], vector_index.VectorIndex._extend

        def slow_extend(index: vector_index.VectorIndex) -> None:
            extend(index)
            now[0] += 1

        monkeypatch.setattr(vector_index.VectorIndex, "_extend", slow_extend)
        monkeypatch.setattr(vector_index, "time", SimpleNamespace(monotonic=lambda: now[0]))
        unindexed, segments = [], []
        for step in range(30):
            now[0] += seconds_between
            first = _ROWS + 60 * step
            more = [record(number, number=number) for number in range(first, first + 60)]
            new = write(indexed, more, seed=100 + step)
            assert indexed.search(new[7], 1)[0].record == more[7]
            unindexed.append(indexed._index.unindexed_rows())
            segments.append(len(indexed._index._segments()))
        assert fewest <= max(unindexed) <= most_unindexed
        assert max(segments) <= 4
        indexed.optimize()
        assert indexed._index.unindexed_rows() <= 12

    @pytest.mark.usefixtures("quick_tuning")
    def test_partitions_are_made_again_once_the_collection_has_grown_fourfold(
        self, indexed: LanceCollection
    ) -> None:
        write(indexed, [record(number) for number in range(_ROWS, 4 * _ROWS - 1)], 1)
        indexed.optimize()
        assert indexed._index._partitions_now() == 63
        write(indexed, [record(4 * _ROWS)], 2)
        indexed.optimize()
        assert indexed._index._partitions_now() == 126
        assert indexed._index.unindexed_rows() == 0

    @pytest.mark.parametrize("compared", [0, 10**6])
    def test_a_filtered_search_is_right_by_the_index_and_without(
        self, indexed: LanceCollection, monkeypatch: pytest.MonkeyPatch, compared: int
    ) -> None:
        monkeypatch.setattr(vector_index, "MAX_COMPARED", compared)
        # Equal scores, among which the URI decides.
        indexed.upsert(
            [record(number, number=-1) for number in range(8_000, 8_030)],
            np.repeat(vectors(1, seed=8), 30, axis=0),
        )
        for query in vectors(5, seed=8):
            for where in ("number", "<", 40), ("number", "<", 0), ("number", "<", -1):
                wanted = indexed.search(query, 10, [Condition(*where)], exact=True)
                found = indexed.search(query, 10, [Condition(*where)])
                assert [each.score for each in found] == [each.score for each in wanted]
                if compared:
                    assert found == wanted

    def test_records_written_after_it_are_found_immediately(self, indexed: LanceCollection) -> None:
        new = vectors(1, seed=77)
        indexed.upsert([record(10**6)], new)
        assert indexed.search(new[0], 1)[0].record == record(10**6)


def test_a_search_is_exact_below_the_index(tmp_path: Path) -> None:
    collection = LanceStore(tmp_path).create("images", STAMP)
    written = write(collection, [record(number) for number in range(500)])
    query = vectors(1, seed=4)[0]
    expected = np.sort(written @ query)[::-1][:20]
    np.testing.assert_allclose(
        [each.score for each in collection.search(query, 20)], expected, rtol=1e-5
    )


@pytest.mark.usefixtures("quick_tuning")
@pytest.mark.parametrize("contents", [1, 2, 9])
def test_an_index_is_built_also_over_few_different_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contents: int
) -> None:
    monkeypatch.setattr(vector_index, "MIN_ROWS", 1000)
    collection = LanceStore(tmp_path).create("images", STAMP)
    copies = [record(number, content=number % contents) for number in range(1200)]
    different = vectors(contents)
    collection.upsert(copies, different[np.arange(1200) % contents])
    collection.optimize()
    assert collection._maintenance.indexed_rows()["vector"] == 1200
    found = collection.search(different[0], 1)[0]
    assert found.score == pytest.approx(1.0, abs=1e-5)


def test_what_a_process_killed_while_creating_left_is_no_collection(tmp_path: Path) -> None:
    store = LanceStore(tmp_path)
    for name in ("images", "images~next"):
        (tmp_path / f"{name}.lance" / "_versions").mkdir(parents=True)
    assert store.names() == []
    collection = store.create("images", STAMP)
    write(collection, [record(1)])
    (tmp_path / "images~next.lance" / "_versions").mkdir(parents=True)
    write(store.replacement("images", OTHER_STAMP), [record(2)])
    store.promote("images", OTHER_STAMP)
    assert everything(store.open("images")) == {record(2).id: record(2)}


def test_a_switch_that_was_killed_before_its_end_can_be_followed_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LanceStore(tmp_path)
    write(store.create("images", STAMP), [record(1)])
    write(store.replacement("images", OTHER_STAMP), [record(1)])

    def killed(path: Path) -> None:
        raise OSError(f"killed before {path} was removed")

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(StoreError, match="killed"):
            store.promote("images", OTHER_STAMP)
    assert store.open("images").stamp == OTHER_STAMP
    assert store.names() == ["images"]
    write(store.replacement("images", STAMP), [record(2)])
    store.promote("images", STAMP)
    assert everything(store.open("images")) == {record(2).id: record(2)}
    store.drop("images")
    assert [path.name for path in tmp_path.glob("*.lance")] == []
