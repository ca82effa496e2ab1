"""Exclusive use of a folder by one process."""

import contextlib
from collections.abc import Generator
from pathlib import Path

from imgsearch.events import Listener, Note


@contextlib.contextmanager
def locked(folder: Path, doing: str, listener: Listener) -> Generator[None]:
    """Lock a folder, created if necessary; wait while another process holds the lock.

    `doing` describes the work of the other process in a note to the user. Raises OSError.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        listener(Note(f"waiting for another imgsearch that is {doing}"))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
