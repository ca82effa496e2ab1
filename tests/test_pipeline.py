"""Tools for pipelines of generators."""

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from imgsearch.system.pipeline import FLUSH, Flush, batched, map_ahead, prefetch, timed_batches


def test_map_ahead_preserves_the_order() -> None:
    def slow_first(number: int) -> int:
        time.sleep(0.02 if number % 3 == 0 else 0)
        return number

    with ThreadPoolExecutor(4) as pool:
        assert list(map_ahead(pool, slow_first, range(30), 5)) == list(range(30))


def test_map_ahead_bounds_the_items_in_progress() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    with ThreadPoolExecutor(2) as pool:
        results = map_ahead(pool, lambda number: number, items(), 7)
        next(results)
        assert len(taken) <= 8


def test_map_ahead_raises_the_error_of_the_function() -> None:
    with ThreadPoolExecutor(2) as pool, pytest.raises(ZeroDivisionError):
        list(map_ahead(pool, lambda number: 1 // number, [1, 0, 1], 2))


def test_prefetch_yields_the_same_items() -> None:
    assert list(prefetch(iter(range(1000)), 3)) == list(range(1000))
    assert list(prefetch((), 3)) == []


def test_prefetch_works_ahead_up_to_its_depth() -> None:
    produced: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            produced.append(number)
            yield number

    ahead = prefetch(items(), 3)
    assert next(ahead) == 0
    deadline = time.monotonic() + 60
    while len(produced) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(produced) == 5  # one consumed, three ready, one waiting for room
    ahead.close()


def test_prefetch_raises_the_error_of_the_producer_after_its_items() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("broken")

    ahead = prefetch(items(), 3)
    assert next(ahead) == 1
    with pytest.raises(KeyError, match="broken"):
        next(ahead)


def test_a_consumer_that_stops_ends_the_producer() -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    ahead = prefetch(items(), 2)
    next(ahead)
    ahead.close()
    assert closed.wait(60)
    assert not any(thread.name == "imgsearch-stage" for thread in threading.enumerate())


def test_timed_batches_are_full_except_for_the_last() -> None:
    assert [len(part) for part in timed_batches(range(25), 10, 60)] == [10, 10, 5]
    assert list(itertools.chain.from_iterable(timed_batches(range(25), 10, 60))) == list(range(25))


def test_timed_batches_yield_partial_lists_while_the_producer_blocks() -> None:
    blocked = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        blocked.wait(60)

    parts = timed_batches(items(), 10, 0.01)
    seen = list(itertools.islice(itertools.takewhile(lambda part: part != [1], parts), 1000))
    assert all(part == [] for part in seen)
    assert next(parts) == []
    parts.close()  # without waiting for the producer's current item
    blocked.set()


def test_timed_batches_work_at_most_one_list_ahead() -> None:
    produced: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            produced.append(number)
            yield number

    parts = timed_batches(items(), 5, 60)
    assert next(parts) == [0, 1, 2, 3, 4]
    parts.close()
    assert len(produced) <= 16


def test_timed_batches_raise_the_error_of_the_producer_after_its_items() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("broken")

    parts = timed_batches(items(), 10, 60)
    assert next(parts) == [1]
    with pytest.raises(KeyError, match="broken"):
        next(parts)


def test_timed_batches_measure_the_producer_and_not_the_consumer() -> None:
    seconds: list[float] = []
    assert list(timed_batches(range(3), 2, 60, seconds.append)) == [[0, 1], [2]]
    assert seconds
    assert all(each >= 0 for each in seconds)


def test_a_flush_yields_the_items_in_progress() -> None:
    met: list[int] = []

    def items() -> Iterator[int | Flush]:
        yield from range(3)
        yield FLUSH
        met.append(3)
        yield 3

    with ThreadPoolExecutor(2) as pool:
        results = map_ahead(pool, lambda number: number, items(), 100)
        assert list(itertools.islice(results, 4)) == [0, 1, 2, FLUSH]
        assert met == []
        assert list(results) == [3]


def test_a_batch_ends_when_its_first_item_has_waited_long() -> None:
    assert list(batched(range(4), lambda: 3, seconds=60)) == [[0, 1, 2], [3]]
    assert list(batched(range(3), lambda: 3, seconds=0)) == [[0], [1], [2]]
