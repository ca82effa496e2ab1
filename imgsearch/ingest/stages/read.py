"""Read files once: their fingerprint, and their bytes while memory allows."""

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Self

from imgsearch import images
from imgsearch.errors import SourceError
from imgsearch.images import Fingerprint
from imgsearch.ingest import limits
from imgsearch.ingest.items import Item, rejection_reason
from imgsearch.ingest.stopwatch import Stopwatch
from imgsearch.objects import AwayError
from imgsearch.sources import Sources
from imgsearch.system import memory
from imgsearch.uris import MemberUrl, ObjectUrl


class ReadAhead:
    """Bounds the bytes of files that are read and not decoded yet."""

    def __init__(self) -> None:
        self._budget = memory.read_ahead_budget()

    def limit(self, fingerprint: Fingerprint) -> Fingerprint:
        """Drop the file's bytes if the budget is exhausted; the file is then read again."""
        if fingerprint.data is None or self._budget.try_acquire(len(fingerprint.data)):
            return fingerprint
        return replace(fingerprint, data=None)

    def release(self, item: Item) -> None:
        """Drop an item's bytes and return them to the budget."""
        if item.fingerprint and item.fingerprint.data is not None:
            self._budget.release(len(item.fingerprint.data))
            item.fingerprint = replace(item.fingerprint, data=None)


class Outage:
    """Ends a run whose object store is away, rather than to reject what is there.

    That is the case once `limits.AWAY_READS` reads of objects in a row have failed for want of an
    answer, each after its retries.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failed = 0

    def succeeded(self) -> None:
        self._failed = 0

    def failed(self, path: str, error: Exception) -> None:
        """Count a failure. Raises SourceError if it is one too many."""
        if not isinstance(error.__cause__, AwayError):
            return
        with self._lock:
            self._failed += 1
            count = self._failed
        if count >= limits.AWAY_READS:
            raise SourceError(
                f"{path}: {error}; the last {count:,} images could not be read either. Is the "
                "object store away? What was indexed is kept, and the next run continues"
            )


class Read:
    """Reads and fingerprints a file. Threads may call it at the same time."""

    def __init__(self, read_ahead: ReadAhead, stopwatch: Stopwatch) -> None:
        self._read_ahead = read_ahead
        self._stopwatch = stopwatch
        self._outage = Outage()

    def __call__(self, item: Item) -> Item:
        if not item.finished:
            with self._stopwatch("read"):
                try:
                    fingerprint = images.fingerprint(item.candidate.path)
                    item.fingerprint = self._read_ahead.limit(fingerprint)
                    self._outage.succeeded()
                except Exception as error:
                    self._outage.failed(item.candidate.path, error)
                    item.reject(rejection_reason(error))
        return item


def reads_ahead(sources: Sources, least: int) -> int:
    """Return how many reads to have in progress: enough for all threads that read objects."""
    return max(least, limits.OBJECT_READS) if sources.may_have_objects else least


class ReadPool(Executor):
    """Reads files by the threads of a pool, and objects, which keep a thread waiting, by more."""

    def __init__(self, files: Executor) -> None:
        self._files = files
        self._cleanup = ExitStack()
        self._objects: Executor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit a call whose first argument is an item."""
        if not _is_remote(args[0].candidate.path):
            return self._files.submit(function, *args, **kwargs)
        if self._objects is None:
            self._objects = self._cleanup.enter_context(
                ThreadPoolExecutor(limits.OBJECT_READS, "imgsearch-object")
            )
        return self._objects.submit(function, *args, **kwargs)


def _is_remote(path: str) -> bool:
    member = MemberUrl.parse(path)
    return member.is_remote if member else ObjectUrl.parse(path) is not None
