"""The stopwatch adds up the time of each stage over all threads; the report names the limit."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from imgsearch.ingest import IngestReport
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


@pytest.mark.parametrize(
    ("busy", "limit"),
    [
        ({"scan": 1, "encode": 15, "index": 0}, "encode"),
        ({"scan": 1, "encode": 10, "index": 9}, "encode"),  # 11 s precede the index
        ({"scan": 4, "encode": 8, "index": 11}, "index"),
        ({"scan": 9, "encode": 8, "index": 1}, None),  # they share the processor
        ({}, None),
    ],
)
def test_the_limit_is_the_stage_for_which_the_others_wait(
    busy: dict[str, float], limit: str | None
) -> None:
    report = IngestReport("images", "store", seconds=22, preparing=2, busy=busy)
    assert report.limit == limit
