"""While sources yield nothing new, results are written, and an error or a stop ends the run."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from imgsearch import sources
from imgsearch.encoders.base import Vectors
from imgsearch.errors import EncoderError, StoreError
from imgsearch.events import Event, Outcome
from imgsearch.ingest import IngestOptions, IngestReport, ingest, limits
from imgsearch.stores import VectorStore, open_store
from tests.conftest import Painter
from tests.fakes import ColorEncoder

# Seconds in which a run must react; generous, because the machine may be busy.
SOON = 60.0


class _Background:
    """A run in a thread, so that a test can observe it and has a deadline."""

    def __init__(self, run: Callable[[], IngestReport]) -> None:
        self.report: IngestReport | None = None
        self.error: BaseException | None = None
        self._run = run
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            self.report = self._run()
        except BaseException as error:
            self.error = error

    def ended(self) -> bool:
        self._thread.join(SOON)
        return not self._thread.is_alive()


Start = Callable[..., _Background]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[VectorStore]:
    with open_store(str(tmp_path / "store")) as opened:
        yield opened


@pytest.fixture
def start(store: VectorStore) -> Start:
    def begin(names: Iterable[str], stdin: Iterable[str] = (), **more: Any) -> _Background:
        encoder = more.pop("encoder", ColorEncoder())
        options = IngestOptions(batch_size=8, workers=2)
        return _Background(
            lambda: ingest(
                list(names),
                store,
                "images",
                options=options,
                stdin=stdin,
                encoder_opener=encoder.open,
                **more,
            )
        )

    return begin


@pytest.fixture
def over() -> Iterator[threading.Event]:
    """Set at the end, so that the run of a failing test ends, too."""
    event = threading.Event()
    yield event
    event.set()


def _full(*_: object) -> dict[str, str]:
    raise StoreError("the disk is full")


@pytest.mark.parametrize("repeated", [True, False], ids=["unchanged files", "names met before"])
def test_a_write_error_ends_a_run_with_an_endless_walk(
    start: Start,
    paint: Painter,
    over: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
    repeated: bool,
) -> None:
    known = str(paint("known.png", 1))
    assert start([known]).ended()
    real = sources.scan

    def scan(*given: Any) -> Iterator[Any]:
        yield from real(*given)
        (candidate,) = real(sources.resolve([known]), sources.ScanLog())
        while not over.is_set():
            yield candidate

    def names() -> Iterator[str]:
        for number in range(40):
            yield str(paint(f"new/{number}.png", 10 + number))
        while not (repeated or over.is_set()):
            yield known

    if repeated:
        monkeypatch.setattr("imgsearch.ingest.run.scan", scan)
    monkeypatch.setattr("imgsearch.stores.lance.collection.LanceCollection.upsert", _full)
    run = start(["-"], names())
    assert run.ended()
    assert isinstance(run.error, StoreError)


def test_an_encoder_error_ends_a_run_with_an_open_list(
    start: Start, paint: Painter, over: threading.Event
) -> None:
    class Broken(ColorEncoder):
        concurrency = 4

        def encode(self, pixels: Any) -> Vectors:
            raise EncoderError("the device is gone")

    def names() -> Iterator[str]:
        yield str(paint("new.png", 1))
        over.wait(4 * SOON)

    run = start(["-"], names(), encoder=Broken())
    assert run.ended()
    assert isinstance(run.error, EncoderError)


def test_results_are_written_while_the_list_stays_open(
    start: Start, store: VectorStore, paint: Painter, over: threading.Event
) -> None:
    events: queue.Queue[Outcome] = queue.Queue()

    def listen(event: Event) -> None:
        if isinstance(event, Outcome):
            events.put(event)

    def names() -> Iterator[str]:
        for number in range(11):  # not a whole batch, the second time
            yield str(paint(f"{number}.png", number))
        over.wait(4 * SOON)

    run = start(["-"], names(), listener=listen)
    outcomes = [events.get(timeout=SOON) for _ in range(11)]
    assert {outcome.status for outcome in outcomes} == {"indexed"}
    assert store.open("images").count() == 11
    over.set()
    assert run.ended()
    assert run.report
    assert run.report.found == 11


def test_a_stop_ends_a_run_with_an_open_list(
    start: Start, store: VectorStore, paint: Painter, over: threading.Event
) -> None:
    stop, waiting = threading.Event(), threading.Event()

    def names() -> Iterator[str]:
        yield str(paint("a.png", 1))
        waiting.set()
        over.wait(4 * SOON)

    run = start(["-"], names(), stop=stop)
    assert waiting.wait(SOON)
    stop.set()
    assert run.ended()
    assert run.report
    assert run.report.interrupted
    records = store.open("images").count() if "images" in store.names() else 0
    assert run.report.indexed == run.report.found == records


def test_slowly_arriving_files_are_written_before_a_batch_is_full(
    start: Start,
    paint: Painter,
    over: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "WRITE_SECONDS", 0.2)
    monkeypatch.setattr(limits, "ALERT_SECONDS", 0.05)
    events: queue.Queue[Event] = queue.Queue()

    def names() -> Iterator[str]:
        for number in range(4):  # each follows once the one before is written
            yield str(paint(f"{number}.png", number))
            events.get(timeout=SOON)

    run = start(["-"], names(), listener=events.put)
    assert run.ended()
    assert run.report
    assert run.report.indexed == 4
