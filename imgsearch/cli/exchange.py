"""`imgsearch export` and `imgsearch import`."""

import threading
from typing import TYPE_CHECKING, Annotated

import typer

from imgsearch import config
from imgsearch.cli import options
from imgsearch.cli.console import Display, print_json, print_line, reporting
from imgsearch.cli.interrupt import INTERRUPTED, stop_on_signal

if TYPE_CHECKING:
    from imgsearch.exchange import ExportReport, ImportReport


def export(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="A .parquet file, or a .npy file, which gets a .csv file with the records beside "
            "it. An earlier export is replaced.",
            show_default=False,
        ),
    ],
    store: options.Store = None,
    collection: options.Collection = config.DEFAULT_COLLECTION,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'FIELD OP VALUE'",
            help="Only images whose metadata matches; = != < <= > >=, for example 'year>=2012'. "
            "Repeatable: all conditions must hold.",
            show_default=False,
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Write vectors, URIs and metadata to files that other programs read.

    Prints how to open them in FiftyOne, embedding-atlas and faiss. `imgsearch import` reads them
    back. The files appear when they are complete.
    """
    from imgsearch.index import ImageIndex

    stop = threading.Event()
    with (
        Display(quiet=as_json) as display,
        ImageIndex(
            collection, store=store, timeout=config.READER_STORE_TIMEOUT, listener=display
        ) as index,
        stop_on_signal(stop, display),
    ):
        report = index.export(file, where=where or (), stop=stop)
    if as_json:
        print_json(report.to_dict())
    else:
        _print_export(report)
    if report.interrupted:
        raise typer.Exit(INTERRUPTED)


def _print_export(report: "ExportReport") -> None:
    if report.interrupted:
        print_line("interrupted: no file was written")
        return
    print_line(
        f"{report.images:,} images of {report.collection} exported in {report.seconds:.1f} s: "
        f"vectors of {report.model}, {report.dimension} dimensions, {report.bytes / 1e6:,.1f} MB",
        style="bold",
    )
    for file in report.files:
        print_line(file)
    from imgsearch.cli.openers import instructions

    for program, lines in instructions(report.collection, report.files).items():
        print_line()
        print_line(f"In {program}:", style="bold")
        for line in lines.splitlines():
            print_line(f"    {line}" if line else "")


def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A .parquet file with a column of vectors, a .npy file with a table beside it, or "
            "a folder of such files, as clip-retrieval writes it.",
            show_default=False,
        ),
    ],
    store: options.Store = None,
    collection: options.Collection = config.DEFAULT_COLLECTION,
    model_name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The model that made the vectors, if imgsearch did not export them.",
            show_default=False,
        ),
    ] = None,
    table: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Table with a row for each vector of a .npy file: .csv or .parquet. Default: the "
            "one of the same name, or as clip-retrieval names it.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="The folder that relative paths of images are relative to. Default: the current "
            "one, for files that exist.",
            show_default=False,
        ),
    ] = None,
    vector_column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The column of vectors, if a Parquet file has several.",
            show_default=False,
        ),
    ] = None,
    vector_dtype: options.VectorDtype = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if a row was rejected.")
    ] = False,
    report: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.jsonl",
            help="Write a JSON line for every row that was not skipped: uri, status, reason.",
            show_default=False,
        ),
    ] = None,
    store_timeout: options.StoreTimeout = config.DEFAULT_STORE_TIMEOUT,
    as_json: options.Json = False,
) -> None:
    """Add vectors and metadata from files: of `imgsearch export`, or of another program.

    An export comes back as it was. Vectors of another program are searched by --record and
    --vector, as imgsearch has no encoder for query images of their model.
    """
    from imgsearch.index import ImageIndex

    stop = threading.Event()
    with (
        Display(quiet=as_json) as display,
        reporting(display, report) as listener,
        ImageIndex(
            collection,
            store=store,
            vector_dtype=vector_dtype,
            timeout=store_timeout,
            listener=display,
        ) as index,
        stop_on_signal(stop, display),
    ):
        result = index.import_vectors(
            source,
            model_name=model_name,
            table=table,
            images=images,
            vector_column=vector_column,
            listener=listener,
            stop=stop,
        )
    if as_json:
        print_json(result.to_dict())
    else:
        _print_import(result, report)
    if result.interrupted:
        raise typer.Exit(INTERRUPTED)
    if strict and result.rejected:
        raise typer.Exit(1)


def _print_import(result: "ImportReport", report: str | None) -> None:
    print_line(
        f"{'interrupted: ' if result.interrupted else ''}{result.found:,} found: "
        f"{result.imported:,} imported, {result.skipped:,} skipped, {result.rejected:,} rejected"
        + ", verified"
        * result.verified,
        style="bold",
    )
    made = "made elsewhere, " if result.made_elsewhere else ""
    print_line(
        f"in {result.seconds:.1f} s; collection {result.collection}, {result.model} ({made}"
        f"{result.dimension} dimensions)"
    )
    print_line(f"store {result.store}")
    if result.made_elsewhere:
        print_line(
            f"images whose file is on this machine: {result.files_read:,}; search with --record "
            "or --vector"
        )
    if result.ignored_columns:
        print_line(f"ignored columns: {', '.join(result.ignored_columns)}", style="yellow")
    for problem in result.problems:
        print_line(f"rejected {problem.uri}: {problem.reason}", style="yellow")
    more = result.rejected - len(result.problems)
    if more > 0:
        where = f"{report} lists them" if report else "--report FILE lists them"
        print_line(f"and {more:,} more rejected: {where}", style="yellow")
