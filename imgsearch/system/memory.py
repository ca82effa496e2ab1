"""A memory budget shared by all threads of a process, so that large images cannot exhaust it."""

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
# Bytes of files that are read and wait to be decoded.
_MOST_READ_AHEAD = 256 << 20
# Leases of at least this size return their memory to the system when they end.
_WORTH_TRIMMING = 64 << 20
# The share of all memory that one image may take; the rest is for the model, the store and Python.
_SHARE_OF_ONE_IMAGE = 0.75


class Budget:
    """A limit on bytes in use. Threads wait in order (FIFO) until enough bytes are free."""

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
    def acquire(self, size: int) -> Iterator[None]:
        """Wait for `size` bytes and release them at the end of the context.

        A request of more than the total waits until nothing else is in use.
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
            self.release(size)

    def try_acquire(self, size: int) -> bool:
        """Acquire `size` bytes without waiting. Returns whether they were free."""
        with self._changed:
            free = not self._queue and self._used + size <= self.total
            self._used += size * free
            return free

    def release(self, size: int) -> None:
        """Release bytes that `try_acquire` has granted."""
        with self._changed:
            self._used -= size
            self._changed.notify_all()

    def _fits(self, size: int) -> bool:
        return self._used == 0 or self._used + size <= self.total


class Lease:
    """Bytes of `decoding_budget()` that are acquired once their number is known."""

    def __init__(self) -> None:
        self._held = contextlib.ExitStack()

    def take(self, size: int) -> None:
        """Wait for `size` bytes. Once per lease: waiting while holding bytes can deadlock."""
        self._held.enter_context(decoding_budget().acquire(size))
        if size >= _WORTH_TRIMMING:
            self._held.callback(_trim)

    def end(self) -> None:
        self._held.close()


@contextlib.contextmanager
def lease() -> Iterator[Lease]:
    """Yield a lease and end it afterwards. Nothing large may be referenced by then."""
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
    """Return freed memory to the system.

    glibc caches freed blocks of up to 32 MB, Pillow's among them, in an arena per thread.
    """
    _malloc_trim()(0)


@cache
def decoding_budget() -> Budget:
    """Return the budget for all images that this process decodes."""
    return Budget(min(_MOST_DECODING, available() // 2))


def read_ahead_budget() -> Budget:
    """Return a new budget for the files of one run that wait to be decoded."""
    return Budget(min(_MOST_READ_AHEAD, available() // 8))


def most_for_one_image() -> int:
    """Return the bytes that decoding one image may take."""
    return int(available() * _SHARE_OF_ONE_IMAGE)


@cache
def available() -> int:
    """Return the bytes that this process may use: the least of machine, container and rlimit."""
    return min(_physical(), _address_space(), _container())


def _physical() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows: `_MOST_DECODING` is the only limit
        return sys.maxsize


def _address_space() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return sys.maxsize
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def _container(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Return the memory limit of this process's control groups (cgroups v1 and v2)."""
    named = (group for name in control_groups("memory", own) for group in (name, *name.parents))
    return min((_limit_of(groups / group) for group in named), default=sys.maxsize)


def _limit_of(group: Path) -> int:
    for name in ("memory.max", "memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # no such group here, or "max"
            return int((group / name).read_text())
    return sys.maxsize
