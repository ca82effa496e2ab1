"""The threads in which the service does what would hold up its event loop."""

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
    """Bounded, one for each kind of work, so that none takes the threads of another.

    `decode` has as many threads as there are cores: each holds a whole picture in memory. `write`
    has one, as a collection has one writer.
    """

    def __init__(self) -> None:
        self.decode = ThreadPoolExecutor(config.default_workers(), "imgsearch-decode")
        self.store = ThreadPoolExecutor(_STORE_THREADS, "imgsearch-store")
        self.files = ThreadPoolExecutor(config.default_workers(), "imgsearch-files")
        self.write = ThreadPoolExecutor(1, "imgsearch-write")

    def close(self) -> None:
        """Wait for what is under way."""
        for pool in (self.decode, self.store, self.files, self.write):
            pool.shutdown(cancel_futures=True)


async def run(pool: Executor, function: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
    """What a function returns, run by a pool."""
    return await asyncio.get_running_loop().run_in_executor(pool, lambda: function(*given, **named))
