"""Temporary files of a running service, on the data directory's disk: it has the room.

The system's temporary folder may be memory, as in a container, and uploads would fill it.
"""

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from imgsearch.errors import ScratchError
from imgsearch.server.errors import disk_full, not_writable
from imgsearch.system import scratch


@contextlib.contextmanager
def spooling(data: Path) -> Iterator[None]:
    """Let this process put temporary files, bodies of requests above all, into `data`.

    Where `data` cannot be written to, they go to the system's temporary folder.
    """
    before = tempfile.tempdir
    with scratch.folder(scratch.places(data), anywhere=True) as folder:
        tempfile.tempdir = str(folder)
        try:
            yield
        finally:
            tempfile.tempdir = before


class Spool:
    """A folder for files that are to be moved into `data`; created on first use."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._opening = threading.Lock()
        self._folder: Path | None = None
        self._cleanup = contextlib.ExitStack()

    @property
    def folder(self) -> Path:
        """The folder. Raises RefusedError if there is no room for it."""
        with self._opening:
            if self._folder is None or not self._folder.is_dir():
                self._folder = self._opened()
            return self._folder

    def _opened(self) -> Path:
        try:
            return self._cleanup.enter_context(scratch.folder([self._data]))
        except ScratchError as error:
            if os.access(self._data, os.W_OK):
                raise disk_full() from error
            raise not_writable("it is read-only") from error

    def close(self) -> None:
        with self._opening:
            self._cleanup.close()
            self._folder = None
