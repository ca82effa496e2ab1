"""Many searches at a time in the embedded store: by blocks of all vectors, and by the index."""

from pathlib import Path

import numpy as np
import pytest

from imgsearch.stores.base import VectorQuery
from imgsearch.stores.blocks import Block, candidates
from imgsearch.stores.lance import many, vector_index
from imgsearch.stores.lance.store import LanceStore
from tests.store_contract import STAMP, record, vectors, write


def test_candidates_are_the_best_of_all_blocks() -> None:
    stored, queries = vectors(1000, seed=1), vectors(40, seed=2)
    blocks = (
        Block(stored[start : start + 64], np.arange(start, min(start + 64, 1000)))
        for start in range(0, 1000, 64)
    )
    found = candidates(blocks, queries, 7)
    products = queries.astype(np.float64) @ stored.T
    best = np.argsort(-products, axis=1)[:, :7]
    assert found.numbers[:, :7].tolist() == best.tolist()
    assert found.scores[:, :7] == pytest.approx(np.take_along_axis(products, best, 1), abs=1e-6)
    assert not found.incomplete.any()


def test_fewer_vectors_than_asked_for_leave_the_rest_empty() -> None:
    found = candidates([Block(vectors(3), np.arange(3))], vectors(2, seed=2), 10)
    assert (found.scores[:, 3:] == -np.inf).all()
    assert sorted(found.numbers[0, :3].tolist()) == [0, 1, 2]
    assert not found.incomplete.any()


def test_more_equal_scores_than_candidates_are_reported() -> None:
    same = np.repeat(vectors(1), 100, axis=0)
    found = candidates([Block(same, np.arange(100))], np.stack([same[0], vectors(1, seed=2)[0]]), 5)
    assert found.incomplete.all()


def test_equal_scores_are_in_the_order_of_their_uris(tmp_path: Path) -> None:
    collection = LanceStore(tmp_path).create("same", STAMP)
    records = [record(number) for number in range(300)]
    same = np.repeat(vectors(1), len(records), axis=0)
    assert collection.upsert(records[::-1], same) == {}
    other = vectors(2)[1]
    for k in (1, 40, 300):
        found = collection.search_many([VectorQuery(same[0], k), VectorQuery(other, k)])
        assert [[each.record for each in answer] for answer in found] == [records[:k]] * 2


@pytest.mark.parametrize("pays", [False, True])
def test_the_index_and_the_blocks_find_the_same(
    pays: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_index, "MIN_ROWS", 1000)
    monkeypatch.setattr(many, "_pays", lambda *_: pays)
    collection = LanceStore(tmp_path).create("indexed", STAMP)
    write(collection, [record(number) for number in range(2000)])
    collection.optimize()
    assert collection._index.exists()
    queries = [VectorQuery(each, 5) for each in vectors(20, seed=3)]
    found = collection.search_many(queries)
    exact = collection.search_exact(queries)
    shared = [
        len({each.record.id for each in answer} & {each.record.id for each in right})
        for answer, right in zip(found, exact, strict=True)
    ]
    assert sum(shared) >= 95


def test_few_queries_of_a_large_collection_use_the_index_and_many_do_not() -> None:
    assert not many._pays(1_000_000, 1280, 10)
    assert many._pays(44_000, 2048, 20_000)
