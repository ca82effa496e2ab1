"""`imgsearch query`."""

import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated

import typer

from imgsearch import config
from imgsearch.cli import options
from imgsearch.cli.console import Display, print_json, printable, short_path, stdout
from imgsearch.cli.query_many import (
    NO_GOOD_MATCH,
    ManyOptions,
    are_many,
    fields_to_show,
    query_many,
)
from imgsearch.errors import SourceError, UsageError
from imgsearch.uris import MemberUrl, ObjectUrl, readable_path

if TYPE_CHECKING:
    from imgsearch.types import Hit

_SHOWN_FIELDS = 4


def query(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[IMAGE]...",
            help="The image, a file or a URL such as s3://bucket/shoe.jpg, or - to read it from "
            "stdin. Optional with --text. With several files, folders, quoted globs, or a list of "
            "paths on stdin: search with each image.",
            show_default=False,
        ),
    ] = None,
    record: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID",
            help="Search with an image of the collection by its id (see --json), in place of "
            "IMAGE. Repeatable: by what they have in common.",
            show_default=False,
        ),
    ] = None,
    vector: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.npy",
            help="Search with a vector of the collection's model, in place of IMAGE; with several "
            "in the file, with each.",
            show_default=False,
        ),
    ] = None,
    text: Annotated[
        str,
        typer.Option(
            "--text",
            "-t",
            metavar="WORDS",
            help="Words to search for in descriptions and all other text metadata. With IMAGE, the "
            "hits of both are combined.",
            show_default=False,
        ),
    ] = "",
    k: Annotated[
        int, typer.Option("--k", "-k", min=1, metavar="K", help="Maximum number of hits.")
    ] = 10,
    where: options.Where = None,
    min_score: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            min=-1.0,
            max=1.0,
            callback=options.finite,
            help="Only hits with at least this cosine similarity to IMAGE.",
            show_default=False,
        ),
    ] = None,
    confident: Annotated[
        bool,
        typer.Option(
            "--confident",
            help="Only hits that are hardly there by chance, or none: images that stand out from "
            "all others like IMAGE.",
        ),
    ] = False,
    exclude_self: Annotated[
        bool,
        typer.Option("--exclude-self", help="Exclude IMAGE itself and its exact copies."),
    ] = False,
    copies: Annotated[
        bool,
        typer.Option("--copies", help="Show every copy of identical images, not one for all."),
    ] = False,
    show: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD",
            help=f"Metadata field to show in the table; repeatable. Default: the first "
            f"{_SHOWN_FIELDS}.",
            show_default=False,
        ),
    ] = None,
    as_json: options.Json = False,
    paths: Annotated[bool, typer.Option("--paths", help="Print only paths.")] = False,
    null: Annotated[
        bool,
        typer.Option("--null", "-0", help="With --paths, end each path with NUL, for xargs -0."),
    ] = False,
    gallery: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.html",
            help="Also write the hits to one HTML file with thumbnails. With many images, it shows "
            "the first ones, up to 32 MB.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="With many images: write a row for each hit to a .parquet, .csv or .jsonl file.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue an interrupted run with the same --output."),
    ] = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="With many images: exit with 1 if one was rejected."),
    ] = False,
    workers: options.Workers = None,
    store: options.Store = None,
    collection: options.Collection = config.DEFAULT_COLLECTION,
    weights: options.Weights = None,
    device: options.Device = config.DEFAULT_DEVICE,
    max_pixels: options.MaxPixels = config.DEFAULT_MAX_PIXELS,
) -> None:
    """Find images similar to IMAGE, matching --text, or both.

    The score is the cosine similarity to IMAGE, 1 for identical images; without IMAGE, it is the
    text relevance (BM25). "Closer than" is the share of the collection's pairs of different images
    that are less similar than IMAGE and the hit. With many images, each has a result of its own:
    --json prints a line for each, and --output writes a table.
    """
    if as_json and paths:
        raise UsageError("--json and --paths: use only one of them")
    if null and not paths:
        raise UsageError("--null needs --paths")
    if bool(sources) + bool(record) + (vector is not None) > 1:
        raise UsageError("IMAGE, --record and --vector: use only one of them")
    if vector is not None and exclude_self:
        raise UsageError("--exclude-self needs an IMAGE or --record: a vector has no content")
    if vector is not None and gallery:
        raise UsageError("--gallery needs an IMAGE, --record or --text")
    many = vector is not None or are_many(sources)
    if (output or resume or strict or workers) and not many:
        raise UsageError("--output, --resume, --strict and --workers are for many images")
    if many:
        query_many(
            sources or (),
            ManyOptions(
                vector=vector,
                text=text,
                k=k,
                where=where or [],
                min_score=min_score,
                confident=confident,
                exclude_self=exclude_self,
                copies=copies,
                show=show or [],
                as_json=as_json,
                paths=paths,
                null=null,
                gallery=gallery,
                output=output,
                resume=resume,
                strict=strict,
                workers=workers,
                store=store,
                collection=collection,
                weights=weights,
                device=device,
                max_pixels=max_pixels,
            ),
        )
        return
    image = sources[0] if sources else None
    if image is None and not record:
        _check_words(text, min_score=min_score, confident=confident, exclude_self=exclude_self)
    started = time.monotonic()
    source = None if image is None else _read_query(image)

    # Threads of numpy take a while to start, and a query multiplies no matrices.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    from imgsearch.index import ImageIndex
    from imgsearch.search import SearchRequest

    with (
        Display(quiet=as_json or paths) as display,
        ImageIndex(
            collection,
            store=store,
            weights=weights,
            device=device,
            max_pixels=max_pixels,
            timeout=config.READER_STORE_TIMEOUT,
            listener=display,
        ) as index,
        ThreadPoolExecutor(1) as meanwhile,
    ):
        if source is not None:
            index.warm_up(source)
        stamp = index.collection.stamp
        if not (as_json or paths):
            meanwhile.submit(_load_table)
        fields = fields_to_show(show, list(index.fields), _SHOWN_FIELDS)
        hits = index.find(
            SearchRequest(
                images=() if source is None else [source],
                records=record or (),
                text=text,
                k=k,
                where=where or (),
                min_score=min_score,
                confident=confident,
                exclude_self=exclude_self,
                collapse=not copies,
            )
        )
        seconds = time.monotonic() - started
        if gallery:
            from imgsearch.gallery import write_gallery

            subtitle = f"{len(hits)} of {index.count():,} images in {collection}, by "
            subtitle += stamp.model
            name = _name(image, record or (), text)
            write_gallery(gallery, source, name, hits, subtitle, max_pixels)
    if as_json:
        print_json(
            {
                "collection": collection,
                "model": stamp.model,
                "query": image or (record[0] if record and len(record) == 1 else record or None),
                "text": text or None,
                "seconds": round(seconds, 4),
                "hits": [hit.to_dict() for hit in hits],
            }
        )
    elif paths:
        end = b"\0" if null else b"\n"
        sys.stdout.buffer.writelines(os.fsencode(hit.record.path) + end for hit in hits)
    else:
        _print_table(hits, fields, words=bool(text and (image or record)), confident=confident)
        if gallery:
            display.say(f"gallery: {gallery}")


