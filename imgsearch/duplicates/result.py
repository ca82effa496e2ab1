"""Groups of duplicates, and which image of a group to keep."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from imgsearch.types import ImageRecord

Kind = Literal["exact", "re-encoded", "resized", "cropped", "recolored"]
"""How a duplicate differs from the image to keep. `exact` has the same content, `re-encoded` the
same width and height."""

Order = tuple[int | str, ...]


def _largest(record: ImageRecord) -> Order:
    return -record.width * record.height, -record.size, record.mtime_ns, record.uri


def _largest_file(record: ImageRecord) -> Order:
    return -record.size, -record.width * record.height, record.mtime_ns, record.uri


def _oldest(record: ImageRecord) -> Order:
    return record.mtime_ns, *_largest(record)


def _newest(record: ImageRecord) -> Order:
    return -record.mtime_ns, *_largest(record)


def _first_path(record: ImageRecord) -> Order:
    return (record.uri,)


KEEP_RULES: Mapping[str, Callable[[ImageRecord], Order]] = {
    "largest": _largest,
    "largest-file": _largest_file,
    "oldest": _oldest,
    "newest": _newest,
    "first-path": _first_path,
}
"""Sort keys by name: the record that comes first is kept. `largest` has the most pixels, then the
largest file, then the oldest."""


@dataclass(frozen=True, slots=True)
class Member:
    """A redundant image. `score` is its cosine similarity to the image to keep."""

    record: ImageRecord
    score: float
    kind: Kind


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """An image to keep, and the others, each of which is a duplicate of it."""

    keep: ImageRecord
    members: tuple[Member, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the object that `imgsearch duplicates --json` prints for a group."""
        return {
            "keep": self.keep.path,
            "keep_uri": self.keep.uri,
            "keep_sha256": self.keep.sha256,
            "members": [
                {
                    "path": member.record.path,
                    "uri": member.record.uri,
                    "sha256": member.record.sha256,
                    "score": member.score,
                    "kind": member.kind,
                }
                for member in self.members
            ],
        }
