"""The awkward files; `sample_data/awkward/expected.csv` says what should become of each.

All that show anything show the same umbrella, which no product does, so that a wrongly decoded file
shows by its distance from `upright.jpg`.
"""

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image

from tools.sample_data.canvas import Drawing, Pose
from tools.sample_data.colors import NAVY, ORANGE, RED, TEAL
from tools.sample_data.products import umbrella

_CROP = (32, 0, 256, 288)
_SIZE = (112, 144)  # multiples of 8: rotating a JPEG preserves its blocks
ORIENTATION_TAG = 0x0112
BOMB_SIDE = 20_000


@cache
def _umbrella() -> Image.Image:
    """Return the umbrella, opaque; taller than wide, so that a wrong rotation shows."""
    return _umbrella_drawing().finished().crop(_CROP).resize(_SIZE)


@cache
def _umbrella_cutout() -> Image.Image:
    """Return the umbrella on a transparent background, whose color is black."""
    return _umbrella_drawing().cutout().crop(_CROP).resize(_SIZE)


def _umbrella_drawing() -> Drawing:
    art = Drawing(seed=1, pose=Pose(tilt=8, zoom=0.9))
    umbrella(art)
    return art


@cache
def _later_frame() -> Image.Image:
    """Return the second frame of animations, and the second page of documents."""
    return Image.new("RGB", _SIZE, TEAL)


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return an image as the bytes of a file."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def _jpeg(**options: object) -> bytes:
    return _encoded(_umbrella(), "JPEG", quality=95, subsampling=0, **options)


def _sideways_jpeg() -> bytes:
    """Return a JPEG stored on its side, with the EXIF orientation to rotate it clockwise."""
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 6
    lying = _umbrella().transpose(Image.Transpose.ROTATE_90)
    return _encoded(lying, "JPEG", quality=95, subsampling=0, exif=exif)


def _broken_exif_jpeg() -> bytes:
    """Return a JPEG whose EXIF block is corrupt after its header."""
    return _jpeg(exif=b"Exif\0\0II*\0" + b"\xff\xfe" * 40)


def _corrupt_jpeg() -> bytes:
    """Return a JPEG with its tables and size overwritten after the signature."""
    whole = bytearray(_jpeg())
    whole[20:400] = b"\x55" * 380
    return bytes(whole)


def _cut(whole: bytes) -> bytes:
    """Return the first 60 % of a file."""
    return whole[: len(whole) * 6 // 10]


def _gray_16bit() -> Image.Image:
    """Return gray levels over the whole 16-bit range: clipped at 255, all would be white."""
    levels = np.asarray(_umbrella().convert("L")).astype(np.uint16) * 257
    return Image.fromarray(levels)


def _gray_float() -> Image.Image:
    """Return gray levels from 0 to 255 as 32-bit floats."""
    return Image.fromarray(np.asarray(_umbrella().convert("L")).astype(np.float32))


def _palette_cutout() -> bytes:
    """Return a PNG with a palette whose first entry is transparent black."""
    cutout = _umbrella_cutout()
    palette = cutout.convert("RGB").quantize(255, dither=Image.Dither.NONE)
    indices = np.asarray(palette) + np.uint8(1)
    indices = np.where(np.asarray(cutout)[..., 3] < 128, 0, indices).astype(np.uint8)
    image = Image.fromarray(indices).convert("P")
    image.putpalette([0, 0, 0, *(palette.getpalette() or [])][:768])
    return _encoded(image, "PNG", transparency=0)


def _animation(kind: str, **options: object) -> bytes:
    """Return an animation of the umbrella and another frame."""
    later = [_later_frame()]
    return _encoded(_umbrella(), kind, save_all=True, append_images=later, **options)


def _lab_tiff() -> bytes:
    """Return a TIFF in L*a*b*, without the color profile, in which Pillow writes the time."""
    lab = _umbrella().convert("LAB")
    return _encoded(lab, "TIFF", compression="tiff_lzw", icc_profile=b"")


def _wide_strip() -> bytes:
    """Return an image far wider than high."""
    ramp = np.linspace(NAVY, ORANGE, 2000).round().astype(np.uint8)
    return _encoded(Image.fromarray(np.tile(ramp, (3, 1, 1))), "PNG")


def _bomb() -> bytes:
    """Return a small, well-formed, black PNG of 400 million pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    row = bytes(1 + BOMB_SIDE // 8)
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(row) for _ in range(BOMB_SIDE)) + packer.flush()
    header = struct.pack(">IIBBBBB", BOMB_SIDE, BOMB_SIDE, 1, 0, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


AWKWARD: dict[str, Callable[[], bytes]] = {
    "upright.jpg": _jpeg,
    "exif-orientation-6.jpg": _sideways_jpeg,
    "exif-corrupt.jpg": _broken_exif_jpeg,
    "cmyk.jpg": lambda: _encoded(_umbrella().convert("CMYK"), "JPEG", quality=88),
    "gray.jpg": lambda: _encoded(_umbrella().convert("L"), "JPEG", quality=88),
    "progressive.jpg": lambda: _jpeg(progressive=True),
    "trailing-garbage.jpg": lambda: _jpeg() + b"not part of the picture\0" * 40,
    "jpeg-named.png": _jpeg,
    "jpeg-named.dat": _jpeg,
    "jpeg-without-extension": _jpeg,
    "füße 鞋 👟.jpg": _jpeg,
    "&amp; it's 100% 'safe'.jpg": _jpeg,
    "gray-16bit.png": lambda: _encoded(_gray_16bit(), "PNG"),
    "gray-16bit.tif": lambda: _encoded(_gray_16bit(), "TIFF"),
    "gray-float.tif": lambda: _encoded(_gray_float(), "TIFF", compression="tiff_adobe_deflate"),
    "gray-alpha.png": lambda: _encoded(_umbrella_cutout().convert("LA"), "PNG"),
    "bilevel.png": lambda: _encoded(_umbrella().convert("1", dither=Image.Dither.NONE), "PNG"),
    "palette.png": lambda: _encoded(_umbrella().quantize(64), "PNG"),
    "palette-transparent.png": _palette_cutout,
    "rgba-transparent.png": lambda: _encoded(_umbrella_cutout(), "PNG"),
    "animated.gif": lambda: _animation("GIF", duration=400),
    "animated.png": lambda: _animation("PNG", duration=400),
    "animated.webp": lambda: _animation("WEBP", duration=400, quality=90),
    "still.avif": lambda: _encoded(_umbrella(), "AVIF", quality=80, max_threads=1),
    "still.bmp": lambda: _encoded(_umbrella(), "BMP"),
    "lzw.tif": lambda: _encoded(_umbrella(), "TIFF", compression="tiff_lzw"),
    "multipage.tif": lambda: _animation("TIFF", compression="tiff_lzw"),
    "lab.tif": _lab_tiff,
    "one-pixel.png": lambda: _encoded(Image.new("RGB", (1, 1), RED), "PNG"),
    "very-wide.png": _wide_strip,
    "text-named.jpg": lambda: b"This is a text file, whatever its name says.\n",
    "empty.jpg": lambda: b"",
    "truncated.jpg": lambda: _cut(_jpeg()),
    "truncated.png": lambda: _cut(_encoded(_umbrella(), "PNG")),
    "corrupt-header.jpg": _corrupt_jpeg,
    "bomb.png": _bomb,
}
