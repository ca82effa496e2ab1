"""What readers of a dataset are at work, so that its writer knows which old versions they need.

A reader holds a shared lock of the operating system, which ends with its process, on a file in the
dataset's folder. Readers never wait: the writer only tries the lock, and lets it go at once.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from imgsearch.stores.lance.folders import Work

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows, whose locks are not shared
    fcntl = None


@contextlib.contextmanager
def at_work(folder: Path, work: Work) -> Iterator[None]:
    """Hold the shared lock, unless this system or file system has none."""
    handle = _open(folder / work.value)
    try:
        if fcntl and handle is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        if handle is not None:
            os.close(handle)


def is_at_work(folder: Path, work: Work) -> bool | None:
    """Return whether a reader holds the lock; None if that cannot be known."""
    path = folder / work.value
    existed = path.exists()
    if fcntl is None or (handle := _open(path)) is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(handle)
    # Readers who may not write had no file to lock before.
    return False if existed else None


def _open(path: Path) -> int | None:
    for flags in os.O_RDONLY, os.O_RDONLY | os.O_CREAT:
        with contextlib.suppress(OSError):
            return os.open(path, flags | getattr(os, "O_CLOEXEC", 0), 0o666)
    return None
