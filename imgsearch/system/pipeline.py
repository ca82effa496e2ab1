"""The tools that make a pipeline of generators: bounded, in order, overlapping, and prompt.

A stage that holds items back (for a batch, or because they are still in the making) passes them on
when it meets `FLUSH`, and passes `FLUSH` on too. So nothing waits for an item that may never come.
"""

import contextlib
import enum
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Final, TypeVar, overload

T = TypeVar("T")
R = TypeVar("R")


class Flush(enum.Enum):
    """The type of `FLUSH`."""

    FLUSH = enum.auto()


FLUSH: Final = Flush.FLUSH
"""Stands among the items of a pipeline where no more may come for a while."""


def gathered(
    items: Iterable[T], size: int, seconds: float, busy: Callable[[float], None] = lambda _: None
) -> Generator[list[T], None, None]:
    """The items in lists of `size`, made in a thread of its own, at most one list ahead.

    After `seconds` without a full list comes what there is, which may be an empty list: so the
    reader stays in control even if the maker blocks. Whatever the maker raises is raised here,
    after the items made before. `busy` is called with the seconds spent in making items. A reader
    that stops early does not wait for the maker, which stops at its next item.
    """
    ready: deque[T] = deque()
    changed = threading.Condition()
    ended = given_up = False
    failure: list[BaseException] = []

    def make() -> None:
        nonlocal ended
        iterator = iter(items)
        started = time.perf_counter()
        try:
            for item in iterator:
                with changed:
                    ready.append(item)
                    if len(ready) >= size:
                        busy(time.perf_counter() - started)
                        changed.notify_all()
                        changed.wait_for(lambda: len(ready) < 2 * size or given_up)
                        started = time.perf_counter()
                    if given_up:
                        break
        except BaseException as error:
            failure.append(error)
        finally:
            busy(time.perf_counter() - started)
            if isinstance(iterator, Generator):
                iterator.close()
            with changed:
                ended = True
                changed.notify_all()

    threading.Thread(target=make, name="imgsearch-source", daemon=True).start()
    try:
        while True:
            with changed:
                changed.wait_for(lambda: len(ready) >= size or ended, seconds)
                taken = [ready.popleft() for _ in range(min(size, len(ready)))]
                last = ended and not ready
                changed.notify_all()
            if taken or not last:
                yield taken
            if last:
                break
        if failure:
            raise failure[0]
    finally:
        with changed:
            given_up = True
            changed.notify_all()


@overload
def map_ahead(
    pool: Executor, function: Callable[[T], R], items: Iterable[T], ahead: int
) -> Iterator[R]: ...


@overload
def map_ahead(
    pool: Executor, function: Callable[[T], R], items: Iterable[T | Flush], ahead: int
) -> Iterator[R | Flush]: ...


def map_ahead(
    pool: Executor, function: Callable[[T], R], items: Iterable[T | Flush], ahead: int
) -> Iterator[R | Flush]:
    """`map` by a pool, in order, with at most `ahead` items taken before their turn."""
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            if item is FLUSH:
                while waiting:
                    yield waiting.popleft().result()
                yield FLUSH
                continue
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
