"""A job: its state, its folder on the disk, and the lock on that folder."""

import contextlib
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

from filelock import FileLock, Timeout

from imgsearch.server.errors import ApiError
from imgsearch.server.jobs.archives import MAGIC, Member, check_archive, members
from imgsearch.server.settings import ArchiveLimits
from imgsearch.system import atomic

State = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")

STATE = "job.json"
REPORT = "report.jsonl"
_FILES = "files"
_NAMES = "names.json"


@dataclass
class Job:
    """An ingest of uploads. `found` counts images, `finished` those that have an outcome."""

    id: str
    collection: str
    description: str = ""
    state: State = "queued"
    created: float = field(default_factory=time.time)
    """In seconds since the epoch."""
    found: int = 0
    finished: int = 0
    rejected: int = 0
    skipped: int = 0
    cancelled: bool = False
    """Whether a client asked to cancel it, which may not have happened yet."""
    error: str | None = None
    """Why it failed."""
    crashes: int = 0
    """Consecutive runs during which the service was killed, including the present run."""


@dataclass(frozen=True, slots=True)
class ReportLine:
    """A line of a job's report: the outcome of one file. `name` is the name that a client sent."""

    name: str
    status: str
    reason: str
    id: str | None


class JobLock:
    """The exclusive right to run a job or delete its folder. The system ends it with the process.

    The lock file is next to the folder: some systems cannot delete a folder with an open file.
    """

    def __init__(self, lock: FileLock) -> None:
        self._lock = lock

    @classmethod
    def acquire(cls, folder: Path) -> "JobLock | None":
        """Return the lock on a folder, which need not exist; None if another process holds it.

        Raises OSError if the lock file cannot be written.
        """
        lock = FileLock(folder.with_name(f".{folder.name}.lock"), thread_local=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return None
        return cls(lock)

    def release(self) -> None:
        """Let another process acquire the lock."""
        self._lock.release()

    def delete(self) -> None:
        """Release the lock, and delete its file."""
        with contextlib.suppress(OSError):  # Windows deletes an open file only on release
            Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()


def load_job(folder: Path) -> Job | None:
    """Return the job of a folder as it was saved last; None if it cannot be read."""
    try:
        return Job(**json.loads((folder / STATE).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def save_job(job: Job, folder: Path) -> None:
    """Save a job's state atomically. Raises OSError."""
    atomic.write_text(folder / STATE, json.dumps(asdict(job)))


def store_files(folder: Path, files: Sequence[tuple[str, BinaryIO]], limits: ArchiveLimits) -> int:
    """Copy files (names and contents) into a job's folder, and return how many images they hold.

    Raises ApiError for an unusable zip.
    """
    found = 0
    (folder / _FILES).mkdir(parents=True)
    names = []
    for number, (name, content) in enumerate(files):
        names.append(name)
        content.seek(0)
        with (folder / _FILES / str(number)).open("wb") as file:
            shutil.copyfileobj(content, file)
        found += _count(name, content, limits) if _is_archive(content) else 1
    (folder / _FILES / _NAMES).write_text(json.dumps(names))
    return found


def _count(name: str, archive: BinaryIO, limits: ArchiveLimits) -> int:
    try:
        return check_archive(archive, limits)
    except ApiError as error:
        raise ApiError(error.status, error.name, f"{name}: {error}") from error


def _is_archive(file: BinaryIO) -> bool:
    file.seek(0)
    return file.read(len(MAGIC)) == MAGIC


def iter_files(folder: Path, limits: ArchiveLimits) -> Iterator[Member]:
    """Yield the files of a job, with zips unpacked; read each before the next."""
    for number, name in enumerate(json.loads((folder / _FILES / _NAMES).read_text())):
        with (folder / _FILES / str(number)).open("rb") as file:
            archive = _is_archive(file)
            file.seek(0)
            if archive:
                yield from members(file, limits)
            else:
                yield Member(name, file)


def delete_files(folder: Path) -> None:
    """Delete the files of an ended job, but not its state and report."""
    shutil.rmtree(folder / _FILES, ignore_errors=True)
