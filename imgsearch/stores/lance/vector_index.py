"""The index of vectors: built, extended and tuned so that its answers are right and quick.

It is an IVF index of 1-bit RaBitQ codes (Gao and Long 2024): a search ranks the codes of some
partitions and compares the best candidates in full. How many of either it takes depends on the
data, so the index is tuned after each build, against exact answers.
"""

import json
import math
import re
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgsearch.events import Listener, Stage
from imgsearch.stores import id_ranges
from imgsearch.stores.base import Vectors
from imgsearch.stores.lance import filters, segments
from imgsearch.stores.lance.arrow import lance, pc
from imgsearch.stores.lance.dataset import Dataset
from imgsearch.stores.lance.schema import VECTOR, to_numpy

# A flat search takes some 10 ms per thousand rows of 2048; an index pays from here on.
MIN_ROWS = 20_000
# Where a filter passes no more, they are fetched and compared: 5 ms, and 4 us a record.
MAX_COMPARED = 2_000
# Rows outside the index are compared one by one: two thousand of 1280 take some 4 ms.
MAX_UNINDEXED = 2_048
# To index new rows takes some time for each partition, and a third as much for each thousand rows.
# Where many are written each second, more of them wait, so that it takes a tenth of an ingest.
MAX_UNINDEXED_AT_SPEED = 4 * MAX_UNINDEXED
_REST = 9
# New rows go to a segment of their own. Each segment costs a search some 1 ms, so that segments up
# to so many times as large are merged into the new one: a million rows have four or five. Where the
# factor is larger, the largest segment, that of most records, is copied more often.
_MERGE_FACTOR = 4
# Partitions are of the size that the collection had when they were made.
_RETRAIN_GROWTH = 4
_CONFIG_KEY = "imgsearch:vector_index"

# With a margin above 0.99: other queries may lose more than those of the sample.
TARGET_RECALL = 0.998
_SAMPLE = 128
_K = 10
_REFINES = (5, 10, 20, 40, 80, 160)
_MIN_PROBES = 8
# Tuned for a filter that passes a tenth of the records, and for one that passes about the fewest of
# which not all are compared. The fewer pass, the more candidates it takes: the nearest that pass
# are far away, where many are about equally far.
_FILTERED_SAMPLE = 32
_FILTER_SHARE = 0.1
_FILTERED_ROWS = 2 * MAX_COMPARED
_LARGEST_SHARE = 0.25
# Where an earlier version tuned the index, without a filter.
_UNTUNED_FILTERED_REFINE = 40

_RecallOf = Callable[[int, int], float]
"""Returns the recall@10 of a search of so many partitions with such a refine factor."""


