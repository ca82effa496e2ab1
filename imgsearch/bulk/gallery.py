"""Write the results of many query images to one HTML file of bounded size."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Self

from imgsearch import config
from imgsearch.bulk.result import QueryResult
from imgsearch.gallery import SHOWN_FIELDS, Card, HtmlFile, card, environment, thumbnail
from imgsearch.types import Hit
from imgsearch.uris import path_to_uri

MAX_BYTES = 32 << 20
"""Of all rows together, so that a browser can show the file and a mail can carry it."""
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
        self._html = HtmlFile(file)
        self._fields = fields
        self._max_pixels = max_pixels
        self._bytes_left = max_bytes
        self.max_bytes = max_bytes
        # By record. They are in the rows too, so that `max_bytes` limits them.
        self._thumbnails: dict[str, str | None] = {}
        self._rejected: list[tuple[str, str]] = []
        self._cleanup = ExitStack()
        self._environment = environment()
        self._row = self._environment.get_template("gallery/row.html")

    def __enter__(self) -> Self:
        """Raises SourceError if the file cannot be written."""
        with ExitStack() as stack:
            stack.enter_context(self._html)
            with self._html.writing():
                rows = (self._html.folder / "rows").open("w+", encoding="utf-8", newline="\n")
                self._rows = stack.enter_context(rows)
            self._pool = stack.enter_context(
                ThreadPoolExecutor(config.default_workers(), "imgsearch-thumbnail")
            )
            self._cleanup = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def add(self, result: QueryResult) -> None:
        """Append a result. Raises SourceError if the disk is full."""
        if result.error is not None:
            self.counts.rejected += 1
            if len(self._rejected) < _MAX_REJECTED:
                self._rejected.append((result.path, result.error))
            return
        self.counts.answered += 1
        self.counts.without_hits += not result.hits
        if self._bytes_left <= 0:
            return
        row = self._render(result)
        self._bytes_left -= len(row.encode())
        if self._bytes_left < 0 and self.counts.shown:
            return
        with self._html.writing():
            self._rows.write(f"{len(row)}\n{row}")
        self.counts.shown += 1

    def finish(self, subtitle: str, before: int = 0) -> None:
        """Write the file. `before` images had a result already, and none here.

        Raises SourceError, and UsageError if another file has taken its place.
        """
        page = self._html.folder / "page"
        template = self._environment.get_template("gallery/many.html")
        parts = template.generate(
            counts=self.counts,
            subtitle=subtitle,
            left_out=self._left_out(before),
            rows=self._written(),
            rejected=self._rejected,
        )
        with self._html.writing(), page.open("w", encoding="utf-8") as file:
            file.writelines(parts)
        self._html.publish(page)

    def _left_out(self, before: int) -> list[str]:
        counts, sentences = self.counts, []
        if counts.shown < counts.answered:
            megabytes = self.max_bytes >> 20
            sentences.append(
                f"Only the first {counts.shown:,} of {counts.answered:,} images are shown, because "
                f"this page is limited to {megabytes} MB."
            )
        if before:
            sentences.append(f"The {before:,} images of the interrupted run are not shown.")
        return sentences

    def _render(self, result: QueryResult) -> str:
        shown = result.hits[:_MAX_HITS]
        query = self._pool.submit(thumbnail, result.path, _SIDE, self._max_pixels)
        cards = [*self._pool.map(self._card, shown)]
        return self._row.render(
            path=result.path,
            name=os.path.basename(result.path),
            link=path_to_uri(result.path),
            thumbnail=query.result(),
            cards=cards,
            more=len(result.hits) - len(shown),
        )

    def _card(self, hit: Hit) -> Card:
        record = hit.record
        if record.id not in self._thumbnails:
            self._thumbnails[record.id] = thumbnail(record, _SIDE, self._max_pixels)
        made = card(hit, self._thumbnails[record.id])
        if self._fields:
            return replace(made, fields=[each for each in made.fields if each[0] in self._fields])
        return replace(made, fields=made.fields[:SHOWN_FIELDS])

    def _written(self) -> Iterator[str]:
        """Yield the rows, as HTML."""
        self._rows.seek(0)
        while length := self._rows.readline():
            yield self._rows.read(int(length))
