"""What the user sees: consoles, safe text, and progress while the core works."""

import sys
import threading
import time
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from imgsearch.events import Counted, Event, Note, Outcome, Stage, Transfer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

# Where there is no terminal for a bar, a line this often, in seconds.
_LINE_SECONDS = 30.0


def stderr() -> "Console":
    from rich.console import Console

    return Console(stderr=True, emoji=False)


def stdout() -> "Console":
    """As wide as need be where nobody looks, so that a script gets whole paths."""
    from rich.console import Console

    console = Console(emoji=False)
    return console if console.is_terminal else Console(width=10_000, emoji=False)


def printable(text: str) -> str:
    """`text` with whatever could disturb a terminal, as file names may, written as escapes."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def print_json(value: Any) -> None:
    import json

    sys.stdout.write(json.dumps(value, indent=2) + "\n")


class Display:
    """Listens to the core: a bar on a terminal, a line now and then elsewhere, or nothing."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._started_progress: Progress | None = None
        self._starting = threading.Lock()
        self._task: TaskID | None = None
        self._transfer: TaskID | None = None
        self._done = 0
        self._rejected = 0
        self._total: int | None = None
        self._started = self._last_line = time.monotonic()

    @cached_property
    def _console(self) -> "Console":
        """Made when there is something to show: until then Rich is not loaded."""
        return stderr()

    @property
    def shows_bar(self) -> bool:
        return not self._quiet and self._console.is_terminal

    @property
    def _progress(self) -> "Progress | None":
        if not self.shows_bar:
            return None
        with self._starting:  # the core reports from several threads
            if self._started_progress is None:
                self._started_progress = _new_progress(self._console)
                self._started_progress.start()
        return self._started_progress

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._started_progress:
            self._started_progress.stop()

    def say(self, text: str) -> None:
        if self._quiet:
            return
        try:
            # The progress's own console prints above the bar.
            self._console.print(printable(text), markup=False, highlight=False, soft_wrap=True)
        except OSError:  # a log on a full disk, or a reader that has gone: the work goes on
            self._quiet = True

    def __call__(self, event: Event) -> None:
        match event:
            case Note(text):
                self.say(text)
            case Stage(text):
                self._stage(text)
            case Counted(total):
                self._total = total
                self._show()
            case Outcome(status=status):
                # A record's removal is no step on the way through the files.
                if status != "removed":
                    self._done += 1
                    self._rejected += status == "rejected"
                    self._show()
            case Transfer(name, done, total):
                self._show_transfer(name, done, total)

    def _show(self) -> None:
        rate = self._done / max(time.monotonic() - self._started, 1e-3)
        text = f"{self._done:,}"
        text += f"/{self._total:,}" if self._total else ""
        text += f"  {rate:,.0f}/s"
        text += f"  {self._rejected:,} rejected" if self._rejected else ""
        if self._progress:
            if self._task is None:
                self._task = self._progress.add_task("pictures", total=None, text="")
            self._progress.update(self._task, completed=self._done, total=self._total, text=text)
        elif time.monotonic() - self._last_line > _LINE_SECONDS:
            self._last_line = time.monotonic()
            self.say(text)

    def _stage(self, text: str) -> None:
        if self._progress:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task = self._progress.add_task(text, total=None, text="")
        else:
            self.say(text)

    def _show_transfer(self, name: str, done: int, total: int | None) -> None:
        if self._progress:
            if self._transfer is None:
                self._transfer = self._progress.add_task(f"downloading {name}", text="")
            megabytes = f"{done / 1e6:.1f} MB" + (f" of {total / 1e6:.1f}" if total else "")
            self._progress.update(self._transfer, completed=done, total=total, text=megabytes)
            if done == total:
                self._progress.remove_task(self._transfer)
                self._transfer = None
        elif done == 0:
            size = f" ({total / 1e6:.1f} MB)" if total else ""
            self.say(f"downloading {name}{size}")


def _new_progress(console: "Console") -> "Progress":
    from rich import progress

    return progress.Progress(
        progress.SpinnerColumn(),
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TextColumn("{task.fields[text]}"),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        console=console,
        transient=True,
    )
