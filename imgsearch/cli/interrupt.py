"""Ctrl-C: once finishes what is in flight, twice stops now."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

from imgsearch.cli.console import Display

INTERRUPTED = 130
"""The exit code."""


@contextlib.contextmanager
def stop_on_signal(stop: threading.Event, display: Display) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) sets `stop`, the second ends the process."""

    def handle(_number: int, _frame: Any) -> None:
        if stop.is_set():
            # Threads may be deep in a model or a decoder; what is in the store is whole anyway.
            os._exit(INTERRUPTED)
        stop.set()
        display.say("finishing what is in flight; once more stops now")

    signals = [signal.SIGINT, signal.SIGTERM]
    before = [signal.signal(number, handle) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
