"""Read the segments of JPEG files."""

import io
from collections.abc import Iterator
from typing import IO

from imgsearch.errors import ImageError
from imgsearch.images.container import Container
from imgsearch.images.jpeg_end import END, ZEROS, lacks_only_end_marker
from imgsearch.images.splicing import Part, splice

SIGNATURE = b"\xff\xd8\xff"
_SOS, _APP0, _APP1, _APP2, _APP14, _COM = 0xDA, 0xE0, 0xE1, 0xE2, 0xEE, 0xFE
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
# Larger files are not checked for a missing end marker.
_MOST_TO_COMPLETE = 256 << 20
_METADATA = frozenset({*range(0xE0, 0xF0), _COM})
# Bytes between segments that are skipped.
_MOST_GARBAGE = 1 << 16
# The minimum lengths with which libjpeg accepts the segments that define the color space.
_LEAST_JFIF, _LEAST_ADOBE = 14, 12


def without_metadata(file: IO[bytes]) -> Container:
    """Return a JPEG file without the segments that its pixels do not depend on.

    A file with invalid segments is returned unchanged, for the decoder to report. Raises ImageError
    for a truncated file.
    """
    container = Container(file)
    parts: list[Part] = [(0, 2)]
    exif, profile = bytearray(), list[bytes]()
    for marker, offset, length in _segments(file):
        if marker == _SOS:
            end = file.seek(0, io.SEEK_END)
            parts.append((offset - 4, end - offset + 4))
            if _needs_end(file, end):
                parts.append(END)
            container.file = splice(file, parts)
            break
        if marker not in _METADATA:
            parts.append((offset - 4, length + 4))
            continue
        if marker not in (_APP0, _APP1, _APP2, _APP14):
            continue
        file.seek(offset)
        data = file.read(length)
        if (marker == _APP0 and data[:5] == b"JFIF\0" and length >= _LEAST_JFIF) or (
            marker == _APP14 and data[:5] == b"Adobe" and length >= _LEAST_ADOBE
        ):
            parts.append((offset - 4, length + 4))
        elif marker == _APP1 and data[:6] == b"Exif\0\0":
            exif += data[6:]
        elif marker == _APP1 and data.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            container.info["xmp"] = data.partition(b"\0")[2]
        elif marker == _APP2 and data.startswith(b"ICC_PROFILE\0"):
            profile.append(data[12:])
    if exif:
        container.info["exif"] = b"Exif\0\0" + exif
    if whole := _assembled(profile):
        container.info["icc_profile"] = whole
    return container


def _needs_end(file: IO[bytes], size: int) -> bool:
    """Return whether only the end marker is missing. Raises ImageError if the file is truncated."""
    file.seek(size - 2)
    if file.read(2) == END or size > _MOST_TO_COMPLETE:
        return False
    file.seek(0)
    data = file.read()
    whole = lacks_only_end_marker(data)
    # The decoder reports other truncated files, but would decode these zeros as gray pixels.
    if whole is False and data.endswith(bytes(ZEROS)):
        raise ImageError("damaged JPEG: image file is truncated")
    return bool(whole)


def _assembled(pieces: list[bytes]) -> bytes | None:
    """Join the pieces of a color profile. Each begins with its number and the number of pieces."""
    pieces = sorted(piece for piece in pieces if len(piece) > 2)
    numbers = [(piece[0], piece[1]) for piece in pieces]
    if numbers != [(number + 1, len(pieces)) for number in range(len(pieces))]:
        return None
    return b"".join(piece[2:] for piece in pieces)


def _segments(file: IO[bytes]) -> Iterator[tuple[int, int, int]]:
    """Yield marker, offset and length of each segment's data, up to the first incomplete one."""
    end = file.seek(0, io.SEEK_END)
    at, garbage = 2, 0
    while at < end and garbage < _MOST_GARBAGE:
        file.seek(at)
        head = file.read(4)
        if len(head) < 2 or head[0] != 0xFF or head[1] in (0x00, 0xFF):
            at, garbage = at + 1, garbage + 1  # padding or garbage
        elif head[1] in _STANDALONE:
            at += 2
        elif len(head) < 4 or head[1:2] == END[1:]:
            return
        else:
            length = int.from_bytes(head[2:], "big") - 2
            if length < 0 or at + 4 + length > end:
                return
            yield head[1], at + 4, length
            at += 4 + length
