"""Ctrl-C in commands that finish what is in flight; a second one stops immediately."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

import typer

from imgsearch.cli.console import Display
from imgsearch.cli.remedies import message
from imgsearch.errors import ImgsearchError
from imgsearch.system.interrupts import INTERRUPTED, end_now

__all__ = ["INTERRUPTED", "stop_on_signal"]

_FINISHING = "finishing what is in flight; once more stops now"
_SECONDS_TO_SPEAK = 1.0


@contextlib.contextmanager
def stop_on_signal(stop: threading.Event, display: Display) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) sets `stop`, the second ends the process.

    After the first, the command exits with `INTERRUPTED`, whether it fails or finishes.
    """

    def handle(_number: int, _frame: Any) -> None:
        if stop.is_set():
            # Threads may be deep in a model or a decoder; what is in the store is whole anyway.
            end_now()
        stop.set()
        # By another thread: this one may have been interrupted while it printed, or while it
        # loaded what printing needs.
        speaker = threading.Thread(target=display.say, args=(_FINISHING,), daemon=True)
        speaker.start()
        speakers.append(speaker)

    speakers: list[threading.Thread] = []
    signals = [signal.SIGINT, signal.SIGTERM]
    before = [signal.signal(number, handle) for number in signals]
    try:
        yield
    except ImgsearchError as error:
        if not stop.is_set():
            raise
        display.say(message(error))
        raise typer.Exit(INTERRUPTED) from error
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
        for speaker in speakers:
            speaker.join(_SECONDS_TO_SPEAK)
