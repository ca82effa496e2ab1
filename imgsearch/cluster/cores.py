"""Pin a worker to cores of its own: the cores that Ray counts are bookkeeping."""

import os
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

_held: list[FileLock] = []


def claim(count: int, folder: Path | None = None) -> None:
    """Pin this thread, and threads that it starts, to `count` cores that no other worker has.

    Where all cores are taken, to some that another worker has, so that the number of threads is
    right. Does nothing on a system without affinity, or if there are no more than `count` cores.
    Locks in `folder`, which end with the process, say which are taken.
    """
    if not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    if count >= len(cores):
        return
    groups = [cores[at : at + count] for at in range(0, len(cores) - count + 1, count)]
    folder = folder or Path(tempfile.gettempdir(), f"imgsearch-cores-{os.getuid()}")
    os.sched_setaffinity(0, _own(groups, folder) or groups[os.getpid() % len(groups)])


def _own(groups: list[list[int]], folder: Path) -> list[int] | None:
    """Return a group of cores whose locks this process now holds, None if there is none."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        for group in groups:
            locks = [FileLock(folder / f"{core}.lock") for core in group]
            try:
                for lock in locks:
                    lock.acquire(timeout=0)
            except Timeout:
                for lock in locks:
                    lock.release()
                continue
            _held.extend(locks)
            return group
    except OSError:  # no folder for temporary files
        pass
    return None
