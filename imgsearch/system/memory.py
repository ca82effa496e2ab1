"""Memory that a process shares out among its threads, so that many large images do not end it."""

import contextlib
import ctypes
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from imgsearch.config import control_groups

# Enough to keep 16 cores busy with photographs of 24 megapixels. With a model, a store and one
# image of the default pixel limit, a process stays below 2 GB.
_MOST_DECODING = 1 << 30
# Bytes of files that were read ahead and wait to be decoded.
_MOST_READ_AHEAD = 256 << 20
# From so much on, memory goes back to the system at once.
_WORTH_TRIMMING = 64 << 20
# What one image may take of all memory; the rest is for the model, the store and Python itself.
_SHARE_OF_ONE_IMAGE = 0.75


class Budget:
    """Bytes that may be in use at once. Threads that need more than is free wait, in order."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._used = 0
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()

    @property
    def used(self) -> int:
        """The bytes in use."""
        return self._used

    @contextlib.contextmanager
    def held(self, size: int) -> Iterator[None]:
        """Have `size` bytes as soon as they are free. Whoever needs more than the total waits to
        be alone.
        """
        place = object()
        with self._changed:
            self._queue.append(place)
            try:
                self._changed.wait_for(lambda: self._queue[0] is place and self._fits(size))
                self._used += size
            finally:
                self._queue.remove(place)
                self._changed.notify_all()
        try:
            yield
        finally:
            self.give_back(size)

    def take(self, size: int) -> bool:
        """Have `size` bytes until `give_back`, if they are free now. Returns whether they were."""
        with self._changed:
            free = not self._queue and self._used + size <= self.total
            self._used += size * free
            return free

    def give_back(self, size: int) -> None:
        """End the use of bytes that `take` granted."""
        with self._changed:
            self._used -= size
            self._changed.notify_all()

    def _fits(self, size: int) -> bool:
        return self._used == 0 or self._used + size <= self.total


class Lease:
    """Memory of `decoding()` that is taken once its size is known, and given back at the end."""

    def __init__(self) -> None:
        self._held = contextlib.ExitStack()

    def take(self, size: int) -> None:
        """Wait for `size` bytes. Once for each lease: who has some must not wait for more."""
        self._held.enter_context(decoding().held(size))
        if size >= _WORTH_TRIMMING:
            self._held.callback(_trim)

    def end(self) -> None:
        self._held.close()


@contextlib.contextmanager
def lease() -> Iterator[Lease]:
    """What is taken inside is given back at the end: nothing big may be referred to by then."""
    own = Lease()
    try:
        yield own
    finally:
        own.end()


@cache
def _malloc_trim() -> Callable[[int], int]:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # no glibc
        return lambda _: 0


def _trim() -> None:
    """Hand freed memory back to the system.

    glibc keeps blocks of up to 32 MB, Pillow's among them, for each thread that has used some.
    """
    _malloc_trim()(0)


@cache
def decoding() -> Budget:
    """For all images that are being decoded in this process, whoever asked for them."""
    return Budget(min(_MOST_DECODING, available() // 2))


def read_ahead_budget() -> Budget:
    """A new one, for the files of one run that wait in memory to be decoded."""
    return Budget(min(_MOST_READ_AHEAD, available() // 8))


def most_for_one_image() -> int:
    """The bytes that the decoding of one image may take."""
    return int(available() * _SHARE_OF_ONE_IMAGE)


@cache
def available() -> int:
    """The bytes that this process may use: the machine's, or what a container or a limit leaves."""
    return min(_physical(), _address_space(), _container())


def _physical() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows, where `_MOST_DECODING` has to do
        return sys.maxsize


def _address_space() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return sys.maxsize
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def _container(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """What Linux lets this process have, of versions 1 and 2 of cgroups."""
    named = (group for name in control_groups("memory", own) for group in (name, *name.parents))
    return min((_limit_of(groups / group) for group in named), default=sys.maxsize)


def _limit_of(group: Path) -> int:
    for name in ("memory.max", "memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # no such group here, or "max"
            return int((group / name).read_text())
    return sys.maxsize
