"""Write groups of duplicates to one HTML file of bounded size, their images side by side."""

from dataclasses import dataclass
from typing import Any, Self

from imgsearch import config
from imgsearch.duplicates.result import DuplicateGroup
from imgsearch.gallery import MAX_BYTES, SectionFile, link_of, name_of, thumbnail
from imgsearch.types import ImageRecord

_MAX_MEMBERS = 50
_SIDE = 240


@dataclass(frozen=True, slots=True)
class _Image:
    """An image of a group. `label` is its kind, or empty for the image to keep."""

    record: ImageRecord
    label: str
    score: float
    name: str
    link: str | None
    thumbnail: str | None


class GroupGallery:
    """Collects groups, and writes the file when all are there.

    The first groups are shown, until they have `max_bytes`, with at most 50 redundant images each.
    The page says what it leaves out. Groups wait on the disk. Use it as a context manager: without
    `finish`, no file is written.
    """

    def __init__(
        self,
        file: str,
        max_pixels: int = config.DEFAULT_MAX_PIXELS,
        *,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """Raises UsageError if the file exists and is not HTML."""
        self._sections = SectionFile(file, "gallery/group.html", max_bytes)
        self._max_pixels = max_pixels

    def __enter__(self) -> Self:
        """Raises SourceError if the file cannot be written."""
        self._sections.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._sections.__exit__()

    def add(self, group: DuplicateGroup) -> None:
        """Append a group. Raises SourceError if the disk is full."""
        self._sections.add(lambda: self._section(group))

    def left_out(self) -> list[str]:
        """Return the sentence that says how many groups are not shown, if any."""
        return self._sections.left_out("groups")

    def finish(self, subtitle: str) -> None:
        """Write the file. Raises SourceError, or UsageError if another file took its place."""
        self._sections.finish("gallery/groups.html", subtitle=subtitle, left_out=self.left_out())

    def _section(self, group: DuplicateGroup) -> dict[str, Any]:
        members = group.members[:_MAX_MEMBERS]
        entries = [(group.keep, "", 1.0), *((m.record, m.kind, m.score) for m in members)]
        return {
            "images": list(self._sections.pool.map(self._image, entries)),
            "more": len(group.members) - len(members),
        }

    def _image(self, entry: tuple[ImageRecord, str, float]) -> _Image:
        record, label, score = entry
        shown = thumbnail(record, _SIDE, self._max_pixels)
        return _Image(record, label, score, name_of(record), link_of(record), shown)
