"""What sources are, and what a scan of them yields."""

from dataclasses import dataclass, field
from functools import cached_property

from imgsearch.errors import NothingFoundError
from imgsearch.sites import HERE, Sites
from imgsearch.uris import record_id

STDIN = "-"
"""The name that stands for a list of paths on stdin."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Resolved sources: folders to walk, files to take, and whether to read a list."""

    folders: tuple[str, ...]
    files: tuple[str, ...]
    matches: tuple[str, ...]
    """Files that a glob matched: taken only if they are images."""
    stdin: bool = False


@dataclass(frozen=True)
class Candidate:
    """A file that should be an image.

    `size` is in bytes, `mtime_ns` as in records. `sites` decides its URI in the collection.
    """

    path: str
    size: int
    mtime_ns: int
    sites: Sites = HERE

    # Cached: computing them repeatedly took a fifth of an ingest that finds nothing new.
    @cached_property
    def uri(self) -> str:
        return self.sites.uri(self.path)

    @cached_property
    def id(self) -> str:
        return record_id(self.uri)


@dataclass(frozen=True, slots=True)
class Unusable:
    """A file that should be an image, but cannot be accessed."""

    path: str
    reason: str
    sites: Sites = HERE

    @property
    def uri(self) -> str:
        return self.sites.uri(self.path)


@dataclass
class ScanLog:
    """What a scan found besides candidates."""

    unreadable: list[tuple[str, str]] = field(default_factory=list)
    """Folders that could not be listed, with the reason."""
    left_out: int = 0
    """Hidden and system files and folders that were skipped."""
    other_files: int = 0
    """Files in the folders that are not images."""


def nothing_found(sources: Sources, log: ScanLog) -> NothingFoundError:
    """Return the error to raise for sources without an image, after a scan."""
    places = ", ".join(sources.folders + sources.files + sources.matches) or "the list"
    others = f" ({log.other_files:,} other files)" if log.other_files else ""
    unreadable = "".join(f"; {path}: {reason}" for path, reason in log.unreadable[:3])
    return NothingFoundError(f"no image found in {places}{others}{unreadable}")
