"""Measure search quality with a metadata field that says which images are similar.

Each query is a stored vector, and hits with the same content as the query are ignored. Precision,
the share of hits with the label of the query, measures the model. Recall, the share of the exact
hits that the index finds, measures the store.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from imgsearch import calibration
from imgsearch.calibration import Calibration
from imgsearch.encoders.base import Vectors
from imgsearch.errors import MetadataError
from imgsearch.events import Counted, Listener, Outcome, Stage, ignore
from imgsearch.stores.base import VECTOR_INDEX, Collection, VectorQuery
from imgsearch.types import Condition, ImageRecord, Scored, Value

K = 10
DEFAULT_SAMPLE = 500
# Queries per exact search, each of which reads the whole collection. The default sample needs one.
QUERIES_PER_PASS = 512
_FEW_COPIES = 100
# Hits are divided into so many ranges of scores at most, with so many hits at least.
_RANGES = 10
_FEWEST_HITS = 20


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over all queries, from 0 to 1.

    `p1` and `p10` are the precision of the first hit and of the first ten hits: the share with the
    query's label. `map10` is the mean average precision of the first ten hits.
    """

    p1: float
    p10: float
    map10: float


@dataclass(frozen=True, slots=True)
class ScoreRange:
    """The hits with at least `score` that no higher range has.

    `precision` is the share of these `hits` with the label of the query. `percentile` is the
    percentage of all pairs of images that are less similar than `score`, None if the collection is
    not calibrated.
    """

    score: float
    percentile: float | None
    hits: int
    precision: float


