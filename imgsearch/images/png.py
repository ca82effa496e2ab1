"""Read the chunks of PNG files, with the error handling of libpng and browsers.

A wrong checksum in a chunk that encodes pixels (IHDR, IDAT, and the palette of an indexed image) is
an error. Any other damaged chunk is ignored.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import IO

from imgsearch.errors import ImageError
from imgsearch.images.container import MOST_PROFILE, MOST_TEXT, SIGNIFICANT_BITS, Container
from imgsearch.images.splicing import Part, splice

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GRAY, _RGB, _INDEXED = 0, 2, 3
_BLOCK = 1 << 20
_is_type = re.compile(rb"[A-Za-z]{4}").fullmatch
# Texts that can hold the orientation, with their keys in Pillow's `info`.
_ORIENTING = {
    b"Raw profile type exif": "Raw profile type exif",
    b"XML:com.adobe.xmp": "xmp",
    b"exif": "exif",
}


@dataclass(frozen=True, slots=True)
class _Chunk:
    """`offset` is where the data begin; `there` of its `length` bytes are in the file."""

    kind: bytes
    offset: int
    length: int
    there: int

    @property
    def part(self) -> Part:
        """The full chunk, with length, type and checksum."""
        return self.offset - 8, self.there + 12


def without_metadata(file: IO[bytes]) -> Container:
    """Return a PNG file without the chunks that its pixels do not depend on. Raises ImageError."""
    parts: list[Part] = [SIGNATURE]
    checked: list[_Chunk] = []
    seen: set[bytes] = set()
    container = Container(file)
    color_type = palette_size = -1
    for chunk in _chunks(file):
        kind = chunk.kind
        if not seen and kind != b"IHDR":
            raise ImageError("damaged PNG: its header is missing")
        first = kind not in seen
        seen.add(kind)
        if kind == b"IDAT":
            parts.append(chunk.part)
            checked.append(chunk)
        elif kind == b"IEND":
            parts.append(chunk.part)
            break
        elif not first:
            continue  # only IDAT may occur more than once
        elif kind == b"IHDR":
            header = _read(file, chunk, 13)
            if header is None or len(header) != 13:
                raise ImageError("damaged PNG: its header has a wrong checksum or length")
            color_type = header[9]
            parts.append(chunk.part)
        elif kind == b"PLTE":
            palette_size = chunk.length // 3
            if _read(file, chunk, 4096) is not None:
                parts.append(chunk.part)
            elif color_type == _INDEXED:
                raise ImageError("damaged PNG: its palette has a wrong checksum or length")
        elif kind == b"tRNS":
            data = _read(file, chunk, 256)
            if data and _fits(data, color_type, palette_size):
                parts.append(chunk.part)
        else:
            _take_metadata(file, chunk, container)
    if b"IDAT" not in seen:
        raise ImageError("damaged PNG: image file is truncated, or has no pixels")
    container.file = splice(file, parts)
    container.verify = partial(_verify, file, checked)
    return container


def _chunks(file: IO[bytes]) -> Iterator[_Chunk]:
    """Yield the chunks up to the end of the file or the first invalid type."""
    end = file.seek(0, 2)
    offset = len(SIGNATURE)
    while offset + 8 <= end:
        file.seek(offset)
        length, kind = struct.unpack(">I4s", file.read(8))
        if not _is_type(kind):
            return
        offset += 8
        yield _Chunk(kind, offset, length, min(length, end - offset))
        offset += length + 4


def _read(file: IO[bytes], chunk: _Chunk, most: int) -> bytes | None:
    """Return the data of a chunk, or None if they are damaged or longer than `most` bytes."""
    if chunk.length > most or chunk.there < chunk.length:
        return None
    file.seek(chunk.offset)
    data = file.read(chunk.length)
    return data if file.read(4) == _checksum(chunk.kind, data) else None


def _checksum(kind: bytes, data: bytes) -> bytes:
    return zlib.crc32(data, zlib.crc32(kind)).to_bytes(4, "big")


def _fits(transparency: bytes, color_type: int, palette_size: int) -> bool:
    if color_type == _INDEXED:
        return len(transparency) <= palette_size
    return len(transparency) == {_GRAY: 2, _RGB: 6}.get(color_type)


def _verify(file: IO[bytes], chunks: list[_Chunk]) -> None:
    for chunk in chunks:
        file.seek(chunk.offset)
        checksum, left = zlib.crc32(chunk.kind), chunk.length
        while left and (block := file.read(min(left, _BLOCK))):
            checksum = zlib.crc32(block, checksum)
            left -= len(block)
        known = file.read(4)
        # If the file ends before the checksum, the decoder knows whether the pixels are complete.
        if len(known) == 4 and known != checksum.to_bytes(4, "big"):
            raise ImageError("damaged PNG: its pixels have a wrong checksum")


def _take_metadata(file: IO[bytes], chunk: _Chunk, container: Container) -> None:
    if chunk.kind == b"iCCP":
        if data := _read(file, chunk, MOST_PROFILE):
            _, _, compressed = data.partition(b"\0")
            profile = _inflated(compressed[1:], MOST_PROFILE) if compressed[:1] == b"\0" else None
            if profile:
                container.info["icc_profile"] = profile
    elif chunk.kind == b"eXIf":
        if data := _read(file, chunk, MOST_TEXT):
            container.info["exif"] = b"Exif\0\0" + data
    elif chunk.kind == b"sBIT":
        if data := _read(file, chunk, 4):
            container.info[SIGNIFICANT_BITS] = max(data)
    elif chunk.kind in (b"tEXt", b"zTXt", b"iTXt"):
        _take_text(file, chunk, container)


def _take_text(file: IO[bytes], chunk: _Chunk, container: Container) -> None:
    file.seek(chunk.offset)
    keyword = file.read(min(chunk.there, 80)).partition(b"\0")[0]
    if keyword not in _ORIENTING or not (data := _read(file, chunk, MOST_TEXT)):
        return
    text: bytes | None = data[len(keyword) + 1 :]
    if chunk.kind == b"zTXt":
        text = _inflated(data[len(keyword) + 2 :], MOST_TEXT)
    elif chunk.kind == b"iTXt":
        flags, rest = data[len(keyword) + 1 :][:2], data[len(keyword) + 3 :].split(b"\0", 2)
        text = rest[2] if len(rest) == 3 else None
        if text and flags[:1] != b"\0":
            text = _inflated(text, MOST_TEXT)
    if text:
        key = _ORIENTING[keyword]
        profile = key.startswith("Raw")
        container.info[key] = text.decode("latin-1") if profile else text


def _inflated(data: bytes, most: int) -> bytes | None:
    """Return inflated data, or None if they are damaged or exceed `most` bytes."""
    inflater = zlib.decompressobj()
    try:
        inflated = inflater.decompress(data, most)
    except zlib.error:
        return None
    return None if inflater.unconsumed_tail else inflated