@dataclass(frozen=True, slots=True)
class Probing:
    """How an index is searched, as it was tuned when it was built over `rows` records.

    A search of k records reads `probes` of the `partitions`, and compares `refine` times k
    candidates in full. `recall` is the recall@10 of the sample queries. A search with a filter
    reads more partitions, and compares at least `filtered_refine` times k candidates.
    """

    rows: int
    partitions: int
    probes: int
    refine: int
    recall: float
    filtered_refine: int = _UNTUNED_FILTERED_REFINE

    def to_dict(self) -> dict[str, int | float]:
        """Return what `imgsearch info` shows."""
        return {
            "partitions": self.partitions,
            "probes": self.probes,
            "refine": self.refine,
            "filtered_refine": self.filtered_refine,
            "recall": round(self.recall, 4),
        }

    def options(self, k: int, share: float) -> dict[str, int]:
        """Return options of a search for k records where a filter passes `share` of all."""
        probes, refine = self.probes, self.refine
        if share < 1:
            # The nearest that pass are further away: in more partitions, and among more records
            # that are about equally near. Of 200,000 hard vectors, a tenth of which pass, 320 of
            # 447 partitions find 97.5 %, and all of them 100 % in 1.1 times the time.
            probes = math.ceil(4 * probes / share)
            refine = max(refine, self.filtered_refine)
        if k > 100:  # among many candidates the order by codes is right more often
            refine = max(5, refine // 4)
        # The least: where a filter leaves too few records in them, further ones are searched.
        return {"minimum_nprobes": min(self.partitions, probes), "refine_factor": refine}


class VectorIndex:
    """The vector index of one dataset, which may not have one yet."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._rests_until = 0.0

    def exists(self) -> bool:
        return bool(self._segments())

    def probing(self) -> Probing | None:
        """Return how the index was tuned; None for an index of an earlier version, or no index."""
        text = self._dataset.handle.config().get(_CONFIG_KEY)
        return Probing(**json.loads(text)) if text and self.exists() else None

    def search_options(self, k: int, share: float) -> dict[str, int]:
        """Return how much of the index to search where a filter passes `share` of all records."""
        probing = self.probing() or self._untuned(_partitions(self._dataset.handle.count_rows()))
        return probing.options(k, share)

    def unindexed_rows(self) -> int:
        return int(self._dataset.handle.count_rows()) - sum(self._segments())

    def optimize(self, listener: Listener) -> None:
        """Build, rebuild, extend or tune the index, whichever it needs."""
        rows = self._dataset.count()
        if rows < MIN_ROWS and not self.exists():
            return
        if not self.exists() or self._has_outgrown(rows):
            listener(Stage(f"building the index of {VECTOR} over {rows:,} records"))
            self._dataset.retry("no index can be built", self._build)
            self._tune(listener)
        else:
            if (missing := self.unindexed_rows()) > MAX_UNINDEXED // 8:
                listener(Stage(f"adding {missing:,} records to the index of {VECTOR}"))
                self._dataset.retry("the index cannot be extended", self._extend)
            if self.probing() is None:
                self._tune(listener)

    def after_upsert(self) -> None:
        """Extend the index in the middle of a long ingest, of which it takes a small part."""
        if not self.exists() or (missing := self.unindexed_rows()) <= MAX_UNINDEXED:
            return
        started = time.monotonic()
        if missing > MAX_UNINDEXED_AT_SPEED or started >= self._rests_until:
            self._dataset.retry("the index cannot be extended", self._extend)
            ended = time.monotonic()
            self._rests_until = ended + _REST * (ended - started)

    def _segments(self) -> list[int]:
        """Return how many rows each segment of the index covers, the oldest first."""
        return segments.row_counts(self._dataset.handle, VECTOR) or []

    def _has_outgrown(self, rows: int) -> bool:
        probing = self.probing()
        built = probing.rows if probing else self._partitions_now() ** 2
        return rows >= _RETRAIN_GROWTH * built

    def _partitions_now(self) -> int:
        statistics = self._dataset.handle.stats.index_stats(f"{VECTOR}_idx")
        return int(statistics["indices"][0]["num_partitions"])

    def _build(self) -> None:
        dataset = self._dataset.writable()
        rows = dataset.count_rows()
        if _CONFIG_KEY in dataset.config():
            # It is not of the new index, whose tuning may not come to its end.
            dataset.delete_config_keys([_CONFIG_KEY])
        self._build_of(dataset, _partitions(rows))

    def _build_of(self, dataset: lance.LanceDataset, partitions: int) -> None:
        try:
            dataset.create_index(
                VECTOR,
                "IVF_RQ",
                metric=self._dataset.stamp.distance,
                num_partitions=partitions,
                num_bits=1,
                replace=True,
            )
        except (OSError, ValueError, RuntimeError) as error:
            # Copies have equal vectors, and each partition needs at least one distinct vector.
            match = re.search(r"could only form (\d+) non-empty clusters", str(error))
            fewer = int(match[1]) if match else partitions
            if fewer >= partitions:
                raise
            self._build_of(dataset, max(1, fewer // 2))

    def _extend(self) -> None:
        segments.extend(self._dataset.writable(), VECTOR, _MERGE_FACTOR)

    def _tune(self, listener: Listener) -> None:
        """Find the least work that finds what comparing all finds, and keep it."""
        listener(Stage(f"tuning the index of {VECTOR}"))
        rows, partitions = self._dataset.count(), self._partitions_now()
        shares = (_FILTER_SHARE, min(_LARGEST_SHARE, _FILTERED_ROWS / rows))
        queries = self._sample(rows, max(shares))
        least, *least_filtered = self._least_scores(queries, shares)

        def recall(probes: int, refine: int) -> float:
            # One more, for the query itself, which is the first.
            found = [self._scores(each, _K + 1, probes, refine)[1:] for each in queries]
            return _recall(found, least)

        def filtered_refine(share: float, least: NDArray[np.float32]) -> int:
            condition = filters.in_range("id", "", id_ranges.sample(share))
            probes = probing.options(_K, share)["minimum_nprobes"]

            def recall(probes: int, refine: int) -> float:
                found = [
                    self._scores(each, _K, probes, refine, condition)
                    for each in queries[:_FILTERED_SAMPLE]
                ]
                return _recall(found, least[:_FILTERED_SAMPLE])

            return _least_refine(recall, probes)

        probing = _tuned(recall, rows, partitions)
        refine = max(map(filtered_refine, shares, least_filtered))
        probing = replace(probing, filtered_refine=refine)
        text = json.dumps(asdict(probing))
        self._dataset.retry(
            "the index cannot be tuned",
            lambda: self._dataset.writable().update_config({_CONFIG_KEY: text}),
        )

    def _sample(self, rows: int, share: float) -> Vectors:
        """Return vectors of the collection, always the same, of shape (n, dimension).

        Not of the records that the filters of the tuning pass, the first `share` of all ids.
        """
        chosen = np.random.default_rng(0).choice(rows, min(rows, _SAMPLE), replace=False)
        table = self._dataset.newest().take(sorted(chosen.tolist()), columns=["id", VECTOR])
        table = table.filter(pc.greater(table["id"], id_ranges.sample(share)))
        return to_numpy(table[VECTOR], self._dataset.stamp.dimension)

    def _least_scores(self, queries: Vectors, shares: Sequence[float]) -> list[NDArray[np.float32]]:
        """Return the score of the tenth of the records most like each query, but itself.

        Of all records, and then of each share of them, the first by id; each of shape (n,).
        """
        best = np.full((len(queries), _K + 1), -np.inf, np.float32)
        filtered = [np.full((len(queries), _K), -np.inf, np.float32) for _ in shares]
        for batch in self._dataset.batches(["id", VECTOR], None, batch_size=4096):
            scores = queries @ to_numpy(batch[VECTOR], self._dataset.stamp.dimension).T
            best = _highest(best, scores)
            for at, share in enumerate(shares):
                passes = pc.less_equal(batch["id"], id_ranges.sample(share))
                filtered[at] = _highest(
                    filtered[at], scores[:, passes.to_numpy(zero_copy_only=False)]
                )
        return [each.min(axis=1) for each in (best, *filtered)]

    def _scores(
        self, query: Vectors, k: int, probes: int, refine: int, condition: str | None = None
    ) -> NDArray[np.float32]:
        """Return the scores of the k records that a search finds, descending."""
        nearest: dict[str, Any] = {
            "column": VECTOR,
            "q": query,
            "k": k,
            "metric": self._dataset.stamp.distance,
            "nprobes": probes,
            "refine_factor": refine,
        }
        table = self._dataset.read(
            [VECTOR],
            condition,
            nearest=nearest,
            prefilter=True,
            disable_scoring_autoprojection=True,
        )
        # Lance's distances to vectors of float16 are less precise.
        return to_numpy(table[VECTOR], self._dataset.stamp.dimension) @ query

    def _untuned(self, partitions: int) -> Probing:
        """Return how an index of an earlier version was searched."""
        # The error of one bit a dimension falls with the root of the dimension: short vectors need
        # more candidates.
        refine = 20 * (1 if self._dataset.stamp.dimension >= 512 else 4)
        probes = min(partitions, max(32, partitions // 8))
        return Probing(0, partitions, probes, refine, math.nan)


def _least_refine(recall: _RecallOf, probes: int) -> int:
    """Return the least factor that reaches the target, or the largest."""
    at = bisect_left(_REFINES, True, key=lambda each: recall(probes, each) >= TARGET_RECALL)
    return _REFINES[min(at, len(_REFINES) - 1)]


def _tuned(recall: _RecallOf, rows: int, partitions: int) -> Probing:
    """Return the least candidates that reach the target, and for them twice the least partitions.

    Twice, because a few queries need many more than the others, and a sample may have none of them:
    among a million hard vectors 16 of 1,000 partitions reached 0.999 for a sample of 120 queries
    and 0.990 for 450 others, which 32 partitions bring to 0.997.
    """
    refine = _least_refine(recall, partitions)
    recalls = {partitions: recall(partitions, refine)}
    target = min(TARGET_RECALL, recalls[partitions])

    def reaches(probes: int) -> bool:
        recalls[probes] = recall(probes, refine)
        return recalls[probes] >= target

    # More partitions find more, so that bisection finds the least.
    choices = [_MIN_PROBES << step for step in range(32) if _MIN_PROBES << step < partitions]
    least = [*choices, partitions][bisect_left(choices, True, key=reaches)]
    probes = min(2 * least, partitions)
    return Probing(rows, partitions, probes, refine, recalls.get(probes) or recall(probes, refine))


def _highest(best: NDArray[np.float32], scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the highest of both of each row, as many as in `best`, which is of shape (n, k)."""
    k = best.shape[1]
    return np.partition(np.concatenate([best, scores], axis=1), -k, axis=1)[:, -k:]


def _recall(found: Sequence[NDArray[np.float32]], least: NDArray[np.float32]) -> float:
    """Return the share of the exact answers that was found; equal scores stand for each other."""
    hits = [int((scores >= low - 1e-5).sum()) for scores, low in zip(found, least, strict=True)]
    return sum(hits) / (_K * len(hits))


def _partitions(rows: int) -> int:
    return max(1, round(math.sqrt(rows)))
