"""Bounds on the memory of all requests together."""

import asyncio
import contextlib
from collections import deque
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
    """A bounded number of bytes, granted first come, first served. For one event loop."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._used = 0
        self._waiting: deque[tuple[int, asyncio.Event]] = deque()

    @contextlib.asynccontextmanager
    async def reserve(self, size: int) -> AsyncIterator[None]:
        """Wait for `size` bytes and hold them in the block; the whole budget is the maximum."""
        size = min(size, self._max_bytes)
        granted = asyncio.Event()
        self._waiting.append((size, granted))
        self._grant()
        try:
            await granted.wait()
            yield
        finally:
            if granted.is_set():
                self._used -= size
            else:
                self._waiting.remove((size, granted))
            self._grant()

    def _grant(self) -> None:
        while self._waiting and self._used + self._waiting[0][0] <= self._max_bytes:
            size, granted = self._waiting.popleft()
            self._used += size
            granted.set()
