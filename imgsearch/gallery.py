"""Write hits to a self-contained HTML file, with thumbnails and without scripts."""

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from jinja2 import Environment, PackageLoader

from imgsearch import images
from imgsearch.calibration import percentile_text
from imgsearch.config import DEFAULT_MAX_PIXELS
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
    path, uri = hit.record.path, hit.record.uri
    if uri.startswith("file:"):
        uri = "" if hit.record.site else path_to_uri(path)
    return Card(
        hit,
        thumbnail,
        os.path.basename(readable_path(path)) or path,
        # A store could hold a `javascript:` URI, and escaping does not make it harmless.
        uri if uri.startswith(("file:", "http:", "https:")) else None,
        [(name, str(value)) for name, value in hit.record.metadata.items()],
    )


def plain(text: str) -> str:
    """Escape characters that could mislead a reader, or that UTF-8 cannot encode."""
    return _DECEPTIVE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def thumbnail(source: images.Source | ImageRecord, side: int, max_pixels: int) -> str | None:
    """Return a `data:` URI; None if the image is gone, unusable or has changed."""
    try:
        return images.thumbnail_data_uri(source, side, max_pixels)
    except ImageError:
        return None
