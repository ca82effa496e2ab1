"""Write hits to a self-contained HTML file, with thumbnails and without scripts."""

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from jinja2 import Environment, PackageLoader

from imgsearch import images
from imgsearch.calibration import percentile_text
from imgsearch.config import DEFAULT_MAX_PIXELS, default_workers
from imgsearch.errors import ImageError, ScratchError
from imgsearch.system import scratch
from imgsearch.system.atomic import publish
from imgsearch.system.outputs import check_replaceable, not_written
from imgsearch.types import Hit, ImageRecord
from imgsearch.uris import path_to_uri, readable_path

_HTML = (b"<!doctype html", b"<html")

# Control characters and marks of writing direction, which can make one name look like another.
# Joiners are not among them, because some scripts and emoji need them.
_DECEPTIVE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)

SHOWN_FIELDS = 4
"""How many metadata fields are shown for each hit."""

MAX_BYTES = 32 << 20
"""Of all sections of a page together, so that a browser can show it and a mail can carry it."""
_SIDE = 320


class HtmlFile:
    """An HTML file that is written whole or not at all, by way of a folder next to it.

    Use it as a context manager.
    """

    def __init__(self, file: str) -> None:
        """Raises UsageError if the file exists and is not HTML."""
        self._file = file
        # Replace the target of a link, not the link.
        self._target = Path(os.path.realpath(file))
        self._check()
        self._cleanup = contextlib.ExitStack()

    def _check(self) -> None:
        check_replaceable(self._file, "an HTML file", _HTML)

    def __enter__(self) -> Self:
        """Make the folder. Raises SourceError if it cannot be written."""
        parent = self._target.parent
        with self.writing():
            parent.stat()  # a missing folder is an error, as scratch.folder would create it
            self.folder = self._cleanup.enter_context(scratch.folder([parent]))
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Raise SourceError for what cannot be written."""
        try:
            yield
        except (OSError, ScratchError) as error:
            raise not_written(self._file, error) from error

    def publish(self, page: Path) -> None:
        """Let a file of the folder take the place of the target."""
        self._check()
        with self.writing():
            publish(page, self._target)


class SectionFile:
    """An HTML file of many sections, which wait on the disk until all are there.

    The first sections are shown, until they have `max_bytes`. `pool` has threads that make their
    thumbnails. Use it as a context manager: without `finish`, no file is written.
    """

    def __init__(self, file: str, template: str, max_bytes: int = MAX_BYTES) -> None:
        """`template` renders one section. Raises UsageError if the file exists and is not HTML."""
        self._html = HtmlFile(file)
        self._environment = environment()
        self._template = self._environment.get_template(template)
        self.max_bytes = self._bytes_left = max_bytes
        self.count = 0
        """How many sections were added."""
        self.shown = 0
        """How many of them are shown."""
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Raises SourceError if the file cannot be written."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._html)
            with self._html.writing():
                path = self._html.folder / "sections"
                self._sections = stack.enter_context(path.open("w+", encoding="utf-8", newline=""))
            self.pool = stack.enter_context(
                ThreadPoolExecutor(default_workers(), "imgsearch-thumbnail")
            )
            self._cleanup = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def add(self, values: Callable[[], Mapping[str, Any]]) -> None:
        """Append a section, whose values are only made if there is room for it.

        Raises SourceError if the disk is full.
        """
        self.count += 1
        if self._bytes_left <= 0:
            return
        section = self._template.render(values())
        self._bytes_left -= len(section.encode())
        if self._bytes_left < 0 and self.shown:
            return
        with self._html.writing():
            self._sections.write(f"{len(section)}\n{section}")
        self.shown += 1

    def left_out(self, kind: str) -> list[str]:
        """Return the sentence that says how many sections of a kind are not shown, if any."""
        if self.shown == self.count:
            return []
        return [
            f"Only the first {self.shown:,} of {self.count:,} {kind} are shown, because this page "
            f"is limited to {self.max_bytes >> 20} MB."
        ]

    def finish(self, template: str, **values: object) -> None:
        """Write the file. The template receives the sections as `sections`.

        Raises SourceError, and UsageError if another file has taken its place.
        """
        page = self._html.folder / "page"
        parts = self._environment.get_template(template).generate(
            sections=self._written(), **values
        )
        with self._html.writing(), page.open("w", encoding="utf-8") as file:
            file.writelines(parts)
        self._html.publish(page)

    def _written(self) -> Iterator[str]:
        self._sections.seek(0)
        while length := self._sections.readline():
            yield self._sections.read(int(length))


@dataclass(frozen=True, slots=True)
class Card:
    """What is shown of a hit. `link` is None where none would be safe or lead anywhere."""

    hit: Hit
    thumbnail: str | None
    name: str
    link: str | None
    fields: list[tuple[str, str]]


def write_gallery(
    file: str,
    query: images.Source | None,
    query_name: str,
    hits: Sequence[Hit],
    subtitle: str,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> None:
    """Write a gallery atomically. `query` is None for a search by text.

    Raises UsageError if the file exists and is not HTML, and SourceError if it cannot be written.
    """
    with HtmlFile(file) as html:
        page = _render(query, query_name, hits, subtitle, max_pixels)
        with html.writing():
            (html.folder / "page").write_text(page, encoding="utf-8")
        html.publish(html.folder / "page")


def environment() -> Environment:
    """Return the templates, which escape what they show."""
    made = Environment(
        loader=PackageLoader("imgsearch"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    made.filters["plain"] = plain
    made.filters["percentile"] = percentile_text
    return made


def _render(
    query: images.Source | None,
    query_name: str,
    hits: Sequence[Hit],
    subtitle: str,
    max_pixels: int,
) -> str:
    return (
        environment()
        .get_template("gallery/one.html")
        .render(
            query_name=query_name,
            has_image=query is not None,
            query_thumbnail=thumbnail(query, _SIDE, max_pixels) if query is not None else None,
            cards=[card(hit, thumbnail(hit.record, _SIDE, max_pixels)) for hit in hits],
            subtitle=subtitle,
            shown=SHOWN_FIELDS,
        )
    )


def card(hit: Hit, thumbnail: str | None) -> Card:
    """Return what is shown of a hit."""
    return Card(
        hit,
        thumbnail,
        name_of(hit.record),
        link_of(hit.record),
        [(name, str(value)) for name, value in hit.record.metadata.items()],
    )


def name_of(record: ImageRecord) -> str:
    """Return the name of a record's file."""
    return os.path.basename(readable_path(record.path)) or record.path


def link_of(record: ImageRecord) -> str | None:
    """Return the link to a record's file, None where none would be safe or lead anywhere."""
    uri = record.uri
    if uri.startswith("file:"):
        uri = "" if record.site else path_to_uri(record.path)
    # A store could hold a `javascript:` URI, and escaping does not make it harmless.
    return uri if uri.startswith(("file:", "http:", "https:")) else None


def plain(text: str) -> str:
    """Escape characters that could mislead a reader, or that UTF-8 cannot encode."""
    return _DECEPTIVE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def thumbnail(source: images.Source | ImageRecord, side: int, max_pixels: int) -> str | None:
    """Return a `data:` URI; None if the image is gone, unusable or has changed."""
    try:
        return images.thumbnail_data_uri(source, side, max_pixels)
    except ImageError:
        return None
