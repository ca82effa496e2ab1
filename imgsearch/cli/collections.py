"""`imgsearch info` and `imgsearch remove`."""

import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imgsearch import config
from imgsearch.cli import options
from imgsearch.cli.console import Display, print_json, print_line, stderr
from imgsearch.errors import UsageError

if TYPE_CHECKING:
    from imgsearch.types import CollectionInfo


def info(store: options.Store = None, as_json: options.Json = False) -> None:
    """Show the collections of a store: models, images, fields, sizes."""
    from imgsearch.calibration import describe
    from imgsearch.stores import open_store

    with open_store(store, config.READER_STORE_TIMEOUT) as opened:
        collections = [describe(opened.open(name)) for name in opened.names()]
        url = opened.url
    if as_json:
        print_json({"store": url, "collections": [each.to_dict() for each in collections]})
        return
    print_line(f"store {url}")
    if not collections:
        print_line("no collections yet: create one with `imgsearch ingest FOLDER`")
    for each in collections:
        _print_collection(each)


def _print_collection(info: "CollectionInfo") -> None:
    size = f", {info.bytes / 1e6:,.1f} MB" if info.bytes is not None else ""
    stamp = info.stamp
    fields = ", ".join(f"{name} ({kind})" for name, kind in info.fields.items()) or "none"
    for line in (
        "",
        f"{info.name}: {info.images:,} images{size}",
        f"  model   {stamp.model}, {stamp.dimension} dimensions"
        + f", {stamp.variant}, weights {stamp.weights[:12]}" * (not stamp.made_elsewhere)
        + ", vectors stored as float16" * (info.vector_dtype == "float16"),
        f"  input   {stamp.preprocessing}",
        f"  fields  {fields}",
        f"  scores  {_calibrated(info.calibration)}",
        *(f"  {line}" for line in _details(info.details)),
    ):
        print_line(line)


def _calibrated(calibration: Mapping[str, Any] | None) -> str:
    if calibration is None:
        return "not calibrated"
    return (
        f"calibrated {calibration['made'][:10]} by {calibration['pairs']:,} pairs, when there were "
        f"{calibration['images']:,} images"
    )


def _details(details: Mapping[str, Any]) -> Iterator[str]:
    for name, value in details.items():
        label = name.removesuffix("_bytes").replace("_", " ")
        yield f"{label}: {_readable(name, value)}"


def _readable(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    if name.endswith("_bytes"):
        return f"{value / 1e6:,.1f} MB"
    return f"{value:,}" if isinstance(value, int) else str(value)


def remove(
    context: typer.Context,
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH...", help="Files, or folders (recursively).", show_default=False
        ),
    ] = None,
    collection: options.Collection = config.DEFAULT_COLLECTION,
    store: options.Store = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Remove a whole collection without confirmation.")
    ] = False,
    store_timeout: options.StoreTimeout = config.DEFAULT_STORE_TIMEOUT,
    as_json: options.Json = False,
) -> None:
    """Remove images from a collection, or a whole collection. Files are never touched.

    Removes the records of the PATHs, which need not exist any more. Without PATHs, but with an
    explicit --collection, removes the whole collection.
    """
    from imgsearch.index import ImageIndex

    display = Display()
    with ImageIndex(collection, store=store, timeout=store_timeout, listener=display) as index:
        if paths:
            removed = index.remove_paths(paths)
        else:
            # An environment variable is not enough, as it may have been set for other commands.
            source = context.get_parameter_source("collection")
            if source is None or source.name != "COMMANDLINE":
                raise UsageError("give the PATHs to remove, or a whole --collection NAME")
            _confirm(f"Remove collection {collection} with {index.count():,} images?", yes)
            removed = index.drop()
    if as_json:
        print_json({"collection": collection, "removed": removed})
    else:
        stderr().print(f"{removed:,} removed from {collection}", highlight=False)


def _confirm(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("removing a whole collection needs --yes when not run in a terminal")
    if not typer.confirm(question, err=True):
        raise typer.Exit(1)
