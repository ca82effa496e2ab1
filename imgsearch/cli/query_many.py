"""`imgsearch query` with many images: a result for each."""

import contextlib
import glob
import io
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import typer

from imgsearch import config
from imgsearch.cli.console import Display, print_line, printable, short_path, stdout
from imgsearch.cli.interrupt import INTERRUPTED, stop_on_signal
from imgsearch.errors import UsageError
from imgsearch.uris import MemberUrl, ObjectUrl, is_shard

if TYPE_CHECKING:
    from rich.console import Console

    from imgsearch.bulk import QueryResult
    from imgsearch.bulk.gallery import GalleryFile
    from imgsearch.bulk.output import ResultFile
    from imgsearch.index import ImageIndex

NO_GOOD_MATCH = "no good match here"

# Control characters but tab, line feed, carriage return and NUL, which separates paths.
_BINARY = bytes({*range(1, 32), 127} - {9, 10, 13})


@dataclass(frozen=True, slots=True)
class ManyOptions:
    """The options of `imgsearch query`, by their names on the command line."""

    vector: str | None
    text: str
    k: int
    where: list[str]
    min_score: float | None
    confident: bool
    exclude_self: bool
    copies: bool
    show: list[str]
    as_json: bool
    paths: bool
    null: bool
    gallery: str | None
    output: str | None
    resume: bool
    strict: bool
    workers: int | None
    store: str | None
    collection: str
    weights: str | None
    device: str
    max_pixels: int


def are_many(sources: Sequence[str] | None) -> bool:
    """Return whether the sources of a query may be many images, and not one file."""
    if not sources or len(sources) > 1:
        return bool(sources)
    if sources[0] == "-":
        return _is_list(_stdin().peek(4096))
    if MemberUrl.named(sources[0]):
        return False
    if is_shard(sources[0]):
        return True
    if ObjectUrl.parse(sources[0]):
        from imgsearch.sources import has_image_extension

        return not has_image_extension(sources[0])
    path = os.path.expanduser(sources[0])
    return os.path.isdir(path) or (glob.has_magic(path) and not os.path.exists(path))


def _stdin() -> io.BufferedReader:
    """Return stdin with `peek`."""
    assert isinstance(sys.stdin, io.TextIOWrapper)
    if not isinstance(sys.stdin.buffer, io.BufferedReader):
        sys.stdin = io.TextIOWrapper(io.BufferedReader(sys.stdin.detach()))
    buffer = sys.stdin.buffer
    assert isinstance(buffer, io.BufferedReader)
    return buffer


def _is_list(head: bytes) -> bool:
    """Return whether the first bytes of stdin are those of a list of paths, not of an image."""
    from imgsearch.images import looks_like_an_image

    if not head or looks_like_an_image(head[:32]) or head.translate(None, _BINARY) != head:
        return False
    return b"\n" in head or b"\0" in head or os.path.exists(os.fsdecode(head))


def fields_to_show(wanted: list[str] | None, known: list[str], default: int) -> list[str]:
    """Return the metadata fields of `--show`, or the first ones. Raises UsageError."""
    if wanted is None:
        return known[:default]
    for name in wanted:
        if name not in known:
            has = ", ".join(known) or "none"
            raise UsageError(f"--show {name}: no such field; the collection has {has}")
    return wanted


def query_many(sources: Sequence[str], options: ManyOptions) -> None:
    """Search with each image of the sources, and print or write the results."""
    if options.resume and not options.output:
        raise UsageError("--resume needs --output")

    from imgsearch.index import ImageIndex
    from imgsearch.sources import read_list

    started = time.monotonic()
    stop = threading.Event()
    summary = _Summary()
    with (
        Display(quiet=options.as_json or options.paths) as display,
        ImageIndex(
            options.collection,
            store=options.store,
            weights=options.weights,
            device=options.device,
            max_pixels=options.max_pixels,
            timeout=config.READER_STORE_TIMEOUT,
            listener=display,
        ) as index,
        stop_on_signal(stop, display),
        _output(index, options) as file,
        _gallery(options) as gallery,
    ):
        skip = file.has if file else lambda _: False
        if options.vector is not None:
            results = index.search_vector_file(
                options.vector,
                text=options.text,
                k=options.k,
                where=options.where,
                min_score=options.min_score,
                confident=options.confident,
                collapse=not options.copies,
                skip=skip,
                stop=stop,
            )
        else:
            results = index.search_many(
                *sources,
                text=options.text,
                k=options.k,
                where=options.where,
                min_score=options.min_score,
                confident=options.confident,
                exclude_self=options.exclude_self,
                collapse=not options.copies,
                workers=options.workers,
                skip=skip,
                count_ahead=display.shows_bar,
                stdin=read_list(_stdin()) if "-" in sources else (),
                stop=stop,
            )
        before = file.done if file else 0
        with contextlib.closing(results):  # type: ignore[type-var]
            for result in results:
                summary.add(result)
                _print(result, options)
                if file:
                    file.add(result)
                if gallery:
                    gallery.add(result)
        if file and not stop.is_set():
            file.finish()
        if gallery and not stop.is_set():
            gallery.finish(_subtitle(index, options), before)
    if file:
        summary.rejected_before = file.rejected
    if not (options.as_json or options.paths):
        summary.print(time.monotonic() - started, before, options.output, stopped=stop.is_set())
        if gallery:
            _print_gallery(gallery, options, stopped=stop.is_set())
    if stop.is_set():
        raise typer.Exit(INTERRUPTED)
    if options.strict and (summary.rejected or summary.rejected_before):
        raise typer.Exit(1)


