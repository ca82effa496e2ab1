"""Files that have changed, until they have stopped growing."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from imgsearch.types import mtime_of


@dataclass(slots=True)
class _State:
    """Size and mtime of a file, and since when it has them."""

    size: int
    mtime_ns: int
    since: float


class Pending:
    """Paths by the time at which their files last changed. Memory grows with their number."""

    def __init__(self, settle: float, clock: Callable[[], float] = time.monotonic) -> None:
        """A file is ready when its size and mtime have not changed for `settle` seconds."""
        self._settle = settle
        self._clock = clock
        self._states: dict[str, _State] = {}

    def __len__(self) -> int:
        return len(self._states)

    def add(self, path: str) -> None:
        """Add a file that has been written to."""
        self._states.setdefault(path, _State(-1, -1, self._clock()))

    def ready(self) -> Iterator[str]:
        """Yield, and forget, the files that are ready, and those that no longer exist."""
        now = self._clock()
        for path, state in list(self._states.items()):
            try:
                status = os.stat(path)
            except OSError:
                del self._states[path]
                yield path
                continue
            current = status.st_size, mtime_of(status)
            if current != (state.size, state.mtime_ns):
                state.size, state.mtime_ns = current
                state.since = now
            elif now - state.since >= self._settle and state.size:
                del self._states[path]
                yield path
