"""`imgsearch map`."""

import re
import threading
from typing import TYPE_CHECKING, Annotated

import typer

from imgsearch import config
from imgsearch.cli import options
from imgsearch.cli.console import Display, print_json, print_line
from imgsearch.cli.interrupt import INTERRUPTED, stop_on_signal

if TYPE_CHECKING:
    from imgsearch.map import MapReport

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def _size(text: str) -> int:
    """Return the number of bytes of a text such as 50MB."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]?B?)\s*", text.upper())
    unit = found[2] if found else ""
    unit = f"{unit}B" if unit in ("K", "M", "G") else unit
    if not found or unit not in _UNITS:
        raise typer.BadParameter(f"{text} is not a size such as 50MB")
    return int(float(found[1]) * _UNITS[unit])


def map_images(
    output: Annotated[
        str,
        typer.Option(metavar="FILE", help="HTML file to write.", show_default=False),
    ],
    color_by: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD",
            help="Metadata field whose colors the map shows first. Default: a field with few "
            "values.",
            show_default=False,
        ),
    ] = None,
    where: options.Where = None,
    thumbnails: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Maximum number of images with a thumbnail. Default: as many as fit --max-size.",
            show_default=False,
        ),
    ] = None,
    max_size: Annotated[
        str,
        typer.Option(
            metavar="SIZE", help="Size that the file should not exceed; thumbnails take most of it."
        ),
    ] = "50MB",
    store: options.Store = None,
    collection: options.Collection = config.DEFAULT_COLLECTION,
    max_pixels: options.MaxPixels = config.DEFAULT_MAX_PIXELS,
    as_json: options.Json = False,
) -> None:
    """Draw a map of all images, on which similar ones are close, as one HTML file.

    The file needs no server and no network. It has the paths and metadata of all images, and
    thumbnails of as many as fit. Needs the extra `map`.
    """
    from imgsearch.index import ImageIndex
    from imgsearch.map.layout import require

    require()
    stop = threading.Event()
    with (
        Display(quiet=as_json) as display,
        ImageIndex(
            collection,
            store=store,
            max_pixels=max_pixels,
            timeout=config.READER_STORE_TIMEOUT,
            listener=display,
        ) as index,
        stop_on_signal(stop, display),
    ):
        report = index.map(
            output,
            color_by=color_by,
            where=where or (),
            thumbnails=thumbnails,
            max_bytes=_size(max_size),
            stop=stop,
        )
    if report is None:
        raise typer.Exit(INTERRUPTED)
    if as_json:
        print_json(report.to_dict())
    else:
        _print(report, output)


def _print(report: "MapReport", output: str) -> None:
    print_line(
        f"{report.images:,} images in {sum(report.seconds.values()):,.1f} s: {output}, "
        f"{report.bytes / 1e6:,.1f} MB",
        style="bold",
    )
    print_line(
        f"{report.thumbnails:,} have a thumbnail"
        + (f" of {report.thumbnail_side} pixels" if report.thumbnails else "")
    )
    if report.unreadable:
        print_line(
            f"{report.unreadable:,} have none because their file is gone, has changed, or cannot "
            "be read",
            style="yellow",
        )
