"""Two small tools that make a pipeline of generators: bounded, in order, and overlapping."""

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def map_ahead(
    pool: Executor, function: Callable[[T], R], items: Iterable[T], ahead: int
) -> Iterator[R]:
    """`map` by a pool, in order, with at most `ahead` items taken before their turn."""
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


_END = object()


def prefetched(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    """The same items, made in a thread of its own, at most `depth` of them before their turn.

    What the items' maker raises is raised here. When the reader stops early, so does the maker,
    at its next item.
    """
    ready: queue.Queue[object] = queue.Queue(maxsize=depth)
    given_up = threading.Event()
    failure: list[BaseException] = []

    def offer(item: object) -> bool:
        while not given_up.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return True
        return False

    def make() -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                if not offer(item):
                    break
        except BaseException as error:
            failure.append(error)
        finally:
            if isinstance(iterator, Generator):
                iterator.close()
            offer(_END)

    # A daemon: a reader that is interrupted for good must not wait for a batch in the making.
    maker = threading.Thread(target=make, name="imgsearch-stage", daemon=True)
    maker.start()
    try:
        while (item := ready.get()) is not _END:
            yield item  # type: ignore[misc]
        if failure:
            raise failure[0]
    finally:
        given_up.set()
        maker.join()
