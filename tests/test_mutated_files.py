"""Files of all formats with mutated metadata are decoded, or rejected with a readable reason."""

import random
import re
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


def originals() -> dict[str, bytes]:
    formats.register_all_formats()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker" * 10
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    told: dict[str, Any] = {"exif": exif, "icc_profile": profile("display-p3")}
    image = photograph()
    frames: dict[str, Any] = {"save_all": True, "append_images": [image.rotate(180)]}
    made = {
        "jpeg": encoded(image, "JPEG", comment=b"text", **told),
        "progressive": encoded(image, "JPEG", progressive=True),
        "cmyk": encoded(image.convert("CMYK"), "JPEG", icc_profile=profile("gray")),
        "mpo": encoded(image, "MPO", **frames),
        "png": encoded(image, "PNG", **told),
        "indexed": encoded(image.convert("P"), "PNG", transparency=b"\0\1\2"),
        "apng": encoded(image, "PNG", **frames),
        "webp": encoded(image, "WEBP", xmp=b"<x/>", **told),
        "avif": encoded(image, "AVIF", xmp=b"<x/>", **told),
        "heif": encoded(image, "HEIF", **told),
        "tiff": encoded(image, "TIFF", compression="tiff_adobe_deflate", **told),
        "float": encoded(image.convert("F"), "TIFF"),
        "deep": encoded(image.convert("I;16"), "TIFF"),
        "gif": encoded(image.convert("P"), "GIF", comment=b"x" * 300, **frames),
        "dng": raw_file(image.resize((480, 480)), preview=image.resize((480, 480))),
    }
    for format_ in ("BMP", "JPEG2000", "ICO", "TGA", "PPM", "DDS", "QOI", "PCX", "SGI"):
        made[format_.lower()] = encoded(image, format_)
    return made


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


@pytest.mark.parametrize("name", originals())
def test_a_mutated_file_is_decoded_or_rejected_with_a_readable_reason(name: str) -> None:
    original = originals()[name]
    load(original)
    chance = random.Random(name)
    for number in range(MUTATIONS):
        reason = ""
        try:
            assert thumbnail(mutated(original, chance), 32, max_pixels=4_000_000)[:4] == b"RIFF"
        except ImageError as error:
            reason = str(error)
        assert not PYTHONS_WORDS.search(reason), number
