"""How long each stage of a run was at work."""

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Mapping


class Stopwatch:
    """Adds up seconds by stage; several threads may be in one stage at once."""

    def __init__(self, stages: Iterable[str]) -> None:
        self._seconds = dict.fromkeys(stages, 0.0)
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Whatever is done inside is the stage's work."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - started)

    def add(self, stage: str, seconds: float) -> None:
        """Count seconds that were measured elsewhere."""
        with self._lock:
            self._seconds[stage] += seconds

    def seconds(self, threads: Mapping[str, int]) -> dict[str, float]:
        """By stage, the mean of its `threads`, of which a stage has one if it is not named."""
        with self._lock:
            return {stage: sum_ / threads.get(stage, 1) for stage, sum_ in self._seconds.items()}
