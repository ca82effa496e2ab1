"""Exact search: many queries compared with every stored vector in one pass over a collection."""

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imgsearch.stores import id_ranges
from imgsearch.stores.base import VectorQuery, Vectors
from imgsearch.types import Condition, ImageRecord, Scored


@dataclass(frozen=True, slots=True)
class Page:
    """Some records of a collection: `vectors` of shape (n, dimension); `record(i)` parses one."""

    vectors: Vectors
    record: Callable[[int], ImageRecord]


def compare(pages: Iterable[Page], queries: Sequence[VectorQuery]) -> list[list[Scored]]:
    """Return the results of each query, best first, equal scores in the order of their URIs.

    Reads the pages once, and not at all if every `k` is zero. Memory holds one page and the best
    `k` records of each query. A record is parsed at most once, and only if its vector is among
    the best so far of some query.
    """
    best: list[list[Scored]] = [[] for _ in queries]
    active = [at for at, query in enumerate(queries) if query.k > 0]
    if not active:
        return best
    block = np.stack([queries[at].vector for at in active], dtype=np.float32)
    # A matrix product rounds a row differently depending on its place. It only selects candidates,
    # with the largest possible rounding error as tolerance; `cosine_scores` decides.
    tolerance = block.shape[1] * float(np.finfo(np.float32).eps)
    least = np.full(len(active), -np.inf)
    for page in pages:
        products = page.vectors @ block.T
        near = products >= least - tolerance
        known = _Records(page.record)
        for column in np.flatnonzero(near.any(axis=0)).tolist():
            at = active[column]
            query, rows = queries[at], np.flatnonzero(near[:, column])
            rows = known.matching(rows, query)
            if len(rows) > query.k:
                among = products[rows, column]
                rows = rows[among >= np.partition(among, -query.k)[-query.k] - 2 * tolerance]
            if not len(rows):
                continue
            scores = cosine_scores(page.vectors[rows], query.vector)
            found = [
                Scored(known.record(row), score)
                for row, score in zip(rows.tolist(), scores, strict=True)
            ]
            best[at] = heapq.nsmallest(query.k, [*best[at], *found], key=rank)
            if len(best[at]) == query.k:
                least[column] = best[at][-1].score
    return best


class _Records:
    """The records of a page, each parsed once, and which of them meet conditions."""

    def __init__(self, parse: Callable[[int], ImageRecord]) -> None:
        self._parse = parse
        self._parsed: dict[int, ImageRecord] = {}
        self._tested: dict[tuple[Condition, ...], dict[int, bool]] = {}

    def record(self, row: int) -> ImageRecord:
        if row not in self._parsed:
            self._parsed[row] = self._parse(row)
        return self._parsed[row]

    def matching(self, rows: NDArray[np.intp], query: VectorQuery) -> NDArray[np.intp]:
        """Return the rows whose records meet the query's conditions."""
        last = id_ranges.sample(query.share)
        if not query.where and not query.exclude_digests and last is None:
            return rows
        tested = self._tested.setdefault(tuple(query.where), {})
        excluded = frozenset(query.exclude_digests)
        chosen = []
        for row in rows.tolist():
            if row not in tested:
                metadata = self.record(row).metadata
                tested[row] = all(condition.holds(metadata) for condition in query.where)
            record = self.record(row)
            if tested[row] and record.sha256 not in excluded and (not last or record.id <= last):
                chosen.append(row)
        return np.asarray(chosen, dtype=np.intp)


def cosine_scores(vectors: Vectors, query: Vectors) -> list[float]:
    """Return the cosine similarity of each row, computed row by row.

    Unlike those of a matrix product, the scores of equal vectors are equal.
    """
    sums = (vectors * query).sum(axis=1, dtype=np.float64)
    return [clip(float(each)) for each in sums]


def clip(score: float) -> float:
    """Return a cosine similarity without rounding errors beyond -1 and 1."""
    return min(1.0, max(-1.0, score))


def rank(scored: Scored) -> tuple[float, str]:
    """Return the sort key of a result: best first, equal scores in the order of their URIs."""
    return -scored.score, scored.record.uri
