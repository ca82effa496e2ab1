"""Output to the terminal: results on stdout, messages and progress on stderr."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

from imgsearch.events import Counted, Event, Listener, Note, Outcome, Stage, Transfer, both
from imgsearch.uris import MemberUrl, readable_path

if TYPE_CHECKING:
    from rich.console import Console

    from imgsearch.progress import ProgressBars

# Seconds between lines of progress, where there is no terminal for a bar.
_LINE_SECONDS = 30.0


@contextlib.contextmanager
def reporting(listener: Listener, report: str | None) -> Iterator[Listener]:
    """Yield a listener that also writes the outcomes, but for skipped ones, to a report."""
    from imgsearch.system.outputs import outcome_report

    if report is None:
        yield listener
        return
    with outcome_report(report) as write:

        def listen(event: Event) -> None:
            if isinstance(event, Outcome) and event.status != "skipped":
                write(event)

        yield both(listen, listener)


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


def short_path(path: str) -> str:
    """Return a path relative to the current directory if it is inside it.

    An image in a shard is `SHARD#NAME`, as it can be given to commands.
    """
    member = MemberUrl.parse(path)
    if member and not member.is_remote:
        path = readable_path(path)
    return path.removeprefix(os.path.join(os.getcwd(), ""))


def print_line(text: str = "", style: str = "", console: "Console | None" = None) -> None:
    """Print a line of a result to stdout. It is not wrapped. Many lines share a `console`."""
    (console or stdout()).print(
        printable(text), style=style, markup=False, highlight=False, soft_wrap=True
    )


def print_json(value: Any) -> None:
    import json

    sys.stdout.write(json.dumps(value, indent=2) + "\n")


class Display:
    """A listener that shows bars in a terminal, or a line every 30 seconds elsewhere."""

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

    def __exit__(self, *_: object) -> None:
        if self._bars:
            self._bars.close()

    def say(self, text: str) -> None:
        """Write a line to stderr, above the bars."""
        if self._quiet:
            return
        try:
            with _above(self._bars):
                sys.stderr.write(printable(text) + "\n")
                sys.stderr.flush()
        except OSError:  # the disk is full, or the reader has gone: the command continues
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
                self._done, self._total, self._started = 0, None, time.monotonic()
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
    """Return bars on stderr. tqdm is imported only when there is something to show."""
    from functools import partial

    from tqdm import tqdm

    from imgsearch.progress import ProgressBars

    # By default, tqdm uses a lock between processes and a monitoring thread.
    tqdm.set_lock(threading.RLock())
    tqdm.monitor_interval = 0
    # The size of a terminal may be unknown, as in a container; tqdm would draw nothing then.
    known = os.get_terminal_size(sys.stderr.fileno()).columns > 0
    size = {"dynamic_ncols": True} if known else {"ncols": 80, "nrows": 24}
    return ProgressBars(partial(tqdm, file=sys.stderr, **size))


def _above(bars: "ProgressBars | None") -> contextlib.AbstractContextManager[Any]:
    """Return a context for writing lines to stderr: it clears the bars, and then redraws them."""
    if bars is None:
        return contextlib.nullcontext()
    from tqdm import tqdm

    context: contextlib.AbstractContextManager[Any] = tqdm.external_write_mode(file=sys.stderr)
    return context
