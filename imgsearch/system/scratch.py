"""Folders for temporary files, which a later run removes if their owner was killed.

Each lies in a `.scratch` folder beside what it is for, next to a lock file that its owner holds.
The lock ends with the process: whoever gets it knows that nobody needs the folder any more. The
system's temporary folder has neither this order nor, often, the room.
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
    """Where temporary files may lie: in the given places, else in the data directory."""
    return [*first, config.home()]


@contextlib.contextmanager
def folder(places: Sequence[Path], *, anywhere: bool = False) -> Iterator[Path]:
    """An empty folder in the first of the places that can be written to; it is gone afterwards.

    What killed processes left in that place is removed first. If no place will do, and `anywhere`,
    the folder is in the system's temporary folder, under a name that nobody can know before. Raises
    ScratchError, with the reason for each place, if there is none.
    """
    from filelock import FileLock, Timeout  # here, as readers need not wait for it to load

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
            lock.acquire(timeout=1)  # the folder, if another owner has just removed it
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
    raise ScratchError(f"there is no place for temporary files ({'; '.join(reasons)})")


def clean(place: Path) -> None:
    """Remove what killed processes left in a place."""
    home = place / _FOLDER
    try:
        if home.is_symlink():  # nobody makes it so, unless to have other files deleted
            return
        locks = [each for each in home.iterdir() if _OURS.fullmatch(each.name)]
    except OSError:  # there is none
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
    """Remove a folder, then the lock that guards it, then `home` if nothing else is in it."""
    shutil.rmtree(home / name, ignore_errors=True)
    # While it is held, so that nobody can take it for a living one's; Windows forbids that.
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
