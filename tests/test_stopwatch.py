"""The stopwatch adds up the time of each stage over all threads."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from imgsearch.ingest.stopwatch import Stopwatch


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that tests advance."""
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    return now


def test_work_is_added_up_by_stage(clock: list[float]) -> None:
    watch = Stopwatch(["read", "write"])
    for seconds in (1, 2):
        with watch("read"):
            clock[0] += seconds
        clock[0] += 10  # outside of all stages
    assert watch.seconds({}) == {"read": 3.0, "write": 0.0}
    assert watch.seconds({"read": 2}) == {"read": 1.5, "write": 0.0}


def test_failed_work_is_counted(clock: list[float]) -> None:
    watch = Stopwatch(["read"])

    def fail() -> None:
        with watch("read"):
            clock[0] += 4
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        fail()
    assert watch.seconds({}) == {"read": 4.0}


def test_threads_are_added_up() -> None:
    watch = Stopwatch(["decode"])

    def work(_: int) -> None:
        with watch("decode"):
            pass

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(100)))
    assert watch.seconds({})["decode"] > 0
