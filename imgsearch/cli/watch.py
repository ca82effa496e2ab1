"""`imgsearch watch`."""

import sys
import threading
import time
from typing import TYPE_CHECKING, Annotated

import typer

from imgsearch import config
from imgsearch.cli import options
from imgsearch.cli.console import Display, print_line
from imgsearch.cli.interrupt import stop_on_signal

if TYPE_CHECKING:
    from imgsearch.ingest import IngestReport


def watch(
    folders: Annotated[
        list[str],
        typer.Argument(metavar="DIR...", help="Folders (recursively).", show_default=False),
    ],
    store: options.Store = None,
    collection: options.Collection = config.DEFAULT_COLLECTION,
    model: options.Model = config.DEFAULT_MODEL,
    weights: options.Weights = None,
    device: options.Device = config.DEFAULT_DEVICE,
    precision: options.Precision = None,
    vector_dtype: options.VectorDtype = None,
    max_pixels: options.MaxPixels = config.DEFAULT_MAX_PIXELS,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune",
            help="Remove the records of files that are deleted. Never if a folder is missing or "
            "empty, or most of its files are missing: a drive may not be mounted.",
        ),
    ] = False,
    settle: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0,
            callback=options.finite,
            help="How long a file must not change before it is read.",
        ),
    ] = 0.5,
    rescan: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=1,
            callback=options.finite,
            help="Scan the folders again after this time, in case the system lost events.",
        ),
    ] = 3600.0,
    store_timeout: options.StoreTimeout = config.DEFAULT_STORE_TIMEOUT,
) -> None:
    """Add the images of folders to a collection, then what changes in them, until stopped.

    A renamed file keeps its vector and metadata. SIGTERM or Ctrl-C finishes what is in flight; the
    exit code is then 0.
    """
    from imgsearch.index import ImageIndex

    stop = threading.Event()
    with (
        Display() as display,
        ImageIndex(
            collection,
            store=store,
            model=model,
            weights=weights,
            device=device,
            precision=precision,
            vector_dtype=vector_dtype,
            max_pixels=max_pixels,
            timeout=store_timeout,
            listener=display,
        ) as index,
        stop_on_signal(stop, display),
    ):
        index.watch(*folders, prune=prune, settle=settle, rescan=rescan, reported=_print, stop=stop)


def _print(report: "IngestReport") -> None:
    counts = {
        "indexed": report.indexed,
        "reused": report.reused,
        "rejected": report.rejected,
        "removed": report.removed,
    }
    outcomes = ", ".join(f"{count:,} {status}" for status, count in counts.items() if count)
    print_line(f"{time.strftime('%H:%M:%S')} {outcomes} in {report.seconds:.1f} s")
    from imgsearch.uris import uri_to_path

    for problem in report.problems:
        print_line(f"rejected {uri_to_path(problem.uri)}: {problem.reason}", style="yellow")
    sys.stdout.flush()  # a log file shows it at once
