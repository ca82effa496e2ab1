"""Files of all formats with mutated metadata are decoded, or rejected with a readable reason."""

import random
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from PIL import Image

from imgsearch.errors import ImageError
from imgsearch.images import formats, load, thumbnail
from tests.profiles import profile
from tests.raw_files import raw_file
from tests.test_damaged_metadata import encoded, photograph

MUTATIONS = 120

# Messages of Python for a bug in a parser, which no decoder would use.
PYTHONS_WORDS = re.compile(
    r"out of range|unpack|requires a buffer|NoneType|has no attribute|argument|invalid literal"
    r"|codec can't|unsupported operand|int too large|not subscriptable|\bobject is\b|index",
    re.IGNORECASE,
)


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker" * 10
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    return exif


def _plain(format_: str, mode: str = "RGB", **options: Any) -> bytes:
    return encoded(photograph().convert(mode), format_, **options)


def _tagged(format_: str, **options: Any) -> bytes:
    """Return an image with EXIF and a color profile."""
    return _plain(format_, exif=_exif(), icc_profile=profile("display-p3"), **options)


def _animated(format_: str, mode: str = "RGB", **options: Any) -> bytes:
    frames = [photograph().rotate(180)]
    return _plain(format_, mode, save_all=True, append_images=frames, **options)


def _raw() -> bytes:
    image = photograph().resize((480, 480))
    return raw_file(image, preview=image)


# Made by the test that uses it: each process that collects the tests would make them all.
ORIGINALS: dict[str, Callable[[], bytes]] = {
    "jpeg": partial(_tagged, "JPEG", comment=b"text"),
    "progressive": partial(_plain, "JPEG", progressive=True),
    "cmyk": lambda: _plain("JPEG", "CMYK", icc_profile=profile("gray")),
    "mpo": partial(_animated, "MPO"),
    "png": partial(_tagged, "PNG"),
    "indexed": partial(_plain, "PNG", "P", transparency=b"\0\1\2"),
    "apng": partial(_animated, "PNG"),
    "webp": partial(_tagged, "WEBP", xmp=b"<x/>"),
    "avif": partial(_tagged, "AVIF", xmp=b"<x/>"),
    "heif": partial(_tagged, "HEIF"),
    "tiff": partial(_tagged, "TIFF", compression="tiff_adobe_deflate"),
    "float": partial(_plain, "TIFF", "F"),
    "deep": partial(_plain, "TIFF", "I;16"),
    "gif": partial(_animated, "GIF", "P", comment=b"x" * 300),
    "dng": _raw,
    "bmp": partial(_plain, "BMP"),
    "jpeg2000": partial(_plain, "JPEG2000"),
    "ico": partial(_plain, "ICO"),
    "tga": partial(_plain, "TGA"),
    "ppm": partial(_plain, "PPM"),
    "dds": partial(_plain, "DDS"),
    "qoi": partial(_plain, "QOI"),
    "pcx": partial(_plain, "PCX"),
    "sgi": partial(_plain, "SGI"),
}


def mutated(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    zone = min(len(data), chance.choice([64, 200, 600, len(data)]))
    for _ in range(chance.choice([1, 1, 2, 8])):
        at = chance.randrange(min(zone, len(changed)))
        kind = chance.randrange(5)
        if kind == 0:
            del changed[at : at + chance.choice([1, 2, 4, 16])]
        elif kind == 1:
            changed[at:at] = chance.randbytes(chance.choice([1, 2, 8]))
        elif kind == 2:
            changed[at : at + 4] = chance.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"])
        else:
            changed[at] = chance.randrange(256)
        changed = changed or bytearray(b"\0")
    return bytes(changed)


@pytest.mark.parametrize("name", ORIGINALS)
def test_a_mutated_file_is_decoded_or_rejected_with_a_readable_reason(name: str) -> None:
    formats.register_all_formats()
    original = ORIGINALS[name]()
    load(original)
    chance = random.Random(name)
    for number in range(MUTATIONS):
        reason = ""
        try:
            assert thumbnail(mutated(original, chance), 32, max_pixels=4_000_000)[:4] == b"RIFF"
        except ImageError as error:
            reason = str(error)
        assert not PYTHONS_WORDS.search(reason), number
