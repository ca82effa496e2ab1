"""Locks on the folders of jobs: whoever holds one runs the job, or deletes the folder."""

import contextlib
from pathlib import Path

from filelock import FileLock, Timeout


class Lease:
    """The exclusive right to a job's folder. The system ends it with the process.

    The lock file lies beside the folder, as a folder with an open file in it cannot be deleted
    everywhere.
    """

    def __init__(self, lock: FileLock) -> None:
        self._lock = lock

    @classmethod
    def take(cls, folder: Path) -> "Lease | None":
        """The lease on a folder, which need not exist; None while another process holds it.

        Raises OSError if the lock file cannot be written.
        """
        lock = FileLock(folder.with_name(f".{folder.name}.lock"), thread_local=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return None
        return cls(lock)

    def release(self) -> None:
        """Let another process take the lease."""
        self._lock.release()

    def end(self) -> None:
        """Release the lease on a folder that nobody needs a lease on any more."""
        with contextlib.suppress(OSError):  # Windows deletes no open file; it does so on release
            Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()
