"""The index of vectors: built, extended and tuned so that its answers are right and quick.

It is an IVF index of 1-bit RaBitQ codes (Gao and Long 2024): a search ranks the codes of some
partitions and compares the best candidates in full. How many of either it takes depends on the
data, so the index is tuned after each build, against exact answers.
"""

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgsearch.events import Listener, Stage
from imgsearch.stores.base import Vectors
from imgsearch.stores.lance import segments
from imgsearch.stores.lance.arrow import lance
from imgsearch.stores.lance.dataset import Dataset
from imgsearch.stores.lance.schema import VECTOR, to_numpy

# A flat search takes some 10 ms per thousand rows of 2048; an index pays from here on.
MIN_ROWS = 20_000
# Where a filter passes no more, they are fetched and compared: 5 ms, and 4 us a record.
MAX_COMPARED = 2_000
# Rows outside the index are compared one by one: two thousand of 1280 take some 15 ms.
MAX_UNINDEXED = 2_048
# New rows go to a segment of their own. Each segment costs a search some 5 ms, so that segments up
# to so many times as large are merged into the new one: a million rows have three or four.
_MERGE_FACTOR = 16
# Partitions are of the size that the collection had when they were made.
_RETRAIN_GROWTH = 4
_CONFIG_KEY = "imgsearch:vector_index"

# With a margin above 0.99: other queries may lose more than those of the sample.
TARGET_RECALL = 0.998
_SAMPLE = 128
_K = 10
_REFINES = (5, 10, 20, 40, 80, 160)
_MIN_PROBES = 8
_FILTERED_REFINE = 20

_RecallOf = Callable[[int, int], float]
"""Returns the recall@10 of a search of so many partitions with such a refine factor."""


@dataclass(frozen=True, slots=True)
class Probing:
    """How an index is searched, as it was tuned when it was built over `rows` records.

    A search of k records reads `probes` of the `partitions`, and compares `refine` times k
    candidates in full. `recall` is the recall@10 of the sample queries.
    """

    rows: int
    partitions: int
    probes: int
    refine: int
    recall: float

    def to_dict(self) -> dict[str, int | float]:
        """Return what `imgsearch info` shows."""
        return {
            "partitions": self.partitions,
            "probes": self.probes,
            "refine": self.refine,
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
            refine = max(_FILTERED_REFINE, 4 * refine)
        if k > 100:  # among many candidates the order by codes is right more often
            refine = max(5, refine // 4)
        # The least: where a filter leaves too few records in them, further ones are searched.
        return {"minimum_nprobes": min(self.partitions, probes), "refine_factor": refine}


class VectorIndex:
    """The vector index of one dataset, which may not have one yet."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

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
        """Extend the index in the middle of a long ingest."""
        if self.exists() and self.unindexed_rows() > MAX_UNINDEXED:
            self._dataset.retry("the index cannot be extended", self._extend)

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
        queries = self._sample(rows)
        exact = self._exact_scores(queries)

        def recall(probes: int, refine: int) -> float:
            found = (self._found_scores(each, probes, refine) for each in queries)
            return _recall(list(found), exact)

        probing = _tuned(recall, rows, partitions)
        text = json.dumps(asdict(probing))
        self._dataset.retry(
            "the index cannot be tuned",
            lambda: self._dataset.writable().update_config({_CONFIG_KEY: text}),
        )

    def _sample(self, rows: int) -> Vectors:
        """Return vectors of the collection, always the same, of shape (n, dimension)."""
        chosen = np.random.default_rng(0).choice(rows, min(rows, _SAMPLE), replace=False)
        table = self._dataset.newest().take(sorted(chosen.tolist()), columns=[VECTOR])
        return to_numpy(table[VECTOR], self._dataset.stamp.dimension)

    def _exact_scores(self, queries: Vectors) -> NDArray[np.float32]:
        """Return the scores of the k nearest of each query, shape (n, k), ascending.

        The nearest is the query itself, so there are k + 1 with it.
        """
        best = np.full((len(queries), _K + 1), -np.inf, np.float32)
        for batch in self._dataset.batches([VECTOR], None, batch_size=4096):
            scores = queries @ to_numpy(batch[VECTOR], self._dataset.stamp.dimension).T
            both = np.concatenate([best, scores], axis=1)
            best = np.partition(both, -_K - 1, axis=1)[:, -_K - 1 :]
        return np.asarray(np.sort(best, axis=1)[:, :_K])

    def _found_scores(self, query: Vectors, probes: int, refine: int) -> NDArray[np.float32]:
        nearest: dict[str, Any] = {
            "column": VECTOR,
            "q": query,
            "k": _K + 1,
            "metric": self._dataset.stamp.distance,
            "nprobes": probes,
            "refine_factor": refine,
        }
        table = self._dataset.read(["_distance"], None, nearest=nearest)
        distances: NDArray[np.float32] = table["_distance"].to_numpy()
        return 1 - distances

    def _untuned(self, partitions: int) -> Probing:
        """Return how an index of an earlier version was searched."""
        # The error of one bit a dimension falls with the root of the dimension: short vectors need
        # more candidates.
        refine = 20 * (1 if self._dataset.stamp.dimension >= 512 else 4)
        probes = min(partitions, max(32, partitions // 8))
        return Probing(0, partitions, probes, refine, math.nan)


def _tuned(recall: _RecallOf, rows: int, partitions: int) -> Probing:
    """Return the least candidates, and for them the least partitions, that reach the target."""
    refine, reached = _REFINES[0], 0.0
    for refine in _REFINES:
        reached = recall(partitions, refine)
        if reached >= TARGET_RECALL:
            break
    choices = [_MIN_PROBES << step for step in range(32) if _MIN_PROBES << step < partitions]
    found = Probing(rows, partitions, partitions, refine, reached)
    # More partitions find more, so that halving finds the least.
    low, high = 0, len(choices)
    while low < high:
        middle = (low + high) // 2
        reached = recall(choices[middle], refine)
        if reached >= min(TARGET_RECALL, found.recall):
            found = Probing(rows, partitions, choices[middle], refine, reached)
            high = middle
        else:
            low = middle + 1
    return found


def _recall(found: Sequence[NDArray[np.float32]], exact: NDArray[np.float32]) -> float:
    """Return the share of the exact answers that was found; equal scores stand for each other."""
    least = exact[:, 0] - 1e-5
    # Not the query itself, which is among what was found.
    hits = [
        min(_K, int((scores >= limit).sum()) - 1)
        for scores, limit in zip(found, least, strict=True)
    ]
    return sum(hits) / (_K * len(hits))


def _partitions(rows: int) -> int:
    return max(1, round(math.sqrt(rows)))
