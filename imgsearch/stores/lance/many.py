"""Many searches at a time: by the index, or by one pass over all vectors, whichever is quicker."""

import os
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from imgsearch.stores.base import Collection, VectorQuery, batched, search_each
from imgsearch.stores.blocks import Block, Candidates, candidates
from imgsearch.stores.comparing import rank
from imgsearch.stores.lance import filters
from imgsearch.stores.lance.arrow import lance
from imgsearch.stores.lance.dataset import Dataset
from imgsearch.stores.lance.folders import Work
from imgsearch.stores.lance.schema import VECTOR, to_numpy
from imgsearch.stores.lance.vector_index import VectorIndex
from imgsearch.types import Condition, ImageRecord, Scored

_BLOCK_ROWS = 4096
_ROWS_PER_FILTER = 1000
# What decides between the two ways, in seconds. A search by the index, which uses all cores; and
# reading a byte of the vectors, and a multiplication by one core.
_INDEXED = 0.012
_READ = 1e-9
_MULTIPLY = 2.5e-11
_CONCURRENT = 4


class _LanceCollection(Collection, Protocol):
    """What this module needs of a collection."""

    def condition(self, where: Sequence[Condition]) -> str | None: ...


def search(
    collection: _LanceCollection,
    dataset: Dataset,
    index: VectorIndex,
    queries: Sequence[VectorQuery],
) -> list[list[Scored]]:
    """Return the results of each query; see `Collection.search_many`."""
    answers: list[list[Scored]] = [[] for _ in queries]
    alike: dict[tuple[Condition, ...], list[int]] = {}
    others: list[int] = []
    by_index = index.exists() and not _pays(dataset.count(), dataset.stamp.dimension, len(queries))
    for at, query in enumerate(queries):
        if query.k < 1:
            continue
        if by_index or query.exclude_digests or query.share < 1:
            others.append(at)
        else:
            alike.setdefault(tuple(query.where), []).append(at)
    for where, members in alike.items():
        found = _by_blocks(dataset, collection.condition(where), [queries[at] for at in members])
        for at, answer in zip(members, found, strict=True):
            if answer is None:
                others.append(at)
            else:
                answers[at] = answer
    rest = [queries[at] for at in others]
    one_by_one = (
        search_each(collection, rest, _CONCURRENT) if by_index else collection.search_exact(rest)
    )
    for at, each in zip(others, one_by_one, strict=True):
        answers[at] = each
    return answers


def _pays(rows: int, dimension: int, queries: int) -> bool:
    """Return whether comparing with all vectors is quicker than that many searches by the index."""
    multiply = _MULTIPLY / (os.cpu_count() or 1)
    return rows * dimension * (4 * _READ + queries * multiply) < queries * _INDEXED


def _by_blocks(
    dataset: Dataset, condition: str | None, queries: Sequence[VectorQuery]
) -> list[list[Scored] | None]:
    """Return the results of queries of one condition; None where many have equal scores."""
    vectors = np.stack([query.vector for query in queries], dtype=np.float32)
    k = max(query.k for query in queries)
    with dataset.reading(Work.SCAN) as version:
        found = candidates(_blocks(dataset, version, condition), vectors, k)
        chosen = [_best(found, at, query.k) for at, query in enumerate(queries)]
        rows = np.unique(np.concatenate(chosen))
        records = _records(dataset, version, rows)
    answers: list[list[Scored] | None] = []
    for at, (query, numbers) in enumerate(zip(queries, chosen, strict=True)):
        if found.incomplete[at]:
            answers.append(None)
            continue
        scores = found.scores[at, : len(numbers)].tolist()
        hits = [
            Scored(records[number], score)
            for number, score in zip(numbers.tolist(), scores, strict=True)
        ]
        answers.append(sorted(hits, key=rank)[: query.k])
    return answers


def _blocks(
    dataset: Dataset, version: lance.LanceDataset, condition: str | None
) -> Iterator[Block]:
    for batch in dataset.batches(
        [VECTOR], condition, version, batch_size=_BLOCK_ROWS, with_row_id=True
    ):
        vectors = to_numpy(batch[VECTOR], dataset.stamp.dimension)
        yield Block(vectors, batch["_rowid"].to_numpy().astype(np.int64))


def _best(found: Candidates, at: int, k: int) -> NDArray[np.int64]:
    """Return the rows of the k best of a query, and of all that equal the last of these."""
    scores = found.scores[at]
    count = int((scores >= max(scores[k - 1], -2.0)).sum())
    return found.numbers[at, :count]


def _records(
    dataset: Dataset, version: lance.LanceDataset, rows: NDArray[np.int64]
) -> dict[int, ImageRecord]:
    columns = dataset.columns
    records: dict[int, ImageRecord] = {}
    for part in batched(rows.tolist(), _ROWS_PER_FILTER):
        table = dataset.read(columns.of_records, filters.is_row(part), version, with_row_id=True)
        records.update((row["_rowid"], columns.to_record(row)) for row in table.to_pylist())
    return records
