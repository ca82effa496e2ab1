"""Thumbnails in WebP format."""

import base64
import io

from PIL import Image

from imgsearch.config import DEFAULT_MAX_PIXELS
from imgsearch.images.decoding import Source, load
from imgsearch.images.files import read_original
from imgsearch.system import memory
from imgsearch.system.memory import Lease
from imgsearch.types import ImageRecord


def thumbnail(source: Source, side: int, max_pixels: int = DEFAULT_MAX_PIXELS) -> bytes:
    """Return a WebP thumbnail of at most `side` x `side` pixels. Raises ImageError."""
    return _webp(_small(source, side, max_pixels))


def _small(source: Source, side: int, max_pixels: int) -> Image.Image:
    with memory.lease() as lease:
        return _reduced(source, side, max_pixels, lease)


def _reduced(source: Source, side: int, max_pixels: int, lease: Lease) -> Image.Image:
    """Return the image, reduced in place: the large one is freed before the lease ends."""
    image = load(source, side, max_pixels, lease).image
    image.thumbnail((side, side))
    return image


def _webp(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    # The pixels are in sRGB; the file's own profile would convert them a second time.
    image.save(buffer, "WEBP", quality=80, icc_profile=b"")
    return buffer.getvalue()


def thumbnail_of(
    record: ImageRecord, side: int = 320, max_pixels: int = DEFAULT_MAX_PIXELS
) -> bytes:
    """Return a WebP thumbnail of a record's file.

    Raises ImageError, and ChangedError if the file is not the one that was indexed.
    """
    return _webp(small_of(record, side, max_pixels))


def small_of(record: ImageRecord, side: int, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
    """Return a record's image, reduced to at most `side` x `side` pixels, in sRGB.

    Raises ImageError, and ChangedError if the file is not the one that was indexed.
    """
    return read_original(record, lambda file: _small(file, side, max_pixels))


def thumbnail_data_uri(
    source: Source | ImageRecord, side: int = 320, max_pixels: int = DEFAULT_MAX_PIXELS
) -> str:
    """Return `thumbnail` or `thumbnail_of` as a `data:` URI. Raises ImageError."""
    if isinstance(source, ImageRecord):
        made = thumbnail_of(source, side, max_pixels)
    else:
        made = thumbnail(source, side, max_pixels)
    encoded = base64.b64encode(made).decode()
    return f"data:image/webp;base64,{encoded}"
