"""Temporary files of a running service, on the data directory's disk."""

import secrets
import shutil
import threading
from pathlib import Path

from filelock import FileLock, Timeout


class Scratch:
    """A folder of this process inside `root`; it is removed on close, or by a later service.

    Several services may share `root`: each holds a lock on its own folder, and removes only
    folders whose lock is free.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._making = threading.Lock()
        self._folder: Path | None = None
        self._lock: FileLock | None = None

    @property
    def folder(self) -> Path:
        """The folder, created on first use. Raises OSError if that fails."""
        with self._making:
            if self._folder is None:
                self._folder = self._make()
            return self._folder

    def _make(self) -> Path:
        self._root.mkdir(parents=True, exist_ok=True)
        self._remove_abandoned()
        folder = self._root / secrets.token_hex(8)
        # Locked before it exists, so that no other service takes it for abandoned.
        self._lock = _lock_of(folder)
        self._lock.acquire()
        folder.mkdir()
        return folder

    def _remove_abandoned(self) -> None:
        for place in {each.with_suffix("") for each in self._root.iterdir()}:
            try:
                with _lock_of(place).acquire(blocking=False):
                    shutil.rmtree(place, ignore_errors=True)
                    _lock_file(place).unlink(missing_ok=True)
            except (OSError, Timeout):
                continue

    def close(self) -> None:
        with self._making:
            if self._folder and self._lock:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._lock.release()
                _lock_file(self._folder).unlink(missing_ok=True)
            self._folder = self._lock = None


def _lock_file(folder: Path) -> Path:
    return folder.with_suffix(".lock")


def _lock_of(folder: Path) -> FileLock:
    return FileLock(_lock_file(folder), thread_local=False)
