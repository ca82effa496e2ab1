"""The hits as one HTML file that needs nothing else: thumbnails inside, no script, no network."""

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

# Control characters, and those that turn the direction of writing: a name with one of them can
# look like another. Joiners stay, because some scripts and emoji need them.
_DECEPTIVE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)

# Fields of a hit that are shown at once; the others unfold.
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
    """Write the gallery, whole or not at all. Words without a picture are no `query`.

    Raises UsageError rather than overwrite a file that is no HTML, SourceError if it cannot be
    written.
    """
    # Where a link leads, so that it stays one.
    target = Path(os.path.realpath(file))
    check_replaceable(file, "an HTML file", _HTML)
    page = _render(query, query_name, hits, subtitle, max_pixels)
    try:
        target.parent.stat()  # it is not made
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
        has_picture=query is not None,
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
        # Escaping makes no link harmless: a store could hold `javascript:`.
        uri if uri.startswith(("file:", "http:", "https:")) else None,
        [(name, str(value)) for name, value in hit.record.metadata.items()],
    )


def plain(text: str) -> str:
    """`text` with whatever could deceive the eye, or no file can hold, written as escapes."""
    return _DECEPTIVE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _thumbnail(source: images.Source | ImageRecord, max_pixels: int) -> str | None:
    try:
        return images.thumbnail_data_uri(source, max_pixels=max_pixels)
    except ImageError:
        return None
