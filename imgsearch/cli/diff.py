"""`imgsearch diff`."""

import contextlib
import json
import os
import sys
import threading
from typing import TYPE_CHECKING, Annotated

import typer

from imgsearch import config
from imgsearch.cli import options
from imgsearch.cli.console import Display, print_line, short_path, stdout
from imgsearch.cli.interrupt import INTERRUPTED, stop_on_signal
from imgsearch.errors import UsageError

if TYPE_CHECKING:
    from imgsearch.analysis.diff import Diff, Difference
    from imgsearch.index import ImageIndex


def diff(
    first: Annotated[
        str,
        typer.Argument(metavar="A", help="A collection, a folder or a URL.", show_default=False),
    ],
    second: Annotated[
        str,
        typer.Argument(
            metavar="B",
            help="What to compare it with. One of A and B must be a collection.",
            show_default=False,
        ),
    ],
    store: options.Store = None,
    other_store: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Store of B, in the form of --store. Default: the same store.",
            show_default=False,
        ),
    ] = None,
    near: Annotated[
        bool,
        typer.Option(
            "--near/--no-near",
            help="Look for near-copies among the added and removed images. New files of a folder "
            "are encoded for that.",
        ),
    ] = True,
    device: options.Device = config.DEFAULT_DEVICE,
    as_json: options.Json = False,
) -> None:
    """Compare two collections, or a folder and a collection. Exits with 1 if they differ.

    Lists what B has and A has not (added), the opposite (removed), changed content, equal content
    at another place (moved), and near-copies: added images that look like removed ones, such as
    re-encoded files. A folder is compared with the records of the files in it.
    """
    from imgsearch.index import ImageIndex

    stop = threading.Event()
    with contextlib.ExitStack() as cleanup:
        display = cleanup.enter_context(Display(quiet=as_json))

        def opened(name: str, url: str | None) -> "ImageIndex | str":
            if os.path.basename(name) != name or name in (os.curdir, os.pardir):
                return os.path.expanduser(name)
            index = ImageIndex(
                name,
                store=url,
                device=device,
                timeout=config.READER_STORE_TIMEOUT,
                listener=display,
            )
            cleanup.callback(index.close)
            return name if os.path.isdir(name) and not index.exists() else index

        one, other = opened(first, store), opened(second, other_store or store)
        if isinstance(one, str) and isinstance(other, str):
            raise UsageError(f"{first} and {second} are both folders: ingest one of them")
        cleanup.enter_context(stop_on_signal(stop, display))
        if isinstance(one, str):
            assert not isinstance(other, str)
            found = other.diff(one, near=near, reverse=True, stop=stop)
        else:
            found = one.diff(other, near=near, stop=stop)
        if as_json:
            _print_json(first, second, found)
        else:
            _print(found)
    if stop.is_set():
        raise typer.Exit(INTERRUPTED)
    if found.differs:
        raise typer.Exit(1)


def _print(found: "Diff") -> None:
    console = stdout()
    for each in found:
        print_line(f"{each.kind:<10} {_described(each)}", console=console)
    counts = [
        f"{count:,} {kind}" for kind, count in found.counts.items() if count or kind == "equal"
    ]
    print_line(", ".join(counts), style="bold")


def _described(difference: "Difference") -> str:
    text = short_path(difference.path)
    if difference.to is not None:
        text += f" -> {short_path(difference.to)}"
    if difference.score is not None:
        text += f"  {difference.score:.4f}"
    return text if difference.reason is None else f"{text}: {difference.reason}"


def _print_json(first: str, second: str, found: "Diff") -> None:
    """Print one object, piece by piece, as there may be any number of differences."""
    write = sys.stdout.write
    write(f'{{\n  "a": {json.dumps(first)},\n  "b": {json.dumps(second)},\n  "differences": [')
    separator = "\n    "
    for each in found:
        write(separator + json.dumps(each.to_dict()))
        separator = ",\n    "
    counts = {kind.replace("-", "_"): count for kind, count in found.counts.items()}
    write(
        f'\n  ],\n  "differs": {json.dumps(found.differs)},\n  "counts": {json.dumps(counts)}\n}}\n'
    )
