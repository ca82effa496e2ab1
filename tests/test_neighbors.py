"""The nearest neighbors of all images of a collection."""

import threading

import numpy as np
import pytest

from imgsearch.analysis import neighbors, partitions
from imgsearch.analysis.contents import read_contents
from imgsearch.analysis.neighbors import nearest
from imgsearch.analysis.partitions import likely_nearest
from imgsearch.encoders.base import normalized
from imgsearch.events import Counted, Event, Outcome, Stage
from imgsearch.filters import parse_where
from imgsearch.stores import VectorStore
from imgsearch.stores.base import Collection
from tests.store_contract import STAMP, record, vectors, write
from tests.test_weaviate_store import unique_name


@pytest.fixture
def collection(store: VectorStore) -> Collection:
    return store.create(unique_name(), STAMP, {"kind": "str"})


def test_every_image_gets_its_nearest_others(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbors, "BLOCK", 16)
    written = write(collection, [record(number, kind="shoe") for number in range(75)])
    by_id = {record(number).id: number for number in range(75)}
    with read_contents(collection) as contents:
        found = nearest(contents, 5)
        order = [by_id[each] for each in contents.record_ids(range(75))]
        assert (contents.vectors(70, 90) == written[order[70:]]).all()
        assert (contents.vectors_of(np.array([3, 1])) == written[[order[3], order[1]]]).all()
    products = written[order] @ written[order].T
    np.fill_diagonal(products, -np.inf)
    best = np.argsort(-products, axis=1)[:, :5]
    assert found.numbers.tolist() == best.tolist()
    assert found.scores == pytest.approx(np.take_along_axis(products, best, 1), abs=1e-6)


def test_partitions_find_near_duplicates_and_no_pair_twice(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "BLOCK", 16)
    draw = np.random.default_rng(3)
    originals = draw.standard_normal((200, STAMP.dimension)).astype(np.float32)
    near = originals + 0.1 * draw.standard_normal(originals.shape).astype(np.float32)
    written = normalized(np.concatenate([originals, near]))
    collection.upsert([record(number) for number in range(400)], written)
    by_id = {record(number).id: number for number in range(400)}
    with read_contents(collection) as contents:
        found = likely_nearest(contents, 3, min_score=0.5)
        order = np.array([by_id[each] for each in contents.record_ids(range(400))])
    for row, numbers in enumerate(found.numbers):
        others = order[numbers[numbers >= 0]].tolist()
        assert len(set(others)) == len(others)
        assert (order[row] + 200) % 400 in others
        scores = written[order[row]] @ written[others].T
        assert found.scores[row, : len(others)] == pytest.approx(scores, abs=1e-6)


def test_exact_copies_are_one_content(collection: Collection) -> None:
    records = [record(number, content=number % 3) for number in range(30)]
    collection.upsert(records, vectors(3)[[number % 3 for number in range(30)]])
    with read_contents(collection) as contents:
        assert contents.copies.tolist() == [10, 10, 10]
        found = nearest(contents, 4)
        (first,) = contents.record_ids([0])
        digest = next(each for each in records if each.id == first).sha256
        expected = {each.id for each in records if each.sha256 == digest}
        assert set(contents.members(0)) == expected
    assert sorted(found.numbers[0].tolist()) == [-1, -1, 1, 2]
    assert np.isneginf(found.scores[:, 2:]).all()


def test_conditions_choose_the_images(collection: Collection) -> None:
    write(collection, [record(number, kind="hat" if number < 4 else "shoe") for number in range(9)])
    where = parse_where(["kind = hat"], collection.fields)
    with read_contents(collection, where) as contents:
        ids = set(contents.record_ids(range(len(contents))))
    assert ids == {record(number).id for number in range(4)}


def test_only_neighbors_of_the_least_score_are_kept(collection: Collection) -> None:
    written = write(collection, [record(number) for number in range(40)])
    with read_contents(collection) as contents:
        found = nearest(contents, 39, min_score=0.5)
    products = written @ written.T
    assert int((found.numbers >= 0).sum()) == int((products >= 0.5).sum()) - 40


def test_records_removed_after_the_scan_are_left_out(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [record(number, content=number // 2) for number in range(8)]
    collection.upsert(records, vectors(8))
    gone = {records[2].id, records[3].id}
    read = collection.vectors_by_id
    monkeypatch.setattr(
        collection, "vectors_by_id", lambda ids: read([each for each in ids if each not in gone])
    )
    with read_contents(collection) as contents:
        assert len(contents) == 3
        left = {each for content in range(3) for each in contents.members(content)}
        assert left == {each.id for each in records} - gone
        assert set(contents.record_ids(range(3))) <= {each.id for each in records} - gone


def test_progress_counts_every_image_once(collection: Collection) -> None:
    write(collection, [record(number) for number in range(50)])
    events: list[Event] = []
    with read_contents(collection) as contents:
        nearest(contents, 3, listener=events.append)
    assert [type(each) for each in events[:2]] == [Stage, Counted]
    assert sum(isinstance(each, Outcome) for each in events) == 50


def test_an_empty_collection_has_no_neighbors(collection: Collection) -> None:
    with read_contents(collection) as contents:
        assert nearest(contents, 3).numbers.shape == (0, 3)


def test_a_stop_ends_it_early(collection: Collection) -> None:
    write(collection, [record(number) for number in range(5)])
    stop = threading.Event()
    stop.set()
    with read_contents(collection, stop=stop) as contents:
        assert len(contents) == 0
