"""Make a map: records > neighbors > places > groups > thumbnails > document."""

import os
import threading
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgsearch import config
from imgsearch.analysis.contents import Contents, read_contents
from imgsearch.analysis.neighbors import nearest
from imgsearch.analysis.partitions import likely_nearest
from imgsearch.errors import NothingFoundError, UsageError
from imgsearch.events import Listener, Note, Stage, ignore
from imgsearch.map import layout, picture, placement, saved
from imgsearch.map.clusters import Clusters, find_clusters
from imgsearch.map.records import Column, Records, read_records
from imgsearch.map.saved import Saved
from imgsearch.map.sprites import Sheets, Wish, make_sheets
from imgsearch.stores.base import Collection
from imgsearch.system import scratch
from imgsearch.system.atomic import publish
from imgsearch.system.outputs import check_replaceable, not_written
from imgsearch.types import Condition

NEIGHBORS = 15
"""Neighbors of each image: for its place, and shown where it is selected."""

EXACT_CONTENTS = 100_000
"""The maximum number of contents of which all pairs are compared; with more, only contents that
share a partition are."""

DEFAULT_MAX_BYTES = 50_000_000

GROUPS = "group"
"""The field that a map adds: the name of an image's group."""

_HTML = (b"<!doctype html", b"<html")
_PNG = (b"\x89png",)
# Of the images that decide where groups lie among each other.
_SAMPLE = 5000
_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class MapOptions:
    """Options of a map.

    `output` is the HTML file and `png` a picture; at least one is given. `layout` is a Parquet
    file with the places, which are kept if it exists. `color_by` is the field whose colors are
    shown first, None for the groups that the map finds. At most `thumbnails` images have a
    thumbnail, None for as many as fit: the file takes at most about `max_bytes`.

    Without `paths`, it names no file and no folder. With `ids`, it has the ids of the records, and
    a page around it is asked to search with one; the images are at `records/ID/image`, relative to
    the document.
    """

    output: str | None = None
    png: str | None = None
    layout: str | None = None
    color_by: str | None = None
    thumbnails: int | None = None
    max_bytes: int = DEFAULT_MAX_BYTES
    max_pixels: int = config.DEFAULT_MAX_PIXELS
    paths: bool = True
    ids: bool = False


