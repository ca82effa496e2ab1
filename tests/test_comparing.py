"""An exact search of many queries reads each page once, and parses few records."""

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from imgsearch.encoders.base import normalized
from imgsearch.stores.base import VectorQuery, Vectors
from imgsearch.stores.comparing import Page, compare
from imgsearch.types import Condition, ImageRecord

DIMENSION = 64
ROWS = 200


def drawn(count: int, seed: int) -> Vectors:
    found = np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32)
    return normalized(found)


class Pages:
    """Vectors in pages, which counts how often each is read and each record is parsed."""

    def __init__(self, vectors: Vectors) -> None:
        self.vectors = vectors
        self.reads = 0
        self.parsed: Counter[int] = Counter()

    def record(self, row: int) -> ImageRecord:
        self.parsed[row] += 1
        kind = "rare" if row % 400 == 0 else "hat"
        return ImageRecord(f"file:///{row:06}.jpg", f"{row:064x}", 1, 1, 1, 1, {"kind": kind})

    def __iter__(self) -> Iterator[Page]:
        for start in range(0, len(self.vectors), ROWS):
            self.reads += 1
            yield Page(self.vectors[start : start + ROWS], self._reader(start))

    def _reader(self, start: int) -> Callable[[int], ImageRecord]:
        return lambda row: self.record(start + row)


def test_each_page_is_read_once_and_few_records_are_parsed() -> None:
    pages = Pages(drawn(10_000, seed=1))
    queries = [VectorQuery(each, 5) for each in drawn(20, seed=2)]
    answers = compare(pages, queries)
    assert pages.reads == 50
    assert max(pages.parsed.values()) == 1
    assert len(pages.parsed) < 1000
    for query, answer in zip(queries, answers, strict=True):
        nearest = np.argsort(-(pages.vectors @ query.vector))[:5]
        assert [each.record.uri for each in answer] == [f"file:///{row:06}.jpg" for row in nearest]


def test_a_filter_that_few_records_meet_parses_each_record_once() -> None:
    pages = Pages(drawn(2000, seed=1))
    rare = [Condition("kind", "=", "rare")]
    answers = compare(pages, [VectorQuery(each, 20, rare) for each in drawn(10, seed=2)])
    assert max(pages.parsed.values()) == 1
    assert all(
        {each.record.uri for each in answer}
        == {f"file:///{row:06}.jpg" for row in range(0, 2000, 400)}
        for answer in answers
    )


@pytest.mark.parametrize("count", [1, 7, 64])
def test_equal_vectors_have_equal_scores_wherever_they_stand(count: int) -> None:
    pages = Pages(np.repeat(drawn(1, seed=3), 611, axis=0))
    queries = [VectorQuery(each, 9) for each in drawn(count, seed=4)]
    for answer in compare(pages, queries):
        assert [each.record.uri for each in answer] == [f"file:///{n:06}.jpg" for n in range(9)]
        assert len({each.score for each in answer}) == 1


def test_nothing_is_read_if_no_query_wants_results() -> None:
    pages = Pages(drawn(10, seed=1))
    assert compare(pages, []) == []
    assert compare(pages, [VectorQuery(pages.vectors[0], 0)]) == [[]]
    assert pages.reads == 0
