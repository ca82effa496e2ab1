"""A search among many copies of few images gives distinct hits with bounded store results."""

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imgsearch.search import SearchRequest, search_text, search_vector
from imgsearch.stores import open_store
from imgsearch.stores.base import Collection, VectorStore
from imgsearch.types import Scored
from tests.store_contract import DIMENSION, STAMP, record, vectors

COPIES = 400
CROWDED = 6
LARGEST = 160
"""The most records of one result in a search for 10, however many copies there are."""


class Spy:
    """Wraps a collection, and records the `k` of each search."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self.ks: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._collection, name)

    def search(self, vector: Any, k: int, *more: Any, **options: Any) -> list[Scored]:
        self.ks.append(k)
        return self._collection.search(vector, k, *more, **options)

    def search_text(self, words: Sequence[str], k: int, *more: Any, **options: Any) -> Any:
        self.ks.append(k)
        return self._collection.search_text(words, k, *more, **options)


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """400 copies of each of six contents, and twenty single ones that are further away."""
    store = open_store(str(tmp_path_factory.mktemp("copies")))
    made = store.create("images", STAMP)
    made.add_fields({"kind": "str"})
    axis = np.zeros((1, DIMENSION), np.float32)
    axis[0, 0] = 1
    near = axis + 0.01 * vectors(CROWDED)
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    copies = [
        record(number, content=number // COPIES, kind="shoe") for number in range(CROWDED * COPIES)
    ]
    made.upsert(copies, np.repeat(near, COPIES, axis=0))
    far = [record(10_000 + number, kind="boot") for number in range(20)]
    made.upsert(far, vectors(len(far), seed=1))
    return made


@pytest.fixture
def query() -> Any:
    axis = np.zeros(DIMENSION, np.float32)
    axis[0] = 1
    return axis


@pytest.mark.parametrize("k", [1, 3, 10, 26, 40])
def test_hits_are_distinct_and_in_order(collection: Collection, query: Any, k: int) -> None:
    hits = search_vector(collection, query, SearchRequest(k=k))
    assert len(hits) == len({hit.record.sha256 for hit in hits}) == min(k, 26)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert [hit.copies for hit in hits[:CROWDED]] == [COPIES] * min(k, CROWDED)
    expected = search_vector(collection, query, SearchRequest(k=26))
    assert [hit.record.sha256 for hit in hits] == [hit.record.sha256 for hit in expected[:k]]


def test_the_size_of_store_results_does_not_depend_on_the_number_of_copies(
    collection: Collection, query: Any
) -> None:
    spy: Any = Spy(collection)
    assert len(search_vector(spy, query, SearchRequest(k=10))) == 10
    assert max(spy.ks) <= LARGEST


@pytest.mark.parametrize("k", [5, 6, 10, 26, 40])
def test_the_number_of_requests_depends_on_neither_copies_nor_k(
    collection: Collection, query: Any, k: int
) -> None:
    spy: Any = Spy(collection)
    search_vector(spy, query, SearchRequest(k=k))
    assert len(spy.ks) <= 5


def test_single_images_among_sampled_contents_are_found(store: VectorStore, query: Any) -> None:
    """Each content of an even number has 300 copies, each of an odd number one."""
    made = store.create(name := f"copies-{uuid.uuid4().hex[:12]}", STAMP)
    contents = [n for n in range(20) for _ in range(1 if n % 2 else 300)]
    records = [record(number, content=content) for number, content in enumerate(contents)]
    angles = 0.05 * np.array(contents, np.float32)[:, None]
    rest = np.zeros((len(contents), DIMENSION - 2), np.float32)
    made.upsert(records, np.hstack([np.cos(angles), np.sin(angles), rest]).astype(np.float32))
    for k in (3, 7, 10, 20):
        spy: Any = Spy(made)
        hits = search_vector(spy, query, SearchRequest(k=k))
        assert [int(hit.record.sha256, 16) for hit in hits] == list(range(k))
        assert len(spy.ks) <= 6
    store.drop(name)


@pytest.mark.parametrize("collapse", [True, False])
def test_a_crowded_image_is_excluded_with_all_its_copies(
    collection: Collection, query: Any, collapse: bool
) -> None:
    spy: Any = Spy(collection)
    own = search_vector(collection, query, SearchRequest(k=1))[0].record.sha256
    hits = search_vector(spy, query, SearchRequest(k=10, collapse=collapse, exclude_digests=[own]))
    assert len(hits) == 10
    assert own not in {hit.record.sha256 for hit in hits}
    assert max(spy.ks) <= LARGEST


def test_text_and_fused_searches_find_distinct_images(collection: Collection, query: Any) -> None:
    by_words = search_text(collection, SearchRequest(k=4, text="shoe"))
    assert len({hit.record.sha256 for hit in by_words}) == 4
    both = search_vector(collection, query, SearchRequest(k=20, text="boot"))
    assert len({hit.record.sha256 for hit in both}) == 20


def test_more_contents_than_one_filter_can_exclude(
    tmp_path: Path, query: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgsearch.search.distinct.MAX_EXCLUDED_DIGESTS", 3)
    made = open_store(str(tmp_path)).create("images", STAMP)
    records = [record(number, content=number // 3) for number in range(60)]
    made.upsert(records, np.repeat(vectors(20), 3, axis=0))
    hits = search_vector(made, query, SearchRequest(k=20))
    assert len({hit.record.sha256 for hit in hits}) == 20
    left = search_vector(
        made, query, SearchRequest(k=20, exclude_digests=[hit.record.sha256 for hit in hits[:8]])
    )
    assert [hit.record.sha256 for hit in left] == [hit.record.sha256 for hit in hits[8:]]
