"""`imgsearch duplicates`."""

import contextlib
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Annotated, Literal, Self

import typer

from imgsearch import config
from imgsearch.cli import options
from imgsearch.cli.console import Display, print_line, short_path, stdout
from imgsearch.cli.interrupt import INTERRUPTED, stop_on_signal
from imgsearch.errors import UsageError
from imgsearch.events import Event, Outcome, both

if TYPE_CHECKING:
    from rich.console import Console

    from imgsearch.duplicates import DuplicateGroup
    from imgsearch.duplicates.gallery import GroupGallery
    from imgsearch.duplicates.output import GroupFile

KeepName = Literal["largest", "largest-file", "oldest", "newest", "first-path"]


def duplicates(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SOURCE]...",
            help="New images: folders, files, quoted globs, or - for a list of paths on stdin. "
            "Finds which of them are in the collection already. Without SOURCE, compares the "
            "images of the collection with each other.",
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
            help="Least cosine similarity of candidates, which are then verified. Default: "
            "calibrated on a sample of the collection.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[
        KeepName,
        typer.Option(
            help="Which image of a group to keep; largest means most pixels, then the largest "
            "file, then the oldest.",
        ),
    ] = "largest",
    exact_only: Annotated[
        bool, typer.Option("--exact-only", help="Only exact copies; reads no files.")
    ] = False,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'FIELD OP VALUE'",
            help="Only images of the collection whose metadata matches; = != < <= > >=. "
            "Repeatable: all conditions must hold.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON object for each group, one a line.")
    ] = False,
    paths: Annotated[
        bool, typer.Option("--paths", help="Print only the paths of redundant images.")
    ] = False,
    null: Annotated[
        bool,
        typer.Option("--null", "-0", help="With --paths, end each path with NUL, for xargs -0."),
    ] = False,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write a row for each image of a group to a .parquet, .csv or .jsonl file.",
            show_default=False,
        ),
    ] = None,
    gallery: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.html",
            help="Also write the groups to one HTML file with thumbnails, side by side.",
            show_default=False,
        ),
    ] = None,
    workers: options.Workers = None,
    store: options.Store = None,
    collection: options.Collection = config.DEFAULT_COLLECTION,
    weights: options.Weights = None,
    device: options.Device = config.DEFAULT_DEVICE,
    max_pixels: options.MaxPixels = config.DEFAULT_MAX_PIXELS,
) -> None:
    """Find exact copies and near-duplicates, and which image of each group to keep.

    Near-duplicates are images that were encoded again, resized, recolored, or cropped by up to
    20 %. Candidates have similar vectors; then their files are compared with that of the image to
    keep. Nothing is ever deleted: --paths prints the redundant images for other tools.
    """
    if as_json and paths:
        raise UsageError("--json and --paths: use only one of them")
    if null and not paths:
        raise UsageError("--null needs --paths")
    from imgsearch.index import ImageIndex
    from imgsearch.sources import read_list

    started = time.monotonic()
    stop = threading.Event()
    summary = _Summary()
    sources = sources or []
    with (
        Display(quiet=as_json or paths) as display,
        ImageIndex(
            collection,
            store=store,
            weights=weights,
            device=device,
            max_pixels=max_pixels,
            timeout=config.READER_STORE_TIMEOUT,
            listener=both(display, summary),
        ) as index,
        stop_on_signal(stop, display),
        _Files(output, gallery, max_pixels) as files,
    ):
        groups = index.duplicates(
            *sources,
            min_score=min_score,
            keep=keep,
            exact_only=exact_only,
            where=where or (),
            workers=workers,
            stdin=read_list(sys.stdin.buffer) if "-" in sources else (),
            stop=stop,
        )
        with contextlib.closing(groups):  # type: ignore[type-var]
            for group in groups:
                summary.add(group)
                files.add(group)
                if as_json:
                    sys.stdout.write(json.dumps(group.to_dict()) + "\n")
                elif paths:
                    end = b"\0" if null else b"\n"
                    redundant = (member.record.path for member in group.members)
                    sys.stdout.buffer.writelines(os.fsencode(path) + end for path in redundant)
                elif not output:
                    _print(group)
        if not stop.is_set():
            files.finish(f"Collection {index.name}: {summary.counts()}")
    if not (as_json or paths):
        written = [file for file in (output, gallery) if file]
        summary.print(time.monotonic() - started, written, stopped=stop.is_set())
    if stop.is_set():
        raise typer.Exit(INTERRUPTED)


class _Files:
    """The files to write, which appear only when all groups are there."""

    def __init__(self, output: str | None, gallery: str | None, max_pixels: int) -> None:
        self._output, self._gallery, self._max_pixels = output, gallery, max_pixels
        self._cleanup = contextlib.ExitStack()
        self._table: GroupFile | None = None
        self._page: GroupGallery | None = None

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            if self._output:
                from imgsearch.duplicates.output import GroupFile

                self._table = stack.enter_context(GroupFile(self._output))
            if self._gallery:
                from imgsearch.duplicates.gallery import GroupGallery

                self._page = stack.enter_context(GroupGallery(self._gallery, self._max_pixels))
            self._cleanup = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def add(self, group: "DuplicateGroup") -> None:
        if self._table:
            self._table.add_group(group)
        if self._page:
            self._page.add(group)

    def finish(self, subtitle: str) -> None:
        if self._table:
            self._table.finish()
        if self._page:
            self._page.finish(subtitle)


@cache
def _console() -> "Console":
    return stdout()


def _print(group: "DuplicateGroup") -> None:
    kept = group.keep
    line = f"{short_path(kept.path)}  {kept.width} x {kept.height}  {_size(kept.size)}"
    print_line(line, style="bold", console=_console())
    for member in group.members:
        record = member.record
        print_line(
            f"  {member.kind:<10}  {member.score:.4f}  {short_path(record.path)}  "
            f"{record.width} x {record.height}  {_size(record.size)}",
            console=_console(),
        )


def _size(size: int) -> str:
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} B"


@dataclass
class _Summary:
    """Counts the groups, and listens for files that could not be compared."""

    _SHOWN = 20

    groups: int = 0
    size: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    rejected: int = 0
    problems: list[Outcome] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        if isinstance(event, Outcome) and event.status == "rejected":
            self.rejected += 1
            if len(self.problems) < self._SHOWN:
                self.problems.append(event)

    def add(self, group: "DuplicateGroup") -> None:
        self.groups += 1
        self.kinds.update(member.kind for member in group.members)
        self.size += sum(member.record.size for member in group.members)

    def counts(self) -> str:
        """Return the counts as one line."""
        redundant = self.kinds.total()
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.kinds.most_common())
        line = f"{self.groups:,} group{'s' * (self.groups != 1)}, "
        line += f"{redundant:,} redundant image{'s' * (redundant != 1)}"
        return line + (f" ({kinds}), {_size(self.size)}" if kinds else "")

    def print(self, seconds: float, files: Sequence[str], *, stopped: bool) -> None:
        line = f"{self.counts()}; in {seconds:.1f} s"
        print_line(("interrupted: " if stopped else "") + line, style="bold")
        for file in files:
            if stopped:
                print_line(f"{file} is not written", style="yellow")
            else:
                print_line(f"written to {file}")
        if self.rejected:
            from imgsearch.uris import uri_to_path

            print_line(f"{self.rejected:,} files could not be compared", style="yellow")
            for problem in self.problems:
                path = short_path(uri_to_path(problem.uri))
                print_line(f"  {path}: {problem.reason}", style="yellow")
            if (more := self.rejected - len(self.problems)) > 0:
                print_line(f"  and {more:,} more", style="yellow")
