"""Tools for a pipeline of generators: bounded, in order, overlapping, and prompt.

A stage that holds items back, to fill a batch or because they are in progress, passes them on when
it meets `FLUSH`, and then `FLUSH` itself. So no item waits for another that may never come.
"""

import contextlib
import enum
import math
import queue
import sys
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
"""Marks a place in a stream of items where the next item may take long."""


def timed_batches(
    items: Iterable[T], size: int, seconds: float, busy: Callable[[float], None] = lambda _: None
) -> Generator[list[T], None, None]:
    """Yield lists of `size` items, which a thread produces at most one list ahead.

    If no list is full after `seconds`, yields the items so far, possibly none: so the consumer
    stays in control while the producer blocks. An error of the producer is raised here, after the
    items before it. `busy` receives the seconds in which the producer worked. A consumer that stops
    early does not wait for the producer, which stops at its next item.
    """
    ready: deque[T] = deque()
    changed = threading.Condition()
    ended = closed = False
    failure: list[BaseException] = []

    def produce() -> None:
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
                        changed.wait_for(lambda: len(ready) < 2 * size or closed)
                        started = time.perf_counter()
                    if closed:
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

    threading.Thread(target=produce, name="imgsearch-source", daemon=True).start()
    try:
        while True:
            with changed:
                changed.wait_for(lambda: len(ready) >= size or ended, seconds)
                batch = [ready.popleft() for _ in range(min(size, len(ready)))]
                last = ended and not ready
                changed.notify_all()
            if batch or not last:
                yield batch
            if last:
                break
        if failure:
            raise failure[0]
    finally:
        with changed:
            closed = True
            changed.notify_all()


def batched(
    items: Iterable[T | Flush],
    size: Callable[[], int],
    *,
    weight: Callable[[T], int] = lambda _: 1,
    max_length: int = sys.maxsize,
    seconds: float = math.inf,
) -> Iterator[list[T] | Flush]:
    """Yield lists of items, each as soon as the sum of its weights is `size()`.

    A list is shorter if it has `max_length` items, if an item comes `seconds` after its first one,
    and before `FLUSH` and the end.
    """
    batch: list[T] = []
    total, since = 0, 0.0
    for item in items:
        if item is FLUSH:
            if batch:
                yield batch
            yield FLUSH
            batch, total = [], 0
            continue
        if not batch:
            since = time.monotonic()
        batch.append(item)
        total += weight(item)
        late = time.monotonic() - since >= seconds
        if late or total >= size() or len(batch) >= max_length:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch


def flush_when_slow(items: Iterable[T | None], seconds: float) -> Iterator[T | Flush]:
    """Yield the items, and replace a None by `FLUSH` once the waits for items add up to `seconds`.

    The time that later stages take does not count: while they are busy, nothing is held back.
    """
    waited, since = 0.0, time.monotonic()
    for item in items:
        waited += time.monotonic() - since
        if item is not None:
            yield item
        if waited >= seconds:
            yield FLUSH
            waited = 0.0
        since = time.monotonic()


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
    """Yield the results of a pool in the order of the items, of which `ahead` are in progress."""
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


def prefetch(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    """Yield the same items, which a thread produces at most `depth` items ahead.

    An error of the producer is raised here. When the consumer stops early, so does the producer, at
    its next item.
    """
    ready: queue.Queue[object] = queue.Queue(maxsize=depth)
    closed = threading.Event()
    failure: list[BaseException] = []

    def offer(item: object) -> bool:
        while not closed.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return True
        return False

    def produce() -> None:
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

    # A daemon: a consumer that is interrupted must not wait for a batch in progress.
    producer = threading.Thread(target=produce, name="imgsearch-stage", daemon=True)
    producer.start()
    try:
        while (item := ready.get()) is not _END:
            yield item  # type: ignore[misc]
        if failure:
            raise failure[0]
    finally:
        closed.set()
        producer.join()
