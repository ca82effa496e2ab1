"""Measure for how long each stage of a run is busy."""

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Mapping


class Stopwatch:
    """Adds up the seconds of each stage. Threads may be in one stage at the same time."""

    def __init__(self, stages: Iterable[str]) -> None:
        self._seconds = dict.fromkeys(stages, 0.0)
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the time of a `with` block to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - started)

    def add(self, stage: str, seconds: float) -> None:
        """Add seconds that were measured elsewhere."""
        with self._lock:
            self._seconds[stage] += seconds

    def seconds(self, threads: Mapping[str, int]) -> dict[str, float]:
        """Return the seconds of each stage per thread. A stage not in `threads` has one thread."""
        with self._lock:
            return {stage: sum_ / threads.get(stage, 1) for stage, sum_ in self._seconds.items()}