def _check_words(
    text: str, *, min_score: float | None, confident: bool, exclude_self: bool
) -> None:
    if not text.strip():
        raise UsageError(
            "nothing to search for: give an IMAGE, words with --text, --record or --vector"
        )
    if min_score is not None or exclude_self:
        raise UsageError("--min-score and --exclude-self need an IMAGE")
    if confident:
        raise UsageError("--confident needs an IMAGE to compare the hits with")


def _name(image: str | None, records: Sequence[str], text: str) -> str:
    query = "standard input" if image == "-" else os.path.basename(readable_path(image or ""))
    query = query or ", ".join(records)
    return ", ".join(filter(None, [query, text and f"“{text}”"]))


def _load_table() -> None:
    """Load what the table needs while the store searches."""
    import rich.table  # noqa: F401


def _read_query(image: str) -> str | bytes:
    if image == "-":
        return sys.stdin.buffer.read()
    if url := ObjectUrl.parse(image) or MemberUrl.named(image):
        return str(url)
    path = os.path.expanduser(image)
    if not os.path.exists(path):
        raise SourceError(f"{image}: no such file")
    if not os.path.isfile(path):
        raise SourceError(f"{image}: is not a file")
    return path


def _print_table(
    hits: Sequence["Hit"], fields: Sequence[str], *, words: bool, confident: bool
) -> None:
    """Print hits as a table; `words` adds a column for the text relevance."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from imgsearch.calibration import percentile_text

    console = stdout()
    if not hits:
        console.print(NO_GOOD_MATCH if confident else "nothing matches")
        return
    ranked = any(hit.percentile is not None for hit in hits)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("#", justify="right")
    table.add_column("score", justify="right")
    if ranked:
        table.add_column("closer than", justify="right")
    if words:
        table.add_column("words", justify="right")
    table.add_column("path", overflow="fold")
    for field in fields:
        table.add_column(Text(printable(field)), overflow="fold")
    for hit in hits:
        path = Text(printable(short_path(hit.record.path)))
        if hit.copies > 1:
            path.append(f"  x{hit.copies}", style="bold cyan")
        values = (hit.record.metadata.get(field, "") for field in fields)
        cells = [Text(printable(str(value))) for value in values]
        scores = [f"{hit.score:.4f}"]
        if ranked:
            scores.append("" if hit.percentile is None else percentile_text(hit.percentile))
        if words:
            scores.append("" if hit.text_score is None else f"{hit.text_score:.4f}")
        table.add_row(str(hit.rank), *scores, path, *cells)
    console.print(table)
