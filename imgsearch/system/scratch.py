"""Folders for temporary files, which a later run removes if their owner was killed.

Each is in a `.scratch` folder near its destination, next to a lock file that its owner holds. The
lock ends with the process, so a folder whose lock is free is unused. The system's temporary folder
is often too small.
"""

import contextlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imgsearch import config
from imgsearch.errors import ScratchError, first_line

if TYPE_CHECKING:
    from filelock import BaseFileLock

_FOLDER = ".scratch"
_LOCK = ".lock"
_OURS = re.compile(r"[0-9]+-[0-9a-f]{8}\.lock")


def places(*first: Path) -> list[Path]:
    """Return the candidate places for temporary files: the given ones, then the data directory."""
    return [*first, config.home()]


@contextlib.contextmanager
def folder(places: Sequence[Path], *, anywhere: bool = False) -> Iterator[Path]:
    """Make an empty folder in the first writable place, and remove it afterwards.

    First removes what killed processes left in that place. If no place is writable and `anywhere`
    is set, uses the system's temporary folder under an unpredictable name. Raises ScratchError with
    the reason for each place.
    """
    from filelock import FileLock, Timeout  # imported here: readers do not need it

    reasons = []
    for place in places:
        clean(place)
        home = place / _FOLDER
        name = f"{os.getpid()}-{secrets.token_hex(4)}"
        lock = FileLock(home / f"{name}{_LOCK}", thread_local=False)
        try:
            home.mkdir(parents=True, exist_ok=True)
            if home.is_symlink():
                raise OSError(f"{home} is a link")
            lock.acquire(timeout=1)  # fails if another owner has just removed the folder
            made = home / name
            made.mkdir()
            (made / "probe").write_bytes(b"x")  # a full disk still takes empty files
            (made / "probe").unlink()
        except (OSError, NotImplementedError, Timeout) as error:
            reasons.append(f"{place}: {_reason(error)}")
            _remove(home, name, lock)
            continue
        try:
            yield made
        finally:
            _remove(home, name, lock)
        return
    if anywhere:
        try:
            made = Path(tempfile.mkdtemp(prefix="imgsearch-"))
        except OSError as error:
            reasons.append(f"the system's temporary folder: {_reason(error)}")
        else:
            try:
                yield made
            finally:
                shutil.rmtree(made, ignore_errors=True)
            return
    raise ScratchError(f"no place for temporary files ({'; '.join(reasons)})")


def clean(place: Path) -> None:
    """Remove the folders that killed processes left in a place."""
    home = place / _FOLDER
    try:
        if home.is_symlink():  # following a link could delete other files
            return
        locks = [each for each in home.iterdir() if _OURS.fullmatch(each.name)]
    except OSError:  # it does not exist
        return
    from filelock import FileLock, Timeout

    for path in locks:
        lock = FileLock(path, thread_local=False)
        with contextlib.suppress(OSError, NotImplementedError, Timeout):
            lock.acquire(timeout=0)
            _remove(home, path.stem, lock)
    with contextlib.suppress(OSError):
        home.rmdir()


def _remove(home: Path, name: str, lock: "BaseFileLock") -> None:
    """Remove a folder, then its lock, then `home` if it is empty."""
    shutil.rmtree(home / name, ignore_errors=True)
    # Unlink while the lock is held, so that no other process locks it in between. Windows forbids
    # this, so try again after the release.
    with contextlib.suppress(OSError):
        (home / f"{name}{_LOCK}").unlink()
    with contextlib.suppress(OSError):
        lock.release()
    with contextlib.suppress(OSError):
        (home / f"{name}{_LOCK}").unlink()
    with contextlib.suppress(OSError):
        home.rmdir()


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or first_line(error)
