"""Show events as tqdm's progress bars, in a terminal or in a notebook."""

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, Self

from imgsearch.events import Counted, Event, Outcome, Stage, Status, Transfer

_SHOWN: tuple[Status, ...] = ("indexed", "reused", "answered", "exported", "skipped", "rejected")


class ProgressBars:
    """A listener that draws one bar for images or for a later stage, and one for a download.

    `new_bar` is a class of tqdm's. Leaving the context removes the bars.
    """

    def __init__(self, new_bar: Callable[..., Any]) -> None:
        self._new_bar = new_bar
        self._bar: Any = None
        self._download: Any = None
        self._total: int | None = None
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()  # the core reports from several threads

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            self._bar = self._closed(self._bar)
            self._download = self._closed(self._download)

    def __call__(self, event: Event) -> None:
        with self._lock:
            match event:
                case Counted(total):
                    self._total = total
                    self._images().total = total
                    self._bar.refresh()
                case Outcome(status=status) if status != "removed":
                    self._count(status)
                case Stage(text):
                    self._closed(self._bar)
                    self._bar = self._new_bar(desc=text, bar_format="{desc}", leave=False)
                    self._counts.clear()
                    self._total = None
                case Transfer():
                    self._transfer(event)

    def _images(self) -> Any:
        if self._bar is None or self._bar.unit != " images":
            self._closed(self._bar)
            self._bar = self._new_bar(
                desc="images",
                unit=" images",
                total=self._total,
                miniters=1,
                leave=False,
            )
        return self._bar

    def _count(self, status: Status) -> None:
        bar = self._images()
        self._counts[status] += 1
        shown = (f"{self._counts[each]:,} {each}" for each in _SHOWN if self._counts[each])
        bar.set_postfix_str(", ".join(shown), refresh=False)
        bar.update()

    def _transfer(self, transfer: Transfer) -> None:
        if self._download is None:
            self._download = self._new_bar(
                desc=transfer.name,
                unit="B",
                unit_scale=True,
                total=transfer.total,
                miniters=1,
                leave=False,
            )
        self._download.update(transfer.done - self._download.n)
        if transfer.done == transfer.total:
            self._download = self._closed(self._download)

    @staticmethod
    def _closed(bar: Any) -> None:
        if bar is not None:
            bar.refresh()  # tqdm draws at most ten times a second
            bar.close()