@dataclass(slots=True)
class MapReport:
    """What a run made. `seconds` are the times of its steps."""

    images: int = 0
    placed: int = 0
    """New images, which got a place in an existing layout."""
    groups: list[dict[str, Any]] = field(default_factory=list)
    thumbnails: int = 0
    thumbnail_side: int = 0
    unreadable: int = 0
    bytes: int = 0
    color_by: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the object that `imgsearch map --json` prints."""
        return asdict(self)

    @contextmanager
    def timing(self, step: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[step] = round(time.monotonic() - started, 2)


def make_map(
    collection: Collection,
    where: Sequence[Condition],
    options: MapOptions,
    listener: Listener = ignore,
    stop: threading.Event | None = None,
) -> MapReport | None:
    """Write a map of the records that meet all conditions, and return what was made.

    Memory holds the paths, the metadata and 15 neighbors of each record. Setting `stop` ends the
    run without a file, and returns None. Raises UsageError for an unknown field or a file that is
    not HTML, NothingFoundError if there is no record, MissingLibraryError without the libraries of
    the map, and SourceError if the file cannot be written.
    """
    stop = stop or threading.Event()
    fields = collection.refresh_fields()
    if options.color_by not in (None, GROUPS, *fields):
        known = ", ".join(fields) or "none"
        raise UsageError(f"{options.color_by}: no such field; the collection has {known}")
    known_layout = _check_files(options, collection)
    report = MapReport()
    with report.timing("records"):
        records = read_records(collection, where, fields, listener, stop)
    if not records.contents and not stop.is_set():
        raise NothingFoundError(f"collection {collection.name} has no image that matches")
    report.images = len(records)
    if stop.is_set():
        return None
    if known_layout and _covers(known_layout, records):
        with report.timing("layout"):
            report.placed = placement.extend(collection, where, records, known_layout, listener)
        plan = placement.selected(known_layout, records)
        kept = known_layout if where else plan  # else without those that were removed
    else:
        if known_layout:
            listener(Note(f"{options.layout} lacks most of the images: making a new layout"))
        made = _plan(collection, where, records, report, listener, stop)
        if made is None or stop.is_set():
            return None
        plan = kept = made
    if options.layout:
        saved.write(options.layout, collection.stamp, kept)
    listener(Stage("finding groups"))
    with report.timing("groups"):
        found = find_clusters(records, plan.places)
    report.groups = [{"name": group.name, "images": group.size} for group in found.groups]
    name = GROUPS if GROUPS not in fields else f"{GROUPS} on the map"
    if found.groups:
        names = [group.name for group in found.groups]
        records.columns.append(Column(name, "str", names, array("i", found.number)))
    try:
        return _write(collection, records, plan, found, options, report, listener, stop)
    except OSError as error:
        raise not_written(options.output or options.png or "", error) from error


def _check_files(options: MapOptions, collection: Collection) -> Saved | None:
    """Return the layout that exists. Raises an error for what could not be written later."""
    if not (options.output or options.png):
        raise UsageError("a map needs a file to write: HTML, or PNG")
    if options.output:
        check_replaceable(options.output, "an HTML file", _HTML)
    if options.png:
        picture.require()
        check_replaceable(options.png, "a PNG file", _PNG)
    layout.require()
    if not options.layout:
        return None
    saved.check(options.layout)
    return saved.read(options.layout, collection.stamp)


def _covers(known: Saved, records: Records) -> bool:
    """Return whether a layout has at least half of the contents."""
    there = sum(digest in records.digests for digest in known.digests)
    return 2 * there >= records.contents and len(known.digests) > 1


def _plan(
    collection: Collection,
    where: Sequence[Condition],
    records: Records,
    report: MapReport,
    listener: Listener,
    stop: threading.Event,
) -> Saved | None:
    """Return a new layout, in the order of the records, or None after a stop."""
    with (
        report.timing("neighbors"),
        read_contents(collection, where, listener=listener, stop=stop) as contents,
    ):
        k = max(1, min(NEIGHBORS, len(contents) - 1))
        search = nearest if len(contents) <= EXACT_CONTENTS else likely_nearest
        found = search(contents, k, listener=listener, stop=stop)
        if stop.is_set():
            return None
        start = principal_components(contents)
        order = _order(contents, records)
    with report.timing("layout"):
        places = layout.lay_out(found.numbers, found.scores, start, listener, stop)
    return _translated(places, found.numbers, found.scores, order, records)


def principal_components(contents: Contents) -> NDArray[np.float32]:
    """Return the first two principal components of each vector, of shape (contents, 2).

    They are those of a sample.
    """
    chosen = np.unique(np.linspace(0, len(contents) - 1, min(_SAMPLE, len(contents))).astype(int))
    sample = contents.vectors_of(chosen)
    mean = sample.mean(axis=0)
    sample -= mean
    _, axes = np.linalg.eigh(sample.T @ sample)
    main = axes[:, :-3:-1]
    # The sign of an axis is arbitrary.
    main *= np.sign(main[np.abs(main).argmax(axis=0), np.arange(main.shape[1])])
    blocks = range(0, len(contents), _BLOCK)
    parts = [(contents.vectors(at, at + _BLOCK) - mean) @ main for at in blocks]
    return np.concatenate(parts).astype(np.float32)


def _order(contents: Contents, records: Records) -> NDArray[np.int32]:
    """Return the number in `records` of each of the contents, -1 for one that came in between."""
    number = dict(zip(records.ids, records.content.tolist(), strict=True))
    ids = contents.record_ids(range(len(contents)))
    return np.array([number.get(each, -1) for each in ids], np.int32)


def _translated(
    places: NDArray[np.float32],
    numbers: NDArray[np.int32],
    scores: NDArray[np.float32],
    order: NDArray[np.int32],
    records: Records,
) -> Saved:
    """Return a layout whose contents are in the order of the records.

    One that was removed in between lies in the middle, and has no neighbors.
    """
    count, k = records.contents, numbers.shape[1]
    there = order >= 0
    made = Saved(
        list(records.digests),
        np.zeros((count, 2), np.float32),
        np.full((count, k), -1, np.int32),
        np.full((count, k), -np.inf, np.float32),
    )
    made.places[order[there]] = places[there]
    made.numbers[order[there]] = np.where(numbers < 0, -1, order[numbers])[there]
    made.scores[order[there]] = scores[there]
    return made


def _write(
    collection: Collection,
    records: Records,
    plan: Saved,
    found: Clusters,
    options: MapOptions,
    report: MapReport,
    listener: Listener,
    stop: threading.Event,
) -> MapReport | None:
    color_by = _color_by(records.columns, options.color_by, len(found.groups))
    column = records.columns[color_by] if color_by >= 0 else None
    report.color_by = column.name if column else None
    places = _spread_copies(records, plan.places)
    if options.png:
        listener(Stage("drawing the picture"))
        with report.timing("picture"), _whole(options.png) as file:
            picture.draw(file, places, column, found.groups)
    if not options.output:
        return report
    from imgsearch.map.document import Content, Page

    target = Path(os.path.realpath(options.output))
    target.parent.stat()  # a missing folder is an error, as scratch.folder would create it
    content = Content(
        title=f"Map of {collection.name}",
        records=records,
        places=places,
        numbers=plan.numbers,
        scores=plan.scores,
        color_by=color_by,
        groups=found.groups,
        paths=options.paths,
        ids=options.ids,
    )
    document = Page(content)
    with scratch.folder([target.parent]) as folder:
        with report.timing("thumbnails"):
            ids = [records.ids[each] for each in records.first]
            wish = Wish(
                options.thumbnails, max(0, options.max_bytes - document.size), options.max_pixels
            )
            sheets = make_sheets(collection, ids, plan.places, wish, folder, listener, stop)
        if stop.is_set():
            return None
        listener(Stage("writing the map"))
        with (folder / "page").open("wb") as file:
            document.write(file, sheets, _subtitle(collection, records, sheets))
        publish(folder / "page", target)
    report.thumbnails = sheets.thumbnails
    report.thumbnail_side = sheets.side if sheets.thumbnails else 0
    report.unreadable = sheets.unreadable
    report.bytes = target.stat().st_size
    return report


@contextmanager
def _whole(file: str) -> Iterator[Path]:
    """Yield the path of a file to write, which then replaces `file`."""
    target = Path(os.path.realpath(file))
    target.parent.stat()  # a missing folder is an error, as scratch.folder would create it
    with scratch.folder([target.parent]) as folder:
        yield folder / "part"
        publish(folder / "part", target)


def _subtitle(collection: Collection, records: Records, sheets: Sheets) -> str:
    text = f"{len(records):,} images by {collection.stamp.model}"
    if sheets.thumbnails < records.contents:
        text += f"; {sheets.thumbnails:,} have a thumbnail"
    return text


def _color_by(columns: Sequence[Column], wanted: str | None, groups: int) -> int:
    """Return the number of the column to color by, -1 for none.

    Without a wish, the groups, which are the last column, or else the first field.
    """
    names = [column.name for column in columns]
    if wanted in names:
        return names.index(wanted)
    return len(columns) - 1 if groups else min(0, len(columns) - 1)


def _spread_copies(records: Records, places: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the place of each record: copies lie around the place of their content."""
    made = places[records.content]
    copies = np.ones(len(records), np.bool_)
    copies[records.first] = False
    if copies.any():
        extent = float(np.ptp(places, axis=0).max()) or 1.0
        # Where a spiral by the golden angle has its next turn.
        turn = np.zeros(len(records))
        seen: dict[int, int] = {}
        for at in np.flatnonzero(copies):
            content = int(records.content[at])
            turn[at] = seen[content] = seen.get(content, 0) + 1
        step = 0.02 * extent / np.sqrt(len(records)) * np.sqrt(turn)
        angle = turn * 2.399963
        offsets = np.stack([step * np.cos(angle), step * np.sin(angle)], axis=1)
        made = (made + offsets).astype(np.float32)
    return made
