"""WebP thumbnails."""

import base64
import io

from imgsearch import memory
from imgsearch.config import DEFAULT_MAX_PIXELS
from imgsearch.images.decoding import Source, load
from imgsearch.memory import Lease


def thumbnail(source: Source, side: int, max_pixels: int = DEFAULT_MAX_PIXELS) -> bytes:
    """A WebP thumbnail of at most `side` pixels. Raises ImageError."""
    with memory.lease() as lease:
        return _thumbnail(source, side, max_pixels, lease)


def _thumbnail(source: Source, side: int, max_pixels: int, lease: Lease) -> bytes:
    """A function of its own, so that the image is freed before the lease ends."""
    image = load(source, side, max_pixels, lease).image
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80)
    return buffer.getvalue()


def thumbnail_data_uri(
    source: Source, side: int = 320, max_pixels: int = DEFAULT_MAX_PIXELS
) -> str:
    """A WebP thumbnail of at most `side` pixels as a `data:` URI. Raises ImageError."""
    encoded = base64.b64encode(thumbnail(source, side, max_pixels)).decode()
    return f"data:image/webp;base64,{encoded}"
