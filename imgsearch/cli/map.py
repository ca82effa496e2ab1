"""`imgsearch map`."""

import re
import threading
from typing import TYPE_CHECKING, Annotated

import typer

from imgsearch import config
from imgsearch.cli import options
from imgsearch.cli.console import Display, print_json, print_line
from imgsearch.cli.interrupt import INTERRUPTED, stop_on_signal
from imgsearch.errors import UsageError

if TYPE_CHECKING:
    from imgsearch.map import MapReport

_SHOWN_GROUPS = 6
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
        str | None,
        typer.Option(metavar="FILE", help="HTML file to write.", show_default=False),
    ] = None,
    png: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="PNG file to write: a picture.", show_default=False),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Parquet file for the places of the images. If it exists, they keep their places, "
            "and only new images are placed.",
            show_default=False,
        ),
    ] = None,
    color_by: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD",
            help="Metadata field whose colors the map shows first. Default: the groups that the "
            "map finds.",
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
    if not (output or png):
        raise UsageError("name the file to write with --output FILE.html or --png FILE.png")

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
            png=png,
            layout=layout,
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
        _print(report, output, png)


def _print(report: "MapReport", output: str | None, png: str | None) -> None:
    files = [f"{output}, {report.bytes / 1e6:,.1f} MB"] if output else []
    files += [png] if png else []
    seconds = sum(report.seconds.values())
    print_line(f"{report.images:,} images in {seconds:,.1f} s: {'; '.join(files)}", style="bold")
    if report.placed:
        print_line(f"{report.placed:,} are new and got a place; all others kept theirs")
    if report.groups:
        shown = [f"{each['name']} ({each['images']:,})" for each in report.groups[:_SHOWN_GROUPS]]
        more = len(report.groups) - len(shown)
        shown += [f"and {more:,} more"] if more > 0 else []
        print_line(f"groups: {'; '.join(shown)}")
    if output:
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
