"""Lines of the table of `benchmarks.million`, and what its rows share."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.million_data import Data
from imgsearch.stores.base import Vectors
from imgsearch.types import Scored


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table; the lower the value, the better.

    `before` is what the same run measures in the way of an earlier version, if it can. `note` says
    what else was measured.
    """

    what: str
    reached: float
    goal: float
    unit: str = "s"
    before: float | None = None
    note: str = ""


Measure = Callable[[Data], Iterator[Line]]
ROWS: dict[str, Measure] = {}


def row(name: str) -> Callable[[Measure], Measure]:
    """Register a function that measures one row of the table."""

    def register(measure: Measure) -> Measure:
        assert name not in ROWS, f"two rows are named {name}"
        ROWS[name] = measure
        return measure

    return register


def peak_megabytes() -> float:
    """Return the peak memory of this process, by Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM"))


def median_seconds(
    call: Callable[[Vectors], object], queries: Sequence[Vectors] | Vectors
) -> float:
    """Return the median time of a call with each of the queries; the first two are not counted."""
    seconds = []
    for query in [*queries[:2], *queries]:
        started = time.perf_counter()
        call(query)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[2:])


def recall_at_ten(answers: Sequence[Sequence[Scored]], exact: Sequence[Sequence[float]]) -> float:
    """Return the mean share of the exact answers that was found; equal scores are as good."""
    shares = []
    for answer, scores in zip(answers, exact, strict=True):
        found = sum(hit.score >= scores[-1] - 1e-6 for hit in answer)
        shares.append(min(found, len(scores)) / len(scores))
    return float(np.mean(shares))
