"""`imgsearch copy`."""

import threading
from typing import TYPE_CHECKING, Annotated

import typer

from imgsearch import config
from imgsearch.cli import options
from imgsearch.cli.console import Display, print_json, print_line
from imgsearch.cli.interrupt import INTERRUPTED, stop_on_signal

if TYPE_CHECKING:
    from imgsearch.copying import CopyReport


def copy(
    source: Annotated[
        str,
        typer.Option("--from", metavar="STORE", help="Store to copy from, in the form of --store."),
    ],
    target: Annotated[
        str, typer.Option("--to", metavar="STORE", help="Store to copy to, in the form of --store.")
    ],
    collection: options.Collection = config.DEFAULT_COLLECTION,
    name: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="NAME",
            help="Name of the copy. Default: the same name.",
            show_default=False,
        ),
    ] = None,
    vector_dtype: Annotated[
        options.VectorDtypeName | None,
        typer.Option(
            help="How a new collection of the embedded store keeps its vectors; float16 takes half "
            "the space. Default: like the source.",
            show_default=False,
        ),
    ] = None,
    store_timeout: options.StoreTimeout = config.DEFAULT_STORE_TIMEOUT,
    as_json: options.Json = False,
) -> None:
    """Copy a collection to another store without reading or encoding its images again.

    Repeated runs copy only what is new or changed. Nothing is removed from the target.
    """
    from imgsearch.copying import copy as run
    from imgsearch.stores import check_name, open_store

    check_name(name or collection)
    stop = threading.Event()
    with (
        Display() as display,
        open_store(source, store_timeout, display) as origin,
        open_store(target, store_timeout, display) as destination,
        stop_on_signal(stop, display),
    ):
        report = run(
            *(origin, destination, collection, name or collection, display, stop),
            vector_dtype=vector_dtype,
        )
    if as_json:
        print_json(report.to_dict())
    else:
        _print_summary(report)
    if report.interrupted or stop.is_set():
        raise typer.Exit(INTERRUPTED)
    if report.rejected:
        raise typer.Exit(1)


def _print_summary(report: "CopyReport") -> None:
    state = "interrupted: " if report.interrupted else ""
    print_line(
        f"{state}{report.found:,} found: {report.copied:,} copied, {report.skipped:,} skipped, "
        f"{report.rejected:,} rejected" + (", verified" if report.verified else "")
    )
    print_line(
        f"in {report.seconds:.1f} s; {report.collection} in {report.source} is {report.name} in "
        f"{report.target}"
    )
