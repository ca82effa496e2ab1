"""Bounds on the work of all requests together: threads, open requests, and memory.

anyio's limiters do not fit: they count callers instead of bytes, and serve only coroutines, while
jobs write from a thread.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from imgsearch import config
from imgsearch.server.settings import Limits

P = ParamSpec("P")
T = TypeVar("T")

# Store calls wait for a disk or a server, not for a core.
_STORE_THREADS = 8
# Open requests per request being processed, so that slow clients do not block others.
_OPEN_PER_PROCESSED = 8


class Pools:
    """One bounded pool of threads for each kind of work, so that no kind starves another.

    `decode` has a thread per core, as each holds a whole image in memory. `write` has one thread,
    as a collection has one writer.
    """

    def __init__(self) -> None:
        self.decode = ThreadPoolExecutor(config.default_workers(), "imgsearch-decode")
        self.store = ThreadPoolExecutor(_STORE_THREADS, "imgsearch-store")
        self.files = ThreadPoolExecutor(config.default_workers(), "imgsearch-files")
        self.write = ThreadPoolExecutor(1, "imgsearch-write")

    def close(self) -> None:
        """Wait for running calls, and cancel queued ones."""
        for pool in (self.decode, self.store, self.files, self.write):
            pool.shutdown(cancel_futures=True)


async def run(pool: Executor, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in a pool, and return its result."""
    return await asyncio.get_running_loop().run_in_executor(pool, lambda: function(*args, **kwargs))


class RequestLoad:
    """The number of open requests, and the bytes of their bodies in memory."""

    def __init__(self, limits: Limits) -> None:
        self._max_requests = _OPEN_PER_PROCESSED * limits.requests
        self._max_bytes = limits.memory
        self.requests = 0
        self.bytes = 0

    @property
    def is_full(self) -> bool:
        return self.requests > self._max_requests

    def acquire(self, size: int) -> bool:
        """Count `size` more bytes in memory; False if they do not fit."""
        if self.bytes + size > self._max_bytes:
            return False
        self.bytes += size
        return True

    def release(self, size: int) -> None:
        self.bytes -= size


class MemoryBudget:
    """A bounded number of bytes, granted first come, first served. For one event loop."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._used = 0
        self._turn = asyncio.Lock()  # fair
        self._released = asyncio.Event()

    @contextlib.asynccontextmanager
    async def reserve(self, size: int) -> AsyncIterator[None]:
        """Wait for `size` bytes and hold them in the block; the whole budget is the maximum."""
        size = min(size, self._max_bytes)
        async with self._turn:
            while self._used + size > self._max_bytes:
                self._released.clear()
                await self._released.wait()
            self._used += size
        try:
            yield
        finally:
            self._used -= size
            self._released.set()
