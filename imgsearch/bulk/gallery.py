"""Write the results of many query images to one HTML file of bounded size."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from imgsearch import config
from imgsearch.bulk.result import QueryResult
from imgsearch.gallery import MAX_BYTES, SHOWN_FIELDS, Card, SectionFile, card, thumbnail
from imgsearch.types import Hit
from imgsearch.uris import path_to_uri

_MAX_HITS = 50
_MAX_REJECTED = 1000
_SIDE = 160


@dataclass(slots=True)
class Counts:
    """How many images have had which result, and how many of the answered ones are shown."""

    answered: int = 0
    without_hits: int = 0
    rejected: int = 0
    shown: int = 0


class GalleryFile:
    """Collects results, a row for each image, and writes the file when all are there.

    The first images are shown, until their rows have `MAX_BYTES`, with at most 50 hits each; so are
    the first 1,000 rejected ones. The page says what it leaves out. Rows wait on the disk. Use it
    as a context manager: without `finish`, no file is written.
    """

    def __init__(
        self,
        file: str,
        fields: Sequence[str] = (),
        max_pixels: int = config.DEFAULT_MAX_PIXELS,
        *,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """`fields` are the metadata fields to show, the first ones by default.

        Raises UsageError if the file exists and is not HTML.
        """
        self.counts = Counts()
        self._sections = SectionFile(file, "gallery/row.html", max_bytes)
        self.max_bytes = max_bytes
        self._fields = fields
        self._max_pixels = max_pixels
        # By record. They are in the rows too, so that `max_bytes` limits them.
        self._thumbnails: dict[str, str | None] = {}
        self._rejected: list[tuple[str, str]] = []

    def __enter__(self) -> Self:
        """Raises SourceError if the file cannot be written."""
        self._sections.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._sections.__exit__()

    def add(self, result: QueryResult) -> None:
        """Append a result. Raises SourceError if the disk is full."""
        if result.error is not None:
            self.counts.rejected += 1
            if len(self._rejected) < _MAX_REJECTED:
                self._rejected.append((result.path, result.error))
            return
        self.counts.answered += 1
        self.counts.without_hits += not result.hits
        self._sections.add(lambda: self._row(result))
        self.counts.shown = self._sections.shown

    def finish(self, subtitle: str, before: int = 0) -> None:
        """Write the file. `before` images had a result already, and none here.

        Raises SourceError, and UsageError if another file has taken its place.
        """
        left_out = self._sections.left_out("images")
        if before:
            left_out.append(f"The {before:,} images of the interrupted run are not shown.")
        self._sections.finish(
            "gallery/many.html",
            counts=self.counts,
            subtitle=subtitle,
            left_out=left_out,
            rejected=self._rejected,
        )

    def _row(self, result: QueryResult) -> dict[str, Any]:
        shown = result.hits[:_MAX_HITS]
        query = self._sections.pool.submit(thumbnail, result.path, _SIDE, self._max_pixels)
        cards = [*self._sections.pool.map(self._card, shown)]
        return {
            "path": result.path,
            "name": os.path.basename(result.path),
            "link": path_to_uri(result.path),
            "thumbnail": query.result(),
            "cards": cards,
            "more": len(result.hits) - len(shown),
        }

    def _card(self, hit: Hit) -> Card:
        record = hit.record
        if record.id not in self._thumbnails:
            self._thumbnails[record.id] = thumbnail(record, _SIDE, self._max_pixels)
        made = card(hit, self._thumbnails[record.id])
        if self._fields:
            return replace(made, fields=[each for each in made.fields if each[0] in self._fields])
        return replace(made, fields=made.fields[:SHOWN_FIELDS])
