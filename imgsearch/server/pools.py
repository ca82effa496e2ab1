"""Thread pools for blocking work, which would otherwise block the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from imgsearch import config

P = ParamSpec("P")
T = TypeVar("T")

# Store calls wait for a disk or a server, not for a core.
_STORE_THREADS = 8


class Pools:
    """One bounded pool for each kind of work, so that no kind starves another.

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