@dataclass(frozen=True, slots=True)
class EvalReport:
    """The quality of a collection.

    `index` is the quality of normal searches, `exact` that of searches that compare all vectors.
    `recall` is the share of the first ten exact hits that the index finds, `filtered_recall` the
    same with a filter on the label; hits with equal scores are interchangeable. `scores` divides
    the exact hits by their score, the highest first, into ranges of about equally many hits. Of the
    `images` in the collection, `labelled` have the field, and `queries` were searched with.
    `vector_index` says how the store's index is tuned, as `imgsearch info` does; it is None without
    such an index.
    """

    collection: str
    model: str
    label: str
    images: int
    labelled: int
    queries: int
    index: Quality
    exact: Quality
    recall: float
    filtered_recall: float
    scores: tuple[ScoreRange, ...] = ()
    vector_index: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the object that `imgsearch eval --json` prints."""
        fields = asdict(self)
        return {
            "collection": fields.pop("collection"),
            "model": fields.pop("model"),
            "label": fields.pop("label"),
            "pictures": fields.pop("images"),
            **fields,
        }


def evaluate(
    collection: Collection,
    label: str,
    sample: int | None = DEFAULT_SAMPLE,
    listener: Listener = ignore,
) -> EvalReport:
    """Evaluate a collection with `sample` images that have the field `label`, or with all if None.

    The sample is random, with a fixed seed. Raises MetadataError if there is no such field, or if
    fewer than two images have it.
    """
    if label not in collection.fields:
        known = ", ".join(collection.fields) or "none"
        raise MetadataError(f"{label!r}: no such field; the collection has {known}")
    labels: Counter[Value] = Counter()
    queries: list[ImageRecord] = []
    generator = random.Random(0)  # noqa: S311 - the same sample every time
    images = 0
    for record in (record for records in collection.scan() for record in records):
        images += 1
        if label not in record.metadata:
            continue
        labels[record.metadata[label]] += 1
        _sample(queries, record, sample, labels.total(), generator)
    if labels.total() < 2:
        raise MetadataError(f"fewer than two images have the field {label!r}")
    listener(Counted(len(queries)))
    rows = []
    judged: list[tuple[float, bool]] = []
    for start in range(0, len(queries), QUERIES_PER_PASS):
        block = _queries(collection, label, queries[start : start + QUERIES_PER_PASS])
        listener(Stage(f"comparing {len(block):,} images with all others"))
        # Two searches for each image: without a filter, and with one on its label.
        exact = collection.search_exact(
            [
                VectorQuery(each.vector, each.k, where, each.exclude_digests)
                for each in block
                for where in ((), each.same_label)
            ]
        )
        answers = zip(exact[::2], exact[1::2], strict=True)
        for query, (unfiltered, filtered) in zip(block, answers, strict=True):
            rows.append(_measure(collection, label, labels, query, unfiltered, filtered))
            value = query.record.metadata[label]
            judged += (
                (hit.score, hit.record.metadata.get(label) == value)
                for hit in _without_copies(unfiltered, query.record)
            )
            listener(Outcome(query.record.uri, "skipped"))
    means = np.mean(rows, axis=0).tolist()
    return EvalReport(
        collection=collection.name,
        model=collection.stamp.model,
        label=label,
        images=images,
        labelled=labels.total(),
        queries=len(queries),
        index=Quality(*means[0:3]),
        exact=Quality(*means[3:6]),
        recall=means[6],
        filtered_recall=means[7],
        scores=_by_score(judged, calibration.stored(collection)),
        vector_index=collection.info().details.get(VECTOR_INDEX),
    )


def _sample(
    sample: list[ImageRecord],
    record: ImageRecord,
    size: int | None,
    seen: int,
    generator: random.Random,
) -> None:
    """Add a record, the last of `seen`, by reservoir sampling (Vitter's algorithm R, 1985)."""
    if size is None or len(sample) < size:
        sample.append(record)
    elif (place := generator.randrange(seen)) < size:
        sample[place] = record


@dataclass(frozen=True, slots=True)
class _Query:
    """A query image. `k` has room for its copies, unless `exclude_digests` excludes them."""

    record: ImageRecord
    vector: Vectors
    k: int
    exclude_digests: Sequence[str]
    same_label: Sequence[Condition]


def _queries(collection: Collection, label: str, records: Sequence[ImageRecord]) -> list[_Query]:
    digests = sorted({record.sha256 for record in records})
    stored = collection.vectors_by_digest(digests)
    copies = collection.count_by_digest(digests)
    queries = []
    for record in records:
        digest = record.sha256
        if digest not in stored:  # removed since the scan
            continue
        # If there are few copies, more hits are requested instead of a filter, as the index is to
        # be measured without one.
        count = copies.get(digest, 0)
        k, excluded = (K + count, []) if count <= _FEW_COPIES else (K, [digest])
        same_label = [Condition(label, "=", record.metadata[label])]
        queries.append(_Query(record, stored[digest].vector, k, excluded, same_label))
    return queries


def _measure(
    collection: Collection,
    label: str,
    labels: Counter[Value],
    query: _Query,
    exact: Sequence[Scored],
    exact_filtered: Sequence[Scored],
) -> list[float]:
    """Return the quality of the index, the exact quality, recall, and recall with a filter."""
    record, same_label = query.record, query.same_label
    value = record.metadata[label]
    copies = collection.count_by_digest([record.sha256], same_label).get(record.sha256, 0)
    found, found_filtered = (
        collection.search(query.vector, query.k, where, exclude_digests=query.exclude_digests)
        for where in ((), same_label)
    )
    found, exact, found_filtered, exact_filtered = (
        _without_copies(hits, record) for hits in (found, exact, found_filtered, exact_filtered)
    )
    possible = min(K, labels[value] - copies)
    qualities = [
        each
        for hits in (found, exact)
        for each in _quality([hit.record.metadata.get(label) == value for hit in hits], possible)
    ]
    return [*qualities, recall(found, exact), recall(found_filtered, exact_filtered)]


def _without_copies(hits: Sequence[Scored], record: ImageRecord) -> list[Scored]:
    return [hit for hit in hits if hit.record.sha256 != record.sha256][:K]


def _quality(relevant: Sequence[bool], possible: int) -> tuple[float, float, float]:
    """Return P@1, P@10 and AP@10 of hits, of which at most `possible` could be relevant."""
    precisions = [
        sum(relevant[: rank + 1]) / (rank + 1) for rank, hit in enumerate(relevant) if hit
    ]
    average = sum(precisions) / possible if possible else 0.0
    return float(any(relevant[:1])), sum(relevant) / K, average


def _by_score(
    judged: Sequence[tuple[float, bool]], known: Calibration | None
) -> tuple[ScoreRange, ...]:
    """Return the precision by score of hits, which are given as their score and whether right."""
    if not judged:
        return ()
    scores = np.array([score for score, _ in judged])
    right = np.array([each for _, each in judged])
    count = max(1, min(_RANGES, len(judged) // _FEWEST_HITS))
    # Hits with equal scores are in one range.
    least = np.unique(np.sort(scores)[np.arange(count) * len(scores) // count])
    number = np.searchsorted(least, scores, side="right") - 1
    hits, correct = np.bincount(number), np.bincount(number, right)
    return tuple(
        ScoreRange(
            score, known.percentile(score) if known else None, int(many), float(those / many)
        )
        for score, many, those in reversed(list(zip(least.tolist(), hits, correct, strict=True)))
    )


def recall(found: Sequence[Scored], exact: Sequence[Scored]) -> float:
    """Return the share of the exact hits that were found. Equal scores are interchangeable."""
    if not exact:
        return 1.0
    least = exact[-1].score - 1e-6
    return min(len(exact), sum(hit.score >= least for hit in found)) / len(exact)
