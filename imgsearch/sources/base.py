"""What sources are, and what a scan of them yields."""

from array import array
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from imgsearch.errors import NothingFoundError
from imgsearch.sites import HERE, Sites
from imgsearch.uris import ObjectUrl, path_digest, record_id

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
    object_globs: tuple[ObjectUrl, ...] = ()
    """Globs of objects, of which the images are taken."""

    @property
    def may_have_objects(self) -> bool:
        named = any(ObjectUrl.parse(name) for name in (*self.folders, *self.files))
        return named or bool(self.object_globs) or self.stdin


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


class ListedObjects:
    """The objects that a scan has listed, and the folders that it has listed to the end.

    Takes 8 bytes for each object: a digest of its URL. Two of ten million are equal with a chance
    of 3e-6; a deleted object would then count as listed.
    """

    def __init__(self) -> None:
        self.folders: set[str] = set()
        self._digests = array("Q")
        self._sorted: NDArray[np.uint64] | None = None

    def add(self, url: str) -> None:
        self._digests.append(_digest(url))
        self._sorted = None

    def __contains__(self, url: str) -> bool:
        if self._sorted is None:
            self._sorted = np.sort(np.frombuffer(self._digests.tobytes(), np.uint64))
        digest = np.uint64(_digest(url))
        place = int(np.searchsorted(self._sorted, digest))
        return place < len(self._sorted) and bool(self._sorted[place] == digest)


def _digest(url: str) -> int:
    return int.from_bytes(path_digest(url)[:8], "big")


@dataclass
class ScanLog:
    """What a scan found besides candidates."""

    unreadable: list[tuple[str, str]] = field(default_factory=list)
    """Folders that could not be listed, with the reason."""
    left_out: int = 0
    """Hidden and system files and folders that were skipped."""
    other_files: int = 0
    """Files in the folders that are not images."""
    objects: ListedObjects | None = None
    """If given, the objects that the scan lists are added to it."""


def nothing_found(sources: Sources, log: ScanLog) -> NothingFoundError:
    """Return the error to raise for sources without an image, after a scan."""
    globs = map(str, sources.object_globs)
    places = ", ".join((*sources.folders, *sources.files, *sources.matches, *globs)) or "the list"
    others = f" ({log.other_files:,} other files)" if log.other_files else ""
    unreadable = "".join(f"; {path}: {reason}" for path, reason in log.unreadable[:3])
    return NothingFoundError(f"no image found in {places}{others}{unreadable}")
