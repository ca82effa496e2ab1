"""`imgsearch ingest`."""

import sys
import threading
from typing import TYPE_CHECKING, Annotated

import typer

from imgsearch import config
from imgsearch.cli import options
from imgsearch.cli.console import Display, print_json, print_line, reporting
from imgsearch.cli.interrupt import INTERRUPTED, stop_on_signal
from imgsearch.errors import UsageError

if TYPE_CHECKING:
    from imgsearch.ingest import IngestReport


def ingest(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Folders (recursively), files, quoted globs, URLs such as s3://bucket/photos, "
            "tar, zip and Parquet files, or - for a list of paths on stdin, separated by newlines "
            "or NUL.",
            show_default=False,
        ),
    ],
    store: options.Store = None,
    collection: options.Collection = config.DEFAULT_COLLECTION,
    model: options.Model = config.DEFAULT_MODEL,
    weights: options.Weights = None,
    device: options.Device = config.DEFAULT_DEVICE,
    precision: options.Precision = None,
    vector_dtype: options.VectorDtype = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Images per batch of the model. Default: 32 on the CPU, 128 on a GPU.",
            show_default=False,
        ),
    ] = None,
    workers: options.Workers = None,
    metadata: Annotated[
        str | None,
        typer.Option(
            metavar="CSV",
            help="Table with metadata of the images, joined by the column that names their files, "
            "such as id (without extension), filename or path. Default: the styles.csv of each "
            "folder.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Stop after N images.", show_default=False),
    ] = None,
    max_pixels: options.MaxPixels = config.DEFAULT_MAX_PIXELS,
    prune: Annotated[
        bool,
        typer.Option("--prune", help="Remove the records of files that no longer exist."),
    ] = False,
    prune_missing: Annotated[
        bool,
        typer.Option(
            "--prune-missing",
            help="Like --prune, also in folders where most files are missing. --prune skips them, "
            "because a drive may not be mounted.",
        ),
    ] = False,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="With --model, --precision or --vector-dtype: make a new collection, which "
            "replaces the old one atomically once it is complete. Another model or precision "
            "embeds all images again.",
        ),
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Exit with 1 if an image was rejected or a folder is unreadable."
        ),
    ] = False,
    report: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.jsonl",
            help="Write a JSON line for every file that was not skipped: uri, status, reason.",
            show_default=False,
        ),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(
            metavar="ray|HOST:PORT|local",
            help="Read, decode and encode on a Ray cluster: ray is that of RAY_ADDRESS or this "
            "machine, local starts one here for the run. --workers is then the cores of a worker.",
            show_default=False,
        ),
    ] = None,
    store_timeout: options.StoreTimeout = config.DEFAULT_STORE_TIMEOUT,
    as_json: options.Json = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print only errors (and --json).")
    ] = False,
) -> None:
    """Add images to a collection. Repeated runs process only what is new or changed.

    Unchanged files are skipped without being opened; renamed and copied files reuse their vectors.
    Ctrl-C finishes what is in flight; a second one stops immediately. The next run continues.
    """
    from imgsearch.index import ImageIndex
    from imgsearch.sources import read_list

    if replace and model == config.DEFAULT_MODEL and not (precision or vector_dtype):
        raise UsageError("--replace needs --model, --precision or --vector-dtype")
    stop = threading.Event()
    with (
        Display(quiet=quiet) as display,
        reporting(display, report) as listener,
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
        result = index.add(
            *sources,
            metadata=metadata,
            batch_size=batch_size,
            workers=workers,
            limit=limit,
            prune=prune or prune_missing,
            prune_missing=prune_missing,
            replace=replace,
            count_ahead=display.shows_bar,
            on=on,
            stdin=read_list(sys.stdin.buffer) if "-" in sources else (),
            listener=listener,
            stop=stop,
        )
    if as_json:
        print_json(result.to_dict())
    elif not quiet:
        _print_summary(result, report)
    if result.interrupted or stop.is_set():
        raise typer.Exit(INTERRUPTED)
    if strict and (result.rejected or result.unreadable):
        raise typer.Exit(1)


def _print_summary(result: "IngestReport", report: str | None) -> None:
    made_by = f"{result.runtime} on {result.device} in {result.compute_type}"
    print_line(
        f"{'interrupted: ' if result.interrupted else ''}{result.found:,} found: "
        f"{result.indexed:,} indexed, {result.reused:,} reused, {result.skipped:,} skipped, "
        f"{result.rejected:,} rejected"
        + (f", {result.removed:,} removed" * bool(result.removed))
        + (", verified" * result.verified),
        style="bold",
    )
    prepared = f", {result.preparing:.1f} s of them to prepare the model" * (result.preparing >= 1)
    speed = f", {result.images_per_second:,.1f} images per second" if result.indexed else ""
    then = " from then on" * bool(prepared and speed)
    print_line(
        f"in {result.seconds:.1f} s{prepared}{speed}{then}; collection {result.collection}"
        + (f", {result.model}" * bool(result.model))
        + (f" ({made_by})" * bool(result.runtime))
    )
    if result.indexed:
        busy = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in result.busy.items())
        limit = f"the limit was {result.limit}" if result.limit else "no stage was the limit"
        print_line(f"at work: {busy}; {limit}")
    if result.cluster and result.cluster.nodes:
        nodes = ", ".join(f"{name} {images:,}" for name, images in result.cluster.nodes.items())
        lost = f"; {result.cluster.lost:,} chunks were lost and done again"
        print_line(
            f"cluster: {result.cluster.workers:,} workers; images by node: {nodes}"
            + lost * bool(result.cluster.lost)
        )
    print_line(f"store {result.store}")
    for table in result.metadata:
        print_line(
            f"metadata {table.file}: {table.rows:,} rows by {table.column}, "
            f"{table.malformed_rows:,} malformed"
            + _lines(table.malformed)
            + f", {table.duplicates:,} repeated, {table.rows_without_image:,} without an image; "
            f"{table.images_without_row:,} images without a row"
        )
    from imgsearch.uris import is_shard, uri_to_path

    if result.left_out or result.other_files:
        print_line(
            f"ignored: {result.left_out:,} hidden or system entries, "
            f"{result.other_files:,} files that are not images"
        )
    for path, reason in result.unreadable:
        kind = "shard" if is_shard(path) else "folder"
        print_line(f"unreadable {kind} {path}: {reason}", style="yellow")
    for folder in result.unpruned:
        print_line(
            f"not pruned {folder.path}: {folder.missing:,} files are missing, {folder.present:,} "
            "exist; if that is right, --prune-missing removes their records",
            style="yellow",
        )
    for problem in result.problems:
        print_line(f"rejected {uri_to_path(problem.uri)}: {problem.reason}", style="yellow")
    more = result.rejected - len(result.problems)
    if more > 0:
        where = f"{report} lists them" if report else "--report FILE lists them"
        print_line(f"and {more:,} more rejected: {where}", style="yellow")


def _lines(numbers: list[int]) -> str:
    if not numbers:
        return ""
    shown = ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
    return f" (line{'s' if len(numbers) > 1 else ''} {shown})"
