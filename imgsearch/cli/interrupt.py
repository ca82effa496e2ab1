"""Handle Ctrl-C: the first finishes what is in flight, the second ends the process."""

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

_FINISHING = "finishing what is in flight; press Ctrl-C again to stop now"
_SECONDS_TO_PRINT = 1.0


@contextlib.contextmanager
def stop_on_signal(stop: threading.Event, display: Display) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) sets `stop`, the second ends the process.

    After the first, the command exits with `INTERRUPTED`, whether it fails or finishes.
    """

    def handle(_number: int, _frame: Any) -> None:
        if stop.is_set():
            # Threads in a model or a decoder cannot be stopped. Writes to the store are atomic.
            end_now()
        stop.set()
        # In another thread, as this one may have been interrupted while it was printing.
        printer = threading.Thread(target=display.say, args=(_FINISHING,), daemon=True)
        printer.start()
        printers.append(printer)

    printers: list[threading.Thread] = []
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
        for printer in printers:
            printer.join(_SECONDS_TO_PRINT)
