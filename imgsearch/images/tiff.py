"""Read the TIFF directories that describe the images of a file."""

import struct
from collections.abc import Iterator
from typing import IO

NEW_SUBFILE_TYPE, PHOTOMETRIC, MAKE = 254, 262, 271
STRIP_OFFSETS, STRIP_BYTES, TILE_OFFSETS, TILE_BYTES = 273, 279, 324, 325
SUB_DIRECTORIES, DNG_VERSION = 330, 50706

Directory = dict[int, tuple[int, ...] | bytes]
"""Integers by tag; text as bytes."""

_WANTED = frozenset(
    {
        NEW_SUBFILE_TYPE, PHOTOMETRIC, MAKE, STRIP_OFFSETS, STRIP_BYTES, TILE_OFFSETS, TILE_BYTES,
        SUB_DIRECTORIES, DNG_VERSION,
    }
)  # fmt: skip
_FORMATS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_TEXT = 2
# Bounds on what a damaged file can request.
_MOST_ENTRIES, _MOST_VALUES, _MOST_DIRECTORIES = 4096, 1 << 20, 32


def is_tiff(head: bytes) -> bool:
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def directories(file: IO[bytes]) -> Iterator[Directory]:
    """Yield the first directory of a TIFF and its sub-directories, without damaged ones."""
    file.seek(0)
    head = file.read(16)
    if not is_tiff(head):
        return
    order = "<" if head[:1] == b"I" else ">"
    big = head[2:4] in (b"+\0", b"\0+")
    reader = _Reader(file, order, big)
    try:
        start = struct.unpack(order + "Q", head[8:16])[0] if big else _long(order, head[4:8])
        first = reader.directory(start)
    except (struct.error, ValueError, OSError):
        return
    yield first
    for place in first.get(SUB_DIRECTORIES, ())[:_MOST_DIRECTORIES]:
        try:
            yield reader.directory(place)
        except (struct.error, ValueError, OSError):
            continue


def _long(order: str, data: bytes) -> int:
    (value,) = struct.unpack(order + "I", data)
    return int(value)


class _Reader:
    def __init__(self, file: IO[bytes], order: str, big: bool) -> None:
        self._file, self._order = file, order
        self._count, self._entry = ("Q", "HHQ8s") if big else ("H", "HHI4s")
        self._inline = 8 if big else 4

    def directory(self, place: int) -> Directory:
        """Read a directory. Raises struct.error, ValueError or OSError if it is incomplete."""
        count_format = struct.Struct(self._order + self._count)
        entry_format = struct.Struct(self._order + self._entry)
        self._file.seek(place)
        (count,) = count_format.unpack(self._file.read(count_format.size))
        if count > _MOST_ENTRIES:
            raise ValueError("too many entries")
        data = self._file.read(count * entry_format.size)
        found: Directory = {}
        for tag, kind, length, value in entry_format.iter_unpack(data):
            if tag in _WANTED:
                found[tag] = self._values(kind, length, value)
        return found

    def _values(self, kind: int, length: int, value: bytes) -> tuple[int, ...] | bytes:
        letter = "s" if kind == _TEXT else _FORMATS.get(kind)
        if letter is None or length > _MOST_VALUES:
            return ()
        format_ = f"{self._order}{length}{letter}"
        size = struct.calcsize(format_)
        if size > self._inline:
            (place,) = struct.unpack(self._order + ("Q" if self._inline == 8 else "I"), value)
            self._file.seek(place)
            value = self._file.read(size)
        values = struct.unpack(format_, value[:size])
        return bytes(values[0]) if kind == _TEXT else values
