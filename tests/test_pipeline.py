"""The tools that the pipeline is made of."""

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from imgsearch.system.pipeline import FLUSH, Flush, map_ahead, prefetch, timed_batches


def test_mapping_ahead_keeps_the_order_whatever_takes_longest() -> None:
    def slow_first(number: int) -> int:
        time.sleep(0.02 if number % 3 == 0 else 0)
        return number

    with ThreadPoolExecutor(4) as pool:
        assert list(map_ahead(pool, slow_first, range(30), 5)) == list(range(30))


def test_mapping_takes_no_more_than_so_many_items_ahead() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    with ThreadPoolExecutor(2) as pool:
        results = map_ahead(pool, lambda number: number, items(), 7)
        next(results)
        assert len(taken) <= 8


def test_mapping_raises_what_the_function_raised() -> None:
    with ThreadPoolExecutor(2) as pool, pytest.raises(ZeroDivisionError):
        list(map_ahead(pool, lambda number: 1 // number, [1, 0, 1], 2))


def test_prefetching_gives_the_same_items() -> None:
    assert list(prefetch(iter(range(1000)), 3)) == list(range(1000))
    assert list(prefetch((), 3)) == []


def test_prefetching_works_ahead_but_not_beyond_its_depth() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    ahead = prefetch(items(), 3)
    assert next(ahead) == 0
    deadline = time.monotonic() + 5
    while len(made) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(made) == 5  # one taken, three ready, one waiting for a place
    ahead.close()


def test_prefetching_raises_what_the_maker_raised_after_what_it_made() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("broken")

    ahead = prefetch(items(), 3)
    assert next(ahead) == 1
    with pytest.raises(KeyError, match="broken"):
        next(ahead)


def test_a_reader_that_stops_ends_the_maker_too() -> None:
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
    assert closed.wait(5)
    assert not any(thread.name == "imgsearch-stage" for thread in threading.enumerate())


def test_gathering_makes_full_lists_and_a_rest() -> None:
    assert [len(part) for part in timed_batches(range(25), 10, 60)] == [10, 10, 5]
    assert list(itertools.chain.from_iterable(timed_batches(range(25), 10, 60))) == list(range(25))


def test_gathering_gives_what_there_is_while_the_maker_blocks() -> None:
    blocked = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        blocked.wait(60)

    parts = timed_batches(items(), 10, 0.01)
    seen = list(itertools.islice(itertools.takewhile(lambda part: part != [1], parts), 1000))
    assert all(part == [] for part in seen)
    assert next(parts) == []
    parts.close()  # at once, though the maker is still at its item
    blocked.set()


def test_gathering_goes_no_more_than_a_list_ahead() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    parts = timed_batches(items(), 5, 60)
    assert next(parts) == [0, 1, 2, 3, 4]
    parts.close()
    assert len(made) <= 16


def test_gathering_raises_what_the_maker_raised_after_what_it_made() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("broken")

    parts = timed_batches(items(), 10, 60)
    assert next(parts) == [1]
    with pytest.raises(KeyError, match="broken"):
        next(parts)


def test_gathering_counts_the_time_of_the_maker_and_not_of_its_reader() -> None:
    seconds: list[float] = []
    assert list(timed_batches(range(3), 2, 60, seconds.append)) == [[0, 1], [2]]
    assert seconds
    assert all(each >= 0 for each in seconds)


def test_a_flush_brings_out_what_is_in_the_making() -> None:
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
