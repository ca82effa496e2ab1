"""How good a collection's answers are: by what the user's own metadata says is alike.

Every query is a picture of the collection, by its stored vector, and its answer is without all
records of its very content. Two things are told apart: how often what is found has the label of
the query (the model's work), and how much of the exact answer the index finds (the store's).
"""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from imgsearch.encoders.base import Vectors
from imgsearch.errors import MetadataError
from imgsearch.events import Counted, Listener, Outcome, ignore
from imgsearch.records import Condition, ImageRecord, Scored, Value
from imgsearch.stores.base import Collection

K = 10
DEFAULT_SAMPLE = 500
_VECTORS_AT_ONCE = 256
_FEW_COPIES = 100


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over all queries, each from 0 to 1, of answers of ten.

    `p1` and `p10` are the shares of the first and of the first ten that have the query's label;
    `map10` is the mean of the precision at each of those that have it, of at most ten that could.
    """

    p1: float
    p10: float
    map10: float


@dataclass(frozen=True, slots=True)
class EvalReport:
    """`index` is the quality of answers as a query gets them, `exact` that of comparing all.

    `recall` is the share of the exact ten that the index finds, `filtered_recall` the same under
    the filter `label = the query's`; equal scores stand for each other. `queries` is how many
    pictures of the `labelled` ones were asked about, of the collection's `pictures`.
    """

    collection: str
    model: str
    label: str
    pictures: int
    labelled: int
    queries: int
    index: Quality
    exact: Quality
    recall: float
    filtered_recall: float

    def to_dict(self) -> dict[str, Any]:
        """The object that `eval --json` prints."""
        return asdict(self)


def evaluate(
    collection: Collection,
    label: str,
    sample: int | None = DEFAULT_SAMPLE,
    listener: Listener = ignore,
) -> EvalReport:
    """Ask about `sample` pictures that have the field `label`, always the same; None means all.

    Raises MetadataError if there is no such field, or if fewer than two pictures have it.
    """
    if label not in collection.fields:
        known = ", ".join(collection.fields) or "none"
        raise MetadataError(f"--label {label}: there is no such field; the collection has {known}")
    labels: Counter[Value] = Counter()
    queries: list[ImageRecord] = []
    chance = random.Random(0)  # noqa: S311 - the same sample every time
    pictures = 0
    for record in (record for records in collection.scan() for record in records):
        pictures += 1
        if label not in record.metadata:
            continue
        labels[record.metadata[label]] += 1
        _keep(queries, record, sample, labels.total(), chance)
    if labels.total() < 2:
        raise MetadataError(f"--label {label}: fewer than two pictures have it")
    listener(Counted(len(queries)))
    rows = []
    for record, vector in _with_vectors(collection, queries):
        rows.append(_ask(collection, label, labels, record, vector))
        listener(Outcome(record.uri, "skipped"))
    means = np.mean(rows, axis=0).tolist()
    return EvalReport(
        collection=collection.name,
        model=collection.stamp.model,
        label=label,
        pictures=pictures,
        labelled=labels.total(),
        queries=len(queries),
        index=Quality(*means[0:3]),
        exact=Quality(*means[3:6]),
        recall=means[6],
        filtered_recall=means[7],
    )


def _keep(
    kept: list[ImageRecord],
    record: ImageRecord,
    size: int | None,
    seen: int,
    chance: random.Random,
) -> None:
    """Reservoir sampling: each of all that are `seen` is kept with the same probability."""
    if size is None or len(kept) < size:
        kept.append(record)
    elif (place := chance.randrange(seen)) < size:
        kept[place] = record


def _with_vectors(
    collection: Collection, records: Sequence[ImageRecord]
) -> Iterator[tuple[ImageRecord, Vectors]]:
    for start in range(0, len(records), _VECTORS_AT_ONCE):
        part = records[start : start + _VECTORS_AT_ONCE]
        stored = collection.vectors_of(sorted({record.sha256 for record in part}))
        for record in part:
            if record.sha256 in stored:  # else it has been removed meanwhile
                yield record, stored[record.sha256].vector


def _ask(
    collection: Collection,
    label: str,
    labels: Counter[Value],
    record: ImageRecord,
    vector: Vectors,
) -> list[float]:
    """Quality by the index, quality exactly, recall, and recall under a filter."""
    own = record.metadata[label]
    same = [Condition(label, "=", own)]
    copies = collection.copies([record.sha256])[record.sha256]
    # An index is measured without a filter where that is possible.
    few, without = (copies, []) if copies <= _FEW_COPIES else (0, [record.sha256])
    of_label = collection.copies([record.sha256], same)[record.sha256]
    found, exact, found_same, exact_same = (
        _others(collection.search(vector, K + few, where, exact=exact, without=without), record)
        for where in ((), same)
        for exact in (False, True)
    )
    there = min(K, labels[own] - of_label)
    qualities = [
        each
        for answer in (found, exact)
        for each in _quality([hit.record.metadata.get(label) == own for hit in answer], there)
    ]
    return [*qualities, recall(found, exact), recall(found_same, exact_same)]


def _others(answer: Sequence[Scored], record: ImageRecord) -> list[Scored]:
    return [hit for hit in answer if hit.record.sha256 != record.sha256][:K]


def _quality(right: Sequence[bool], there: int) -> tuple[float, float, float]:
    """P@1, P@10 and AP@10 of one answer, where `there` of ten could have been right."""
    precisions = [sum(right[: rank + 1]) / (rank + 1) for rank, hit in enumerate(right) if hit]
    return float(any(right[:1])), sum(right) / K, sum(precisions) / there if there else 0.0


def recall(found: Sequence[Scored], exact: Sequence[Scored]) -> float:
    """The share of the exact answer that was found; equal scores stand for each other."""
    if not exact:
        return 1.0
    least = exact[-1].score - 1e-6
    return min(len(exact), sum(hit.score >= least for hit in found)) / len(exact)
