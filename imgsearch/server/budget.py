"""A limit to the memory of work that runs at the same time."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator


class Budget:
    """Bytes that may be in use at once; who needs more waits for its turn. For one event loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._used = 0
        self._waiting: deque[tuple[int, asyncio.Event]] = deque()

    @contextlib.asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Use `size` bytes inside; more than there are in all counts as all there are."""
        size = min(size, self._most)
        turn = asyncio.Event()
        self._waiting.append((size, turn))
        self._let_in()
        try:
            await turn.wait()
            yield
        finally:
            if turn.is_set():
                self._used -= size
            else:
                self._waiting.remove((size, turn))
            self._let_in()

    def _let_in(self) -> None:
        """Whoever came first, as long as there is room."""
        while self._waiting and self._used + self._waiting[0][0] <= self._most:
            size, turn = self._waiting.popleft()
            self._used += size
            turn.set()
