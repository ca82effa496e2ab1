"""A folder for one process at a time."""

import contextlib
from collections.abc import Generator
from pathlib import Path

from imgsearch.events import Listener, Note


@contextlib.contextmanager
def locked(folder: Path, doing: str, listener: Listener) -> Generator[None]:
    """Hold a folder, which is made if need be. Another process that holds it is waited for.

    `doing` tells the user what the other one is about. Raises OSError.
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
