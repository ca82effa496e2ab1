"""What changes in folders, by watchfiles, which uses the events of the operating system.

Events are hints: a full queue of the kernel loses some without a word (watchfiles #348), and files
that are made in a new folder at once have none. So a folder is reported as lost, to be scanned
again, whenever events may be missing.
"""

import contextlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from imgsearch.errors import SourceError

# The kernel queues 16,384 events by default. With half as many changes at once, some may be lost.
MANY = 8192
_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Batch:
    """Paths that were added, changed or removed, and folders whose events may be incomplete.

    `missing` are the watched folders that are not there.
    """

    paths: set[str] = field(default_factory=set)
    lost: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


class Changes:
    """Iterates over batches, several times a second, also if nothing has changed.

    Events are collected from the first moment on, also between two batches.
    """

    def __init__(self, folders: Sequence[str]) -> None:
        """Start to watch folders. Raises SourceError if the system does not allow that."""
        self._folders = tuple(folders)
        self._open()

    def _open(self) -> None:
        import watchfiles  # takes 30 ms

        self._identities = {folder: _identity(folder) for folder in self._folders}
        there = [folder for folder, identity in self._identities.items() if identity]
        self._events: Iterator[set[tuple[watchfiles.Change, str]]] | None = None
        self._first: set[tuple[watchfiles.Change, str]] = set()
        if not there:
            return
        self._events = watchfiles.watch(
            *there,
            watch_filter=None,
            debounce=200,
            rust_timeout=int(1000 * _POLL_SECONDS),
            yield_on_timeout=True,
            raise_interrupt=False,
            ignore_permission_denied=True,
        )
        try:
            self._first = next(self._events, set())  # only now it watches
        except (OSError, RuntimeError) as error:
            self._events = None
            raise SourceError(
                f"{', '.join(there)}: cannot be watched: {error} (on Linux, "
                "fs.inotify.max_user_watches limits the number of folders)"
            ) from error

    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield self._next()

    def _next(self) -> Batch:
        paths = {path for _, path in self._first}
        self._first = set()
        lost: set[str] = set()
        if self._events is None:
            time.sleep(_POLL_SECONDS)
        else:
            try:
                paths |= {path for _, path in next(self._events, ())}
            except (OSError, RuntimeError):  # such as a name that is not Unicode
                lost.update(self._folders)
        now = {folder: _identity(folder) for folder in self._folders}
        if len(paths) >= MANY:
            lost.update(self._folders)
        lost.update(folder for folder, each in now.items() if each != self._identities[folder])
        if lost or (self._events is None and any(now.values())):
            self.close()
            with contextlib.suppress(SourceError):
                self._open()
        missing = tuple(folder for folder, each in now.items() if each is None)
        return Batch(paths, tuple(each for each in lost if each not in missing), missing)

    def close(self) -> None:
        """Stop watching."""
        if self._events is not None:
            self._events.close()  # type: ignore[attr-defined]
            self._events = None


def _identity(folder: str) -> tuple[int, int, frozenset[str]] | None:
    """Return what changes when a file system is mounted at or below a folder; None if missing."""
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino, mounts_below(folder)


def mounts_below(folder: str) -> frozenset[str]:
    """Return the folders below a folder at which file systems are mounted, where Linux tells."""
    try:
        with open("/proc/self/mountinfo", "rb") as lines:
            places = [line.split(b" ")[4] for line in lines]
    except (OSError, IndexError):
        return frozenset()
    prefix = os.path.join(folder, "")
    # Spaces, for example, are in octal.
    found = (os.fsdecode(re.sub(rb"\\([0-7]{3})", _octal, place)) for place in places)
    return frozenset(each for each in found if each.startswith(prefix))


def _octal(match: "re.Match[bytes]") -> bytes:
    return bytes([int(match[1], 8)])
