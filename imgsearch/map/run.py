"""Make a map: records > neighbors > places > thumbnails > document."""

import os
import threading
import time
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
from imgsearch.errors import NothingFoundError, UsageError
from imgsearch.events import Listener, Stage, ignore
from imgsearch.map import layout
from imgsearch.map.records import Column, Records, read_records
from imgsearch.map.sprites import Sheets, Wish, make_sheets
from imgsearch.stores.base import Collection
from imgsearch.system import scratch
from imgsearch.system.atomic import publish
from imgsearch.system.outputs import check_replaceable, not_written
from imgsearch.types import Condition

NEIGHBORS = 15
"""Neighbors of each image: for its place, and shown where it is selected."""

DEFAULT_MAX_BYTES = 50_000_000

_HTML = (b"<!doctype html", b"<html")
# Of the images that decide where groups lie among each other.
_SAMPLE = 5000
_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class MapOptions:
    """Options of a map.

    `output` is the HTML file. `color_by` is the field whose colors are shown first, None for the
    first one that groups images. At most `thumbnails` images have a thumbnail, None for as many as
    fit: the file takes at most about `max_bytes`.
    """

    output: str
    color_by: str | None = None
    thumbnails: int | None = None
    max_bytes: int = DEFAULT_MAX_BYTES
    max_pixels: int = config.DEFAULT_MAX_PIXELS


@dataclass(slots=True)
class MapReport:
    """What a run made. `seconds` are the times of its steps."""

    images: int = 0
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
    if options.color_by not in (None, *fields):
        known = ", ".join(fields) or "none"
        raise UsageError(f"{options.color_by}: no such field; the collection has {known}")
    check_replaceable(options.output, "an HTML file", _HTML)
    layout.require()
    report = MapReport()
    with report.timing("records"):
        records = read_records(collection, where, fields, listener, stop)
    if not records.contents and not stop.is_set():
        raise NothingFoundError(f"collection {collection.name} has no image that matches")
    report.images = len(records)
    plan = _plan(collection, where, records, report, listener, stop)
    if plan is None or stop.is_set():
        return None
    try:
        return _write(collection, records, plan, options, report, listener, stop)
    except OSError as error:
        raise not_written(options.output, error) from error


@dataclass(frozen=True, slots=True)
class Plan:
    """Places and neighbors of contents: (contents, 2), (contents, k), (contents, k)."""

    places: NDArray[np.float32]
    numbers: NDArray[np.int32]
    scores: NDArray[np.float32]


def _plan(
    collection: Collection,
    where: Sequence[Condition],
    records: Records,
    report: MapReport,
    listener: Listener,
    stop: threading.Event,
) -> Plan | None:
    """Return a new layout, or None after a stop."""
    with (
        report.timing("neighbors"),
        read_contents(collection, where, listener=listener, stop=stop) as contents,
    ):
        k = max(1, min(NEIGHBORS, len(contents) - 1))
        found = nearest(contents, k, listener=listener, stop=stop)
        if stop.is_set():
            return None
        start = principal_components(contents)
        order = _order(contents, records)
    with report.timing("layout"):
        places = layout.lay_out(found.numbers, found.scores, start, listener)
    return _translated(Plan(places, found.numbers, found.scores), order, records.contents)


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


def _translated(plan: Plan, order: NDArray[np.int32], count: int) -> Plan:
    """Return the plan with the contents in the order of the records.

    One that was removed in between lies in the middle, and has no neighbors.
    """
    k = plan.numbers.shape[1]
    there = order >= 0
    made = Plan(
        np.zeros((count, 2), np.float32),
        np.full((count, k), -1, np.int32),
        np.zeros((count, k), np.float32),
    )
    made.places[order[there]] = plan.places[there]
    numbers = plan.numbers[there]
    made.numbers[order[there]] = np.where(numbers < 0, -1, order[numbers])
    made.scores[order[there]] = plan.scores[there]
    return made


def _write(
    collection: Collection,
    records: Records,
    plan: Plan,
    options: MapOptions,
    report: MapReport,
    listener: Listener,
    stop: threading.Event,
) -> MapReport | None:
    from imgsearch.map.document import Content, Page

    target = Path(os.path.realpath(options.output))
    target.parent.stat()  # a missing folder is an error, as scratch.folder would create it
    color_by = _color_by(records.columns, options.color_by)
    report.color_by = records.columns[color_by].name if color_by >= 0 else None
    content = Content(
        title=f"Map of {collection.name}",
        records=records,
        places=_spread_copies(records, plan.places),
        numbers=plan.numbers,
        scores=plan.scores,
        color_by=color_by,
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


def _subtitle(collection: Collection, records: Records, sheets: Sheets) -> str:
    text = f"{len(records):,} images by {collection.stamp.model}"
    if sheets.thumbnails < records.contents:
        text += f"; {sheets.thumbnails:,} have a thumbnail"
    return text


def _color_by(columns: Sequence[Column], wanted: str | None) -> int:
    """Return the number of the column to color by, -1 for none.

    Without a wish, the text field with the most values that all have a color, else the first field.
    """
    from imgsearch.map import palette

    if wanted is not None:
        return next(at for at, column in enumerate(columns) if column.name == wanted)
    sizes = [len(column.values) if column.values is not None else 0 for column in columns]
    few = [at for at, size in enumerate(sizes) if 2 <= size <= len(palette.COLORS)]
    return max(few, key=lambda at: sizes[at]) if few else min(0, len(columns) - 1)


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
