"""Thumbnails of a map, many in one image: a browser decodes only the sheets that it shows."""

import io
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imgsearch import config
from imgsearch.errors import ImageError
from imgsearch.events import Counted, Listener, Outcome, Stage, ignore
from imgsearch.images import small_of
from imgsearch.stores.base import Collection
from imgsearch.system.pipeline import map_ahead
from imgsearch.types import ImageRecord

# The sides of a thumbnail in pixels: the largest with which all fit, else as many of the smallest.
_SIDES = (128, 96, 64)
_SHEET = 1024
_QUALITY = 75
_SAMPLE = 64
# A sheet is a quarter larger in base64, with the tag around it.
_BASE64 = 4 / 3
_TAG = 80


@dataclass(frozen=True, slots=True)
class Sheets:
    """Sheets of `columns` x `columns` cells of `side` pixels, as WebP files.

    `cell` of shape (contents,) is the number of each content's cell, counted over all sheets, -1
    for none. `unreadable` contents have a file that is gone, has changed, or cannot be decoded.
    """

    files: Sequence[Path]
    side: int
    columns: int
    cell: NDArray[np.int32]
    unreadable: int

    @property
    def thumbnails(self) -> int:
        return int((self.cell >= 0).sum())


@dataclass(frozen=True, slots=True)
class Wish:
    """What the thumbnails may take: so many at most, and so many bytes in the document."""

    most: int | None
    max_bytes: int
    max_pixels: int = config.DEFAULT_MAX_PIXELS


def make_sheets(
    collection: Collection,
    ids: Sequence[str],
    places: NDArray[np.float32],
    wish: Wish,
    folder: Path,
    listener: Listener = ignore,
    stop: threading.Event | None = None,
) -> Sheets:
    """Make the thumbnails of contents, by the id of a record of each, at `places` (contents, 2).

    Contents close to each other share a sheet. Where not all fit, those that have one are spread
    over the map. Memory holds one sheet and the images in progress. Setting `stop` ends early.
    """
    stop = stop or threading.Event()
    order = _along_a_curve(places)
    most = min(len(order), len(order) if wish.most is None else wish.most)
    cell = np.full(len(order), -1, np.int32)
    listener(Stage("making thumbnails"))
    with ThreadPoolExecutor(config.default_workers(), "imgsearch-map") as pool:
        makers = _Makers(collection, ids, wish.max_pixels, pool)
        side, fitting = _side(makers, order[_spread(len(order), _SAMPLE)], most, wish.max_bytes)
        columns = _SHEET // side
        chosen = order[_spread(len(order), min(most, fitting))]
        listener(Counted(len(chosen)))
        files: list[Path] = []
        size = used = unreadable = 0
        sheet = _Sheet(side, columns)
        for content, image in makers.images(chosen, side):
            listener(Outcome(ids[content], "answered"))
            if stop.is_set():
                break
            if image is None:
                unreadable += 1
                continue
            cell[content] = used
            used += 1
            sheet.add(image)
            if not sheet.full and used < len(chosen):
                continue
            size += _publish(sheet, folder, files)
            sheet = _Sheet(side, columns)
            if size + size / len(files) > wish.max_bytes:
                break
        if sheet.used and (size + _publish(sheet, folder, files)) > wish.max_bytes:
            cell[cell >= used - sheet.used] = -1
            files.pop()
    return Sheets(files, side, columns, cell, unreadable)


def _publish(sheet: "_Sheet", folder: Path, files: list[Path]) -> int:
    """Write a sheet to a file, and return its size in the document."""
    path = folder / f"sheet-{len(files)}"
    path.write_bytes(sheet.encoded())
    files.append(path)
    return round(path.stat().st_size * _BASE64) + _TAG


class _Sheet:
    def __init__(self, side: int, columns: int) -> None:
        self._side, self._columns = side, columns
        self._image = Image.new("RGB", (side * columns, side * columns), "white")
        self.used = 0

    @property
    def full(self) -> bool:
        return self.used == self._columns**2

    def add(self, image: Image.Image) -> None:
        """Put a thumbnail into the middle of the next cell."""
        row, column = divmod(self.used, self._columns)
        left = column * self._side + (self._side - image.width) // 2
        top = row * self._side + (self._side - image.height) // 2
        self._image.paste(image.convert("RGB"), (left, top))
        self.used += 1

    def encoded(self) -> bytes:
        rows = -(-self.used // self._columns)
        buffer = io.BytesIO()
        part = self._image.crop((0, 0, self._image.width, rows * self._side))
        part.save(buffer, "WEBP", quality=_QUALITY)
        return buffer.getvalue()


class _Makers:
    """Makes thumbnails in threads."""

    def __init__(
        self, collection: Collection, ids: Sequence[str], max_pixels: int, pool: Executor
    ) -> None:
        self._collection, self._ids, self._pool = collection, ids, pool
        self._max_pixels = max_pixels

    def images(
        self, contents: NDArray[np.integer], side: int
    ) -> Iterator[tuple[int, Image.Image | None]]:
        """Yield the contents in this order, each with its thumbnail or None."""

        def make(item: tuple[int, ImageRecord | None]) -> tuple[int, Image.Image | None]:
            content, record = item
            if record is None:
                return content, None
            try:
                return content, small_of(record, side, self._max_pixels)
            except ImageError:
                return content, None

        ahead = 4 * (os.cpu_count() or 1)
        yield from map_ahead(self._pool, make, self._records(contents), ahead)

    def _records(self, contents: NDArray[np.integer]) -> Iterator[tuple[int, ImageRecord | None]]:
        for start in range(0, len(contents), 256):
            part = [int(each) for each in contents[start : start + 256]]
            found = self._collection.lookup([self._ids[each] for each in part])
            for each in part:
                yield each, found.get(self._ids[each])


def _side(
    makers: _Makers, sample: NDArray[np.integer], most: int, max_bytes: int
) -> tuple[int, int]:
    """Return the side of the thumbnails, and how many are likely to fit."""
    images = [image for _, image in makers.images(sample, max(_SIDES)) if image is not None]
    if not images:
        return min(_SIDES), most
    per_image = 0.0
    for side in _SIDES:
        sheet = _Sheet(side, -(-int(len(images) ** 0.5) - 1) + 1)
        for image in images[: sheet._columns**2]:
            reduced = image.copy()
            reduced.thumbnail((side, side))
            sheet.add(reduced)
        per_image = len(sheet.encoded()) * _BASE64 / sheet.used
        if per_image * most <= max_bytes:
            return side, most
    return min(_SIDES), max(0, int(max_bytes / per_image))


def _spread(count: int, wanted: int) -> NDArray[np.intp]:
    """Return at most `wanted` of `count` indices, at equal distances."""
    return np.unique(np.linspace(0, max(count - 1, 0), min(count, wanted)).astype(np.intp))


def _along_a_curve(places: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the contents in the order of a Z-order curve, on which neighbors are mostly close."""
    if not len(places):
        return np.empty(0, np.intp)
    low, high = places.min(axis=0), places.max(axis=0)
    cells = ((places - low) / np.maximum(high - low, 1e-9) * 65535).astype(np.uint64)
    key = np.zeros(len(places), np.uint64)
    for bit in range(16):
        for axis in range(2):
            key |= ((cells[:, axis] >> np.uint64(bit)) & np.uint64(1)) << np.uint64(2 * bit + axis)
    return np.argsort(key, kind="stable")
