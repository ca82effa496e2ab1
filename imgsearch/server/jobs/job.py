"""One job: what is known of it, and the files that it has to bring in."""

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

from imgsearch.server.errors import RefusedError
from imgsearch.server.jobs.archives import MAGIC, Member, check_archive, members
from imgsearch.server.settings import ArchiveLimits

State = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")

REPORT = "report.jsonl"
_FILES = "files"
_NAMES = "names.json"


@dataclass
class Job:
    """An ingest of uploads. `found` counts the pictures, `finished` those that have an outcome."""

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
    """Whether somebody asked for its end, which may be yet to come."""
    error: str | None = None
    """Why it failed."""
    crashes: int = 0
    """How often in a row the service was killed while it ran this job, the present run included."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a job's report: what became of one file. `name` is what the client called it."""

    name: str
    status: str
    reason: str
    id: str | None


def take_files(folder: Path, files: Sequence[tuple[str, BinaryIO]], limits: ArchiveLimits) -> int:
    """Lay files into a job's folder, under numbers; returns how many pictures they may hold."""
    found = 0
    (folder / _FILES).mkdir(parents=True)
    names = []
    for number, (name, content) in enumerate(files):
        names.append(name)
        content.seek(0)
        with (folder / _FILES / str(number)).open("wb") as file:
            shutil.copyfileobj(content, file)
        found += _checked(name, content, limits) if _is_archive(content) else 1
    (folder / _FILES / _NAMES).write_text(json.dumps(names))
    return found


def _checked(name: str, archive: BinaryIO, limits: ArchiveLimits) -> int:
    try:
        return check_archive(archive, limits)
    except RefusedError as error:
        raise RefusedError(error.status, error.name, f"{name}: {error}") from error


def _is_archive(file: BinaryIO) -> bool:
    file.seek(0)
    return file.read(len(MAGIC)) == MAGIC


def files_of(folder: Path, limits: ArchiveLimits) -> Iterator[Member]:
    """The pictures of a job, out of their zips, each to be read before the next."""
    for number, name in enumerate(json.loads((folder / _FILES / _NAMES).read_text())):
        with (folder / _FILES / str(number)).open("rb") as file:
            archive = _is_archive(file)
            file.seek(0)
            if archive:
                yield from members(file, limits)
            else:
                yield Member(name, file)


def drop_files(folder: Path) -> None:
    """What is not needed once the job has ended."""
    shutil.rmtree(folder / _FILES, ignore_errors=True)
