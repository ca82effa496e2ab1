"""What the user sees: consoles, safe text, and progress while the core works."""

import contextlib
import os
import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from imgsearch.events import Counted, Event, Note, Outcome, Stage, Transfer

if TYPE_CHECKING:
    from rich.console import Console

    from imgsearch.progress import ProgressBars

# Where there is no terminal for a bar, a line this often, in seconds.
_LINE_SECONDS = 30.0


def stderr() -> "Console":
    from rich.console import Console

    return Console(stderr=True, emoji=False)


def stdout() -> "Console":
    """Return a console that, outside a terminal, wraps no lines: scripts get whole paths."""
    from rich.console import Console

    console = Console(emoji=False)
    return console if console.is_terminal else Console(width=10_000, emoji=False)


def printable(text: str) -> str:
    """Return the text with control characters escaped, which file names may contain."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def print_json(value: Any) -> None:
    import json

    sys.stdout.write(json.dumps(value, indent=2) + "\n")


class Display:
    """A listener that shows bars in a terminal, a line now and then elsewhere, or nothing."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self.shows_bar = not quiet and sys.stderr.isatty()
        self._bars: ProgressBars | None = None
        self._lock = threading.Lock()
        self._done = 0
        self._rejected = 0
        self._total: int | None = None
        self._started = self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars:
            self._bars.__exit__(kind, error, trace)

    def say(self, text: str) -> None:
        """Write a line to stderr, above the bars."""
        if self._quiet:
            return
        try:
            with _above(self._bars):
                sys.stderr.write(printable(text) + "\n")
                sys.stderr.flush()
        except OSError:  # a log on a full disk, or a reader that has gone: the work continues
            self._quiet = True

    def __call__(self, event: Event) -> None:
        if isinstance(event, Note):
            self.say(event.text)
        elif self.shows_bar:
            self._shown_bars()(event)
        else:
            self._report(event)

    def _shown_bars(self) -> "ProgressBars":
        with self._lock:  # the core reports from several threads
            if self._bars is None:
                self._bars = _new_bars()
            return self._bars

    def _report(self, event: Event) -> None:
        match event:
            case Stage(text):
                self.say(text)
            case Counted(total):
                self._total = total
            case Outcome(status=status) if status != "removed":
                self._done += 1
                self._rejected += status == "rejected"
                self._report_count()
            case Transfer(name, 0, total):
                size = f" ({total / 1e6:.1f} MB)" if total else ""
                self.say(f"downloading {name}{size}")

    def _report_count(self) -> None:
        if time.monotonic() - self._last_line <= _LINE_SECONDS:
            return
        self._last_line = time.monotonic()
        rate = self._done / max(time.monotonic() - self._started, 1e-3)
        text = f"{self._done:,}"
        text += f"/{self._total:,}" if self._total else ""
        text += f"  {rate:,.0f}/s"
        text += f"  {self._rejected:,} rejected" if self._rejected else ""
        self.say(text)


def _new_bars() -> "ProgressBars":
    """Bars on stderr; tqdm is loaded only when there is something to show."""
    from functools import partial

    from tqdm import tqdm

    from imgsearch.progress import ProgressBars

    # By default tqdm makes a lock for several processes, and a thread that watches the bars.
    tqdm.set_lock(threading.RLock())
    tqdm.monitor_interval = 0
    # A terminal may not know its size, as in a container: tqdm would draw nothing.
    known = os.get_terminal_size(sys.stderr.fileno()).columns > 0
    size = {"dynamic_ncols": True} if known else {"ncols": 80, "nrows": 24}
    return ProgressBars(partial(tqdm, file=sys.stderr, **size))


def _above(bars: "ProgressBars | None") -> contextlib.AbstractContextManager[Any]:
    """A context in which lines may be written to stderr: bars are cleared, then drawn again."""
    if bars is None:
        return contextlib.nullcontext()
    from tqdm import tqdm

    context: contextlib.AbstractContextManager[Any] = tqdm.external_write_mode(file=sys.stderr)
    return context
