"""A job: its state, its folder on the disk, and the lock on that folder."""

import contextlib
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from filelock import BaseFileLock, FileLock, Timeout

from imgsearch.system import atomic

State = Literal["queued", "running", "done", "failed", "cancelled"]
Kind = Literal["ingest", "search", "map"]
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")

STATE = "job.json"
REPORT = "report.jsonl"


ResultFormat = Literal["jsonl", "csv", "parquet"]


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """What a job does with each image that it searches for. `show` are fields of the result."""

    text: str = ""
    k: int = 10
    where: tuple[str, ...] = ()
    min_score: float | None = None
    confident: bool = False
    copies: bool = False
    exclude_self: bool = False
    show: tuple[str, ...] = ()
    format: ResultFormat = "jsonl"


@dataclass(frozen=True, slots=True)
class MapJob:
    """What a job draws: the map of its collection, with `new_layout` one with new places."""

    new_layout: bool = False


@dataclass
class Job:
    """An ingest of uploads, a search with them, or the drawing of a map.

    `found` counts images, and `finished` images with an outcome; for a map, of its current `step`.
    """

    id: str
    collection: str
    description: str = ""
    search: SearchOptions | None = None
    drawing: MapJob | None = None
    step: str = ""
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

    @property
    def kind(self) -> Kind:
        if self.drawing:
            return "map"
        return "search" if self.search else "ingest"


def load_job(folder: Path) -> Job | None:
    """Return the job of a folder as it was saved last; None if it cannot be read."""
    try:
        saved = json.loads((folder / STATE).read_text())
        if search := saved.get("search"):
            lists = {name: tuple(search[name]) for name in ("where", "show")}
            saved["search"] = SearchOptions(**{**search, **lists})
        if drawing := saved.get("drawing"):
            saved["drawing"] = MapJob(**drawing)
        return Job(**saved)
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return None


def result_file(folder: Path, search: SearchOptions) -> Path:
    """Return the file that a search writes."""
    return folder / f"result.{search.format}"


def save_job(job: Job, folder: Path) -> None:
    """Save a job's state atomically. Raises OSError."""
    atomic.write_text(folder / STATE, json.dumps(asdict(job)))


def acquire_lock(folder: Path) -> BaseFileLock | None:
    """Acquire the exclusive right to run the job of a folder, which need not exist, or delete it.

    The lock file is next to the folder: some systems cannot delete a folder with an open file. The
    system releases the lock at the end of the process. Returns None if another process holds the
    lock, and raises OSError if its file cannot be written.
    """
    lock = FileLock(_lock_file(folder), thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    return lock


def delete_lock(folder: Path, lock: BaseFileLock | None = None) -> None:
    """Release the lock on a folder, and delete its file."""
    with contextlib.suppress(OSError):  # Windows deletes an open file only on release
        _lock_file(folder).unlink(missing_ok=True)
    if lock:
        lock.release()


def _lock_file(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")
