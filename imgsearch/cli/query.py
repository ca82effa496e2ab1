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
from imgsearch.cli.console import Display, print_json, printable, stdout
from imgsearch.errors import SourceError, UsageError

if TYPE_CHECKING:
    from imgsearch.types import Hit

_SHOWN_FIELDS = 4


def query(
    image: Annotated[
        str | None,
        typer.Argument(
            metavar="[IMAGE]",
            help="The picture, or - for one on stdin. May be left out with --text.",
            show_default=False,
        ),
    ] = None,
    text: Annotated[
        str,
        typer.Option(
            "--text",
            "-t",
            metavar="WORDS",
            help="Words to look for in the descriptions and all other texts of the metadata: "
            "alone, or beside IMAGE, where hits are those of both.",
            show_default=False,
        ),
    ] = "",
    k: Annotated[int, typer.Option("--k", "-k", min=1, metavar="K", help="How many hits.")] = 10,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'FIELD OP VALUE'",
            help="Only pictures whose metadata fits: = != < <= > >=, for example 'year>=2012'. "
            "Repeated, all must hold.",
            show_default=False,
        ),
    ] = None,
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
    exclude_self: Annotated[
        bool,
        typer.Option("--exclude-self", help="Leave out the picture itself and its exact copies."),
    ] = False,
    copies: Annotated[
        bool,
        typer.Option("--copies", help="Show each of several equal pictures, not one for all."),
    ] = False,
    show: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD",
            help=f"Metadata field to show in the table; repeatable. By default the first "
            f"{_SHOWN_FIELDS}.",
            show_default=False,
        ),
    ] = None,
    as_json: options.Json = False,
    paths: Annotated[bool, typer.Option("--paths", help="Print the paths alone.")] = False,
    null: Annotated[
        bool, typer.Option("--null", "-0", help="With --paths: end each with NUL, for xargs -0.")
    ] = False,
    gallery: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.html",
            help="Also write the hits as one HTML file with thumbnails.",
            show_default=False,
        ),
    ] = None,
    store: options.Store = None,
    collection: options.Collection = config.DEFAULT_COLLECTION,
    weights: options.Weights = None,
    device: options.Device = config.DEFAULT_DEVICE,
    max_pixels: options.MaxPixels = config.DEFAULT_MAX_PIXELS,
) -> None:
    """Find the pictures that look like IMAGE, or that --text is said of, or both.

    The score is the cosine similarity to IMAGE, 1 for equal; without IMAGE it is the relevance of
    the words (BM25).
    """
    if as_json and paths:
        raise UsageError("--json and --paths: take one of them")
    if null and not paths:
        raise UsageError("--null goes with --paths")
    _check_words(image, text, min_score=min_score, exclude_self=exclude_self)
    started = time.monotonic()
    source = None if image is None else _read_query(image)

    # numpy's own threads take a while to start, and a query multiplies no matrices.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    from imgsearch.index import ImageIndex

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
        fields = _fields_to_show(show, list(index.fields))
        hits = index.search(
            source,
            text=text,
            k=k,
            where=where or (),
            min_score=min_score,
            exclude_self=exclude_self,
            collapse=not copies,
        )
        seconds = time.monotonic() - started
        if gallery:
            from imgsearch.gallery import write_gallery

            subtitle = f"{len(hits)} of {index.count():,} pictures in {collection}, by "
            subtitle += stamp.model
            write_gallery(gallery, source, _name(image, text), hits, subtitle, max_pixels)
    if as_json:
        print_json(
            {
                "collection": collection,
                "model": stamp.model,
                "query": image,
                "text": text or None,
                "seconds": round(seconds, 4),
                "hits": [hit.to_dict() for hit in hits],
            }
        )
    elif paths:
        end = b"\0" if null else b"\n"
        sys.stdout.buffer.writelines(os.fsencode(hit.record.path) + end for hit in hits)
    else:
        _print_table(hits, fields, words=bool(text and image))
        if gallery:
            display.say(f"gallery: {gallery}")


def _check_words(
    image: str | None, text: str, *, min_score: float | None, exclude_self: bool
) -> None:
    if image is not None:
        return
    if not text.strip():
        raise UsageError("nothing to search for: name an IMAGE, or words with --text")
    if min_score is not None or exclude_self:
        raise UsageError("--min-score and --exclude-self go with an IMAGE")


def _name(image: str | None, text: str) -> str:
    picture = "standard input" if image == "-" else os.path.basename(image or "")
    return ", ".join(filter(None, [picture, text and f"“{text}”"]))


def _load_table() -> None:
    """While the store searches."""
    import rich.table  # noqa: F401


def _read_query(image: str) -> str | bytes:
    if image == "-":
        return sys.stdin.buffer.read()
    path = os.path.expanduser(image)
    if not os.path.exists(path):
        raise SourceError(f"{image}: no such file")
    if not os.path.isfile(path):
        raise SourceError(f"{image}: is no file; query takes one picture")
    return path


def _fields_to_show(wanted: list[str] | None, known: list[str]) -> list[str]:
    if wanted is None:
        return known[:_SHOWN_FIELDS]
    for name in wanted:
        if name not in known:
            has = ", ".join(known) or "none"
            raise UsageError(f"--show {name}: there is no such field; the collection has {has}")
    return wanted


def _print_table(hits: Sequence["Hit"], fields: Sequence[str], *, words: bool) -> None:
    """With `words`, their relevance has a column of its own beside the score."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console = stdout()
    if not hits:
        console.print("nothing matches")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("#", justify="right")
    table.add_column("score", justify="right")
    if words:
        table.add_column("words", justify="right")
    table.add_column("path", overflow="fold")
    for field in fields:
        table.add_column(Text(printable(field)), overflow="fold")
    for hit in hits:
        path = Text(printable(_short(hit.record.path)))
        if hit.copies > 1:
            path.append(f"  x{hit.copies}", style="bold cyan")
        values = (hit.record.metadata.get(field, "") for field in fields)
        cells = [Text(printable(str(value))) for value in values]
        numbers = [hit.score, hit.text_score] if words else [hit.score]
        scores = ["" if number is None else f"{number:.4f}" for number in numbers]
        table.add_row(str(hit.rank), *scores, path, *cells)
    console.print(table)


def _short(path: str) -> str:
    """Relative to here, where it is below."""
    here = os.path.join(os.getcwd(), "")
    return path.removeprefix(here)
