"""What sources are, and what a scan of them yields."""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from imgsearch.errors import NothingFoundError
from imgsearch.sites import HERE, Sites
from imgsearch.sources.globs import FileGlob
from imgsearch.types import FieldType, Metadata
from imgsearch.uris import MemberUrl, ObjectUrl, path_digest, record_id

STDIN = "-"
"""The name that stands for a list of paths on stdin."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Resolved sources: folders to walk, files to take, and whether to read a list."""

    folders: tuple[str, ...]
    """Those that a glob matched, too."""
    files: tuple[str, ...] = ()
    globs: tuple[FileGlob, ...] = ()
    """Globs of files, of which the images are taken."""
    stdin: bool = False
    object_globs: tuple[ObjectUrl, ...] = ()
    """Globs of objects, of which the images are taken."""

    @property
    def may_have_objects(self) -> bool:
        names = (*self.folders, *self.files)
        named = any(ObjectUrl.parse(name) or MemberUrl.parse(name) for name in names)
        return named or bool(self.object_globs) or self.stdin


@dataclass(frozen=True, slots=True)
class OwnFields:
    """Fields that a source has for an image. The source owns them, as a table does.

    `id` is that of the source, `types` are those of all its fields.
    """

    id: str
    types: Mapping[str, FieldType]
    values: Metadata

    @property
    def columns(self) -> list[str]:
        return list(self.types)


@dataclass(frozen=True)
class Candidate:
    """A file that should be an image.

    `size` is in bytes, `mtime_ns` as in records. `sites` decides its URI in the collection.
    """

    path: str
    size: int
    mtime_ns: int
    sites: Sites = HERE
    own: OwnFields | None = None

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
    """The objects and members that a scan has listed, and what it has listed to the end.

    `folders` are the URLs of folders of objects, `shards` the URIs of shards. Takes 8 bytes for
    each object or member: a digest of its URL. Two of ten million are equal with a chance of 3e-6;
    a deleted object would then count as listed.
    """

    def __init__(self) -> None:
        self.folders: set[str] = set()
        self.shards: dict[str, None] = {}
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
    """Folders that could not be listed, and shards that could not be read to the end, and why."""
    left_out: int = 0
    """Hidden and system files and folders that were skipped."""
    other_files: int = 0
    """Files in the folders that are not images."""
    shards: int = 0
    """Shards in the folders, which are read only if they are named or match a glob."""
    remarks: list[str] = field(default_factory=list)
    """Sentences on what a shard has that was not understood."""
    objects: ListedObjects | None = None
    """If given, the objects and members that the scan lists are added to it."""


def nothing_found(sources: Sources, log: ScanLog) -> NothingFoundError:
    """Return the error to raise for sources without an image, after a scan."""
    globs = map(str, (*sources.globs, *sources.object_globs))
    places = ", ".join((*sources.folders, *sources.files, *globs)) or "the list"
    others = f" ({log.other_files:,} other files)" if log.other_files else ""
    if log.shards:
        others += f"; {unread_shards(log)}"
    unreadable = "".join(f"; {path}: {reason}" for path, reason in log.unreadable[:3])
    return NothingFoundError(f"no image found in {places}{others}{unreadable}")


def unread_shards(log: ScanLog) -> str:
    """Return a sentence on the shards in folders, which were not read."""
    return (
        f"{log.shards:,} .tar, .zip or .parquet files in the folders were not read: name them, or "
        "match them by a glob such as 'FOLDER/*.tar'"
    )