@contextlib.contextmanager
def _output(index: "ImageIndex", options: ManyOptions) -> Iterator["ResultFile | None"]:
    known = dict(index.fields)
    shown = fields_to_show(options.show, list(known), 0)
    if options.output is None:
        yield None
        return
    from imgsearch.bulk.output import ResultFile

    stamp = index.collection.stamp
    settings = {
        "collection": options.collection,
        "model": stamp.model,
        "weights": stamp.weights,
        "text": options.text,
        **({"vector": options.vector} if options.vector else {}),
        "k": options.k,
        "where": options.where,
        "min_score": options.min_score,
        "confident": options.confident,
        "exclude_self": options.exclude_self,
        "copies": options.copies,
        "show": shown,
    }
    fields = {name: known[name] for name in shown}
    with ResultFile(options.output, settings, fields, resume=options.resume) as file:
        yield file


@contextlib.contextmanager
def _gallery(options: ManyOptions) -> Iterator["GalleryFile | None"]:
    if options.gallery is None:
        yield None
        return
    from imgsearch.bulk.gallery import GalleryFile

    with GalleryFile(options.gallery, options.show, options.max_pixels) as gallery:
        yield gallery


def _subtitle(index: "ImageIndex", options: ManyOptions) -> str:
    model = index.collection.stamp.model
    parts = [f"Among {index.count():,} images in {options.collection}, by {model}"]
    parts += [f"“{options.text}”"] if options.text else []
    return "; ".join([*parts, *options.where])


def _print_gallery(gallery: "GalleryFile", options: ManyOptions, *, stopped: bool) -> None:
    if stopped:
        print_line(f"{options.gallery} is not written", style="yellow")
        return
    print_line(f"gallery: {options.gallery}")
    counts = gallery.counts
    if counts.shown < counts.answered:
        print_line(
            f"it shows the first {counts.shown:,} of {counts.answered:,} images, as it is limited "
            f"to {gallery.max_bytes >> 20} MB; --output writes all",
            style="yellow",
        )


@cache
def _console() -> "Console":
    return stdout()


def _print(result: "QueryResult", options: ManyOptions) -> None:
    if options.as_json:
        sys.stdout.write(json.dumps(result.to_dict()) + "\n")
        sys.stdout.flush()
    elif options.paths:
        end = b"\0" if options.null else b"\n"
        sys.stdout.buffer.writelines(os.fsencode(hit.record.path) + end for hit in result.hits)
        sys.stdout.buffer.flush()
    elif not options.output:
        _print_hits(result, options)


def _print_hits(result: "QueryResult", options: ManyOptions) -> None:
    from imgsearch.calibration import percentile_text

    print_line(short_path(result.path), style="bold", console=_console())
    if result.error is not None:
        print_line(f"  rejected: {result.error}", style="yellow", console=_console())
    elif not result.hits:
        text = NO_GOOD_MATCH if options.confident else "nothing matches"
        print_line(f"  {text}", console=_console())
    for hit in result.hits:
        copies = f"  x{hit.copies}" if hit.copies > 1 else ""
        values = "".join(
            f"  {printable(str(hit.record.metadata.get(name, '')))}" for name in options.show
        )
        rarity = f"{percentile_text(hit.percentile):>9}  " if hit.percentile is not None else ""
        line = (
            f"{hit.rank:3}  {hit.score:.4f}  {rarity}{short_path(hit.record.path)}{copies}{values}"
        )
        print_line(line, console=_console())


class _Summary:
    """Counts the results. The first rejections are shown again at the end."""

    _SHOWN = 20

    def __init__(self) -> None:
        self.answered = 0
        self.without_hits = 0
        self.rejected = 0
        self.rejected_before = 0
        self._problems: list[QueryResult] = []

    def add(self, result: "QueryResult") -> None:
        if result.error is None:
            self.answered += 1
            self.without_hits += not result.hits
            return
        self.rejected += 1
        if len(self._problems) < self._SHOWN:
            self._problems.append(result)

    def print(self, seconds: float, before: int, output: str | None, *, stopped: bool) -> None:
        """Print what became of the images to stdout, of which `before` had a result already."""
        count = self.answered + self.rejected
        line = f"{count:,} images: {self.answered:,} answered"
        line += f" ({self.without_hits:,} without a hit)" if self.without_hits else ""
        line += f", {self.rejected:,} rejected"
        line += f", {before:,} from the interrupted run" if before else ""
        line += f"; in {seconds:.1f} s, {count / seconds:,.1f} images per second"
        print_line(("interrupted: " if stopped else "") + line, style="bold")
        if output:
            if stopped:
                print_line(f"{output} is not written yet: --resume continues", style="yellow")
            else:
                print_line(f"written to {output}")
            for problem in self._problems:
                print_line(f"rejected {problem.path}: {problem.error}", style="yellow")
            if (more := self.rejected - len(self._problems)) > 0:
                print_line(f"and {more:,} more rejected: {output} has the reasons", style="yellow")
