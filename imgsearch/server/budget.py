"""Bounds on the memory of all requests together."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from imgsearch.server.settings import Limits

# Requests that may be open for each one that is processed, so that slow clients block nobody else.
_OPEN_PER_PROCESSED = 8


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
    """A bounded number of bytes, granted first come, first served. For one event loop.

    Semaphores and anyio's limiters count callers, not bytes.
    """

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
