"""Write hits to a self-contained HTML file, with thumbnails and without scripts."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader

from imgsearch import images
from imgsearch.config import DEFAULT_MAX_PIXELS
from imgsearch.errors import ImageError, ScratchError
from imgsearch.system import scratch
from imgsearch.system.atomic import publish
from imgsearch.system.outputs import check_replaceable, not_written
from imgsearch.types import Hit, ImageRecord
from imgsearch.uris import path_to_uri

_HTML = (b"<!doctype html", b"<html")

# Control characters and marks of writing direction, which can make one name look like another.
# Joiners are not among them, because some scripts and emoji need them.
_DECEPTIVE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)

# Metadata fields shown for each hit; the others unfold.
_SHOWN_FIELDS = 4


@dataclass(frozen=True, slots=True)
class _Card:
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
    # Replace the target of a link, not the link.
    target = Path(os.path.realpath(file))
    check_replaceable(file, "an HTML file", _HTML)
    page = _render(query, query_name, hits, subtitle, max_pixels)
    try:
        target.parent.stat()  # a missing folder is an error, as scratch.folder would create it
        with scratch.folder([target.parent]) as part:
            (part / "page").write_text(page, encoding="utf-8")
            publish(part / "page", target)
    except (OSError, ScratchError) as error:
        raise not_written(file, error) from error


def _render(
    query: images.Source | None,
    query_name: str,
    hits: Sequence[Hit],
    subtitle: str,
    max_pixels: int,
) -> str:
    environment = Environment(
        loader=PackageLoader("imgsearch"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["plain"] = plain
    return environment.get_template("gallery.html").render(
        query_name=query_name,
        has_image=query is not None,
        query_thumbnail=_thumbnail(query, max_pixels) if query is not None else None,
        cards=[_card(hit, max_pixels) for hit in hits],
        subtitle=subtitle,
        shown=_SHOWN_FIELDS,
    )


def _card(hit: Hit, max_pixels: int) -> _Card:
    path, uri = hit.record.path, hit.record.uri
    if uri.startswith("file:"):
        uri = "" if hit.record.site else path_to_uri(path)
    return _Card(
        hit,
        _thumbnail(hit.record, max_pixels),
        os.path.basename(path) or path,
        # A store could hold a `javascript:` URI, and escaping does not make it harmless.
        uri if uri.startswith(("file:", "http:", "https:")) else None,
        [(name, str(value)) for name, value in hit.record.metadata.items()],
    )


def plain(text: str) -> str:
    """Escape characters that could mislead a reader, or that UTF-8 cannot encode."""
    return _DECEPTIVE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _thumbnail(source: images.Source | ImageRecord, max_pixels: int) -> str | None:
    try:
        return images.thumbnail_data_uri(source, max_pixels=max_pixels)
    except ImageError:
        return None
