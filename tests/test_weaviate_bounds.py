"""What a request to Weaviate reads does not grow with the collection, nor with copies."""

import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgsearch.stores import open_store
from imgsearch.stores.base import Collection
from imgsearch.stores.weaviate import collection as collections
from imgsearch.stores.weaviate import id_blocks
from imgsearch.stores.weaviate import reader as readers
from imgsearch.stores.weaviate.collection import WeaviateCollection
from imgsearch.stores.weaviate.reader import Reader
from imgsearch.types import Condition
from tests.store_contract import STAMP, record, vectors

RECORDS = 900
IDS = st.integers(0, 2**128 - 2).map(lambda number: str(uuid.UUID(int=number)))
EVEN = [Condition("even", "=", True)]


@given(st.just("") | IDS, st.floats(1e-9, 2))
def test_blocks_of_ids_hold_what_lies_between_two_ids(after: str, share: float) -> None:
    patterns, last = id_blocks.behind(after, share)
    assert after < last
    begins = tuple(each.removesuffix("*") for each in patterns) or ("",)
    random = np.random.default_rng(0)
    near = [int(uuid.UUID(each)) for each in (after or str(uuid.UUID(int=0)), last)]
    some = [int.from_bytes(random.bytes(16)) for _ in range(20)]
    for number in [*some, *(each + step for each in near for step in (-1, 0, 1))]:
        if 0 <= number < 2**128:
            each = str(uuid.UUID(int=number))
            assert not after < each <= last or each.startswith(begins)
            assert not each.startswith(begins) or each <= last


@given(st.floats(1e-3, 2))
def test_blocks_of_ids_lead_to_the_last_id(share: float) -> None:
    after, rounds = "", 0
    while after < id_blocks.LAST:
        _, after = id_blocks.behind(after, share)
        rounds += 1
    assert rounds <= 1 / share + 1


@pytest.fixture(scope="module")
def filled(one_node: str) -> Iterator[WeaviateCollection]:
    """A collection of copies of 30 contents, whose every other record is even."""
    name = f"bounds-{uuid.uuid4().hex[:12]}"
    with open_store(one_node, 30) as store:
        collection = store.create(name, STAMP, {"even": "bool", "kind": "str"})
        records = [
            record(number, content=number % 30, even=number % 2 == 0, kind="shoe")
            for number in range(RECORDS)
        ]
        collection.upsert(records, vectors(RECORDS))
        assert isinstance(collection, WeaviateCollection)
        yield collection
        store.drop(name)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of objects that requests under a filter return, as they are made."""
    found: list[int] = []
    fetch = Reader.fetch

    def counted(self: Reader, condition: Any, limit: int, **options: Any) -> Sequence[Any]:
        answer = fetch(self, condition, limit, **options)
        found.append(len(answer))
        return answer

    monkeypatch.setattr(Reader, "fetch", counted)
    return found


def even_ids() -> list[str]:
    return sorted(record(number).id for number in range(0, RECORDS, 2))


def paged(collection: Collection, limit: int) -> list[str]:
    ids: list[str] = []
    while page := collection.page(limit, max(ids, default=""), EVEN):
        ids += [each.id for each in page]
    return ids


@pytest.mark.weaviate
@pytest.mark.parametrize("id_cost", [1e-9, 1e9], ids=["listed", "by blocks"])
def test_pages_under_a_filter_are_the_same_either_way(
    filled: WeaviateCollection, monkeypatch: pytest.MonkeyPatch, id_cost: float
) -> None:
    monkeypatch.setattr(readers, "_ID_COST", id_cost)
    assert paged(filled, 40) == even_ids()
    assert [each.id for each in filled.page(7, even_ids()[200], EVEN)] == even_ids()[201:208]
    assert filled.page(7, even_ids()[-1], EVEN) == []


@pytest.mark.weaviate
def test_a_page_under_a_filter_reads_little_more_than_its_records(
    filled: WeaviateCollection, monkeypatch: pytest.MonkeyPatch, reads: list[int]
) -> None:
    def counted(*_: object) -> None:
        raise AssertionError("the server reads all that it counts")

    count = Reader.count
    monkeypatch.setattr(
        Reader, "count", lambda self, condition=None: (counted if condition else count)(self)
    )
    monkeypatch.setattr(readers, "_ID_COST", 10**9)
    assert len(filled.page(10, "40000000-0000-0000-0000-000000000000", EVEN)) == 10
    assert sum(reads) < 200


@pytest.mark.weaviate
@pytest.mark.parametrize("id_cost", [1e-9, 1e9], ids=["listed", "by blocks"])
def test_a_folder_is_read_once_either_way(
    filled: WeaviateCollection, monkeypatch: pytest.MonkeyPatch, reads: list[int], id_cost: float
) -> None:
    monkeypatch.setattr(readers, "_ID_COST", id_cost)
    monkeypatch.setattr(readers, "_PAGE", 100)
    monkeypatch.setattr(readers, "_WORTH", 1)
    uris = [uri for batch in filled.uris("file:///pictures/") for uri in batch]
    assert sorted(uris) == [record(number).uri for number in range(RECORDS)]
    assert sum(reads) <= 2 * RECORDS


@pytest.mark.weaviate
def test_vectors_of_copied_contents_are_read_without_their_copies(
    filled: WeaviateCollection, reads: list[int]
) -> None:
    digests = [record(0, content=number).sha256 for number in range(40)]
    found = filled.vectors_by_digest(digests)
    assert set(found) == set(digests[:30])
    assert sum(reads) <= 2 * len(digests) + 50


@pytest.mark.weaviate
@pytest.mark.parametrize("read", [10, 1000], ids=["one by one", "here"])
def test_copies_are_counted_and_only_few_are_read(
    filled: WeaviateCollection, monkeypatch: pytest.MonkeyPatch, reads: list[int], read: int
) -> None:
    monkeypatch.setattr(collections, "_COUNTED_HERE", read)
    digests = [record(0, content=number).sha256 for number in (4, 7, 31)]
    assert filled.count_by_digest(digests) == {digests[0]: 30, digests[1]: 30}
    assert filled.count_by_digest(digests, EVEN) == {digests[0]: 30}
    assert max(reads) <= read * len(digests)


@pytest.mark.weaviate
def test_a_search_for_a_common_word_reads_a_limited_number_of_matches(
    filled: WeaviateCollection, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    by_words = WeaviateCollection._by_words

    def counted(self: WeaviateCollection, words: str, condition: Any, limit: int) -> Any:
        asked.append(limit)
        return by_words(self, words, condition, limit)

    monkeypatch.setattr(WeaviateCollection, "_by_words", counted)
    monkeypatch.setattr(collections, "_EQUAL_MATCHES", 50)
    found = [each.record.uri for each in filled.search_text(["shoe"], 10)]
    assert len(found) == 10
    assert found == sorted(found)
    assert max(asked) <= 50


@pytest.mark.weaviate
def test_a_collection_is_compressed_to_one_bit_a_dimension(one_node: str) -> None:
    name = f"bounds-{uuid.uuid4().hex[:12]}"
    with open_store(f"{one_node}&compression=rq1") as store:
        collection = store.create(name, STAMP)
        written = vectors(20)
        collection.upsert([record(number) for number in range(20)], written)
        assert store.open(name).info().details["compression"] == "rq1"
        hit, *_ = collection.search(written[3], 5)
        assert (hit.record.uri, round(hit.score, 5)) == (record(3).uri, 1.0)
        store.drop(name)
