"""How good a collection's answers are: by what the user's own metadata says is alike.

Every query is a picture of the collection, by its stored vector, and its answer is without all
records of its very content. Two things are told apart: how often what is found has the label of
the query (the model's work), and how much of the exact answer the index finds (the store's).
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from imgsearch.encoders.base import Vectors
from imgsearch.errors import MetadataError
from imgsearch.events import Counted, Listener, Outcome, Stage, ignore
from imgsearch.stores.base import Collection, ExactQuery
from imgsearch.types import Condition, ImageRecord, Scored, Value

K = 10
DEFAULT_SAMPLE = 500
# Exact answers cost one pass over the collection for so many images: the default sample needs one.
QUERIES_PER_PASS = 512
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
        raise MetadataError(f"{label!r}: there is no such field; the collection has {known}")
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
        raise MetadataError(f"fewer than two images have the field {label!r}")
    listener(Counted(len(queries)))
    rows = []
    for start in range(0, len(queries), QUERIES_PER_PASS):
        block = _questions(collection, label, queries[start : start + QUERIES_PER_PASS])
        listener(Stage(f"comparing {len(block):,} images with all others"))
        # Two queries for each image: without a filter, and with one on its label.
        exact = collection.search_exact(
            [
                ExactQuery(each.vector, each.k, where, each.without)
                for each in block
                for where in ((), each.same)
            ]
        )
        answers = zip(exact[::2], exact[1::2], strict=True)
        for question, (of_all, of_same) in zip(block, answers, strict=True):
            rows.append(_ask(collection, label, labels, question, of_all, of_same))
            listener(Outcome(question.record.uri, "skipped"))
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


@dataclass(frozen=True, slots=True)
class _Question:
    """An image to ask about: its copies are part of the `k`, or excluded by `without`."""

    record: ImageRecord
    vector: Vectors
    k: int
    without: Sequence[str]
    same: Sequence[Condition]


def _questions(
    collection: Collection, label: str, records: Sequence[ImageRecord]
) -> list[_Question]:
    digests = sorted({record.sha256 for record in records})
    stored = collection.vectors_by_digest(digests)
    copies = collection.count_by_digest(digests)
    questions = []
    for record in records:
        digest = record.sha256
        if digest not in stored:  # it has been removed meanwhile
            continue
        # An index is measured without a filter where that is possible: room for a few copies.
        few = copies.get(digest, 0)
        k, without = (K + few, []) if few <= _FEW_COPIES else (K, [digest])
        same = [Condition(label, "=", record.metadata[label])]
        questions.append(_Question(record, stored[digest].vector, k, without, same))
    return questions


def _ask(
    collection: Collection,
    label: str,
    labels: Counter[Value],
    question: _Question,
    exact: Sequence[Scored],
    exact_same: Sequence[Scored],
) -> list[float]:
    """Quality by the index, quality exactly, recall, and recall under a filter."""
    record, same = question.record, question.same
    own = record.metadata[label]
    of_label = collection.count_by_digest([record.sha256], same).get(record.sha256, 0)
    found, found_same = (
        collection.search(question.vector, question.k, where, exclude_digests=question.without)
        for where in ((), same)
    )
    found, exact, found_same, exact_same = (
        _others(answer, record) for answer in (found, exact, found_same, exact_same)
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
