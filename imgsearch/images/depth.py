"""Scale samples of more than 8 bits to 8 bits.

Cameras, microscopes and X-ray machines store 9 to 14 significant bits in the lower end of 16-bit
samples. The number is taken from the file (`sBIT` in PNG, `BitsPerSample` and `MaxSampleValue` in
TIFF) if the values agree with it; otherwise it is the fewest bits that hold all values, from 8 to
14, or else 16.
"""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from imgsearch.images.container import SIGNIFICANT_BITS
from imgsearch.images.preprocessing import Pixels

# An image whose values fit into 15 bits is more likely a dark one of 16 bits.
_MOST_GUESSED = 14
_BITS_PER_SAMPLE, _PHOTOMETRIC, _MAX_SAMPLE, _SMAX_SAMPLE = 258, 262, 281, 341


def to_eight_bits(image: Image.Image) -> Pixels:
    """Scale gray values of more than 8 bits, or floats, to uint8 of shape (height, width).

    Floats range from 0 to 1 or from 0 to 255, whichever holds all values. Other floats, and
    integers of more than 16 bits, are stretched from their minimum to their maximum.
    """
    values = np.asarray(image)
    if values.dtype.kind in "iu":
        low, high = int(values.min()), int(values.max())
        if low >= 0 and high < 1 << 16:
            bits = _significant(high, _stated_bits(image))
            eight = _table(bits)[values.astype(np.uint16, copy=False)]
            return _as_shown(image, eight)
    return _as_shown(image, to_eight_bits_1(values))


def to_eight_bits_1(values: NDArray[Any]) -> Pixels:
    """Scale as decoding version 1 does: all integers of more than 8 bits are 16 bits wide."""
    kind, width = values.dtype.kind, values.dtype.itemsize
    gray = values.astype(np.float32)
    np.nan_to_num(gray, copy=False, posinf=0.0, neginf=0.0)
    low, high = float(gray.min()), float(gray.max())
    if (kind == "u" and width == 2) or (kind == "i" and low >= 0 and 255 < high < 65536):
        gray /= 257.0
    elif kind == "f" and low >= 0 and high <= 1.0:
        gray *= 255.0
    elif low < 0 or high > 255.0:
        scale = 255.0 / (high - low) if high > low else 0.0
        gray *= scale
        gray -= low * scale
    np.rint(gray, out=gray)
    return gray.astype(np.uint8)


def _stated_bits(image: Image.Image) -> int | None:
    if isinstance(bits := image.info.get(SIGNIFICANT_BITS), int):
        return bits
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return None
    try:
        bits = max(_integers(tags.get(_BITS_PER_SAMPLE, 16)))
        if 8 < bits < 16:
            return bits
        for tag in (_MAX_SAMPLE, _SMAX_SAMPLE):
            if tag in tags and (most := max(_integers(tags[tag]))) > 255:
                return most.bit_length()
    except (TypeError, ValueError, OverflowError):  # not numbers
        pass
    return None


def _integers(value: Any) -> list[int]:
    return [int(item) for item in (value if isinstance(value, tuple) else (value,))]


def _significant(high: int, stated: int | None) -> int:
    """Return the number of significant bits of samples whose maximum is `high`."""
    if stated is not None and 8 <= stated <= 16:
        # Larger values were shifted to the upper end, as the PNG specification recommends.
        return stated if high < 1 << stated else 16
    bits = max(8, high.bit_length())
    return bits if bits <= _MOST_GUESSED else 16


def _table(bits: int) -> Pixels:
    """Return a lookup table from 16 bits to 8, where the lowest `bits` are significant."""
    most = (1 << bits) - 1
    values = np.minimum(np.arange(1 << 16), most) * (255.0 / most)
    return np.rint(values).astype(np.uint8)


def _as_shown(image: Image.Image, gray: Pixels) -> Pixels:
    """Invert an image in which 0 is white, as Pillow does with 8 bits only."""
    tags = getattr(image, "tag_v2", None)
    if tags is not None and tags.get(_PHOTOMETRIC) == 0:
        return np.subtract(255, gray, dtype=np.uint8)
    return gray


# Rows that are processed at a time, to bound the 16-bit values in memory.
_ROWS = 256

# Pillow's raw modes that read the upper byte of 16-bit samples, and those for the lower byte.
_NATIVE, _OTHER = ("L", "B") if sys.byteorder == "little" else ("B", "L")
_LOWER = {
    "RGB;16B": "RGB;16L",
    "RGB;16L": "RGB;16B",
    "RGB;16N": f"RGB;16{_OTHER}",
    "RGBA;16B": "RGBA;16L",
    "RGBA;16L": "RGBA;16B",
    "RGBA;16N": f"RGBA;16{_OTHER}",
    # Gray and alpha: the four bytes as they are.
    "LA;16B": "RGBA",
}


def raw_mode(image: Image.Image) -> str:
    """Return the raw mode with which Pillow will unpack an image's samples."""
    tiles = getattr(image, "tile", None)
    args = tiles[0][3] if tiles else ""
    return str(args[0] if isinstance(args, tuple) and args else args)


def has_lower_bytes(image: Image.Image) -> bool:
    """Return whether an image that is not loaded yet has colors of 16 bits a channel."""
    return raw_mode(image) in _LOWER


def with_lower_bytes(
    image: Image.Image, mode: str, reopen: Callable[[], ImageFile.ImageFile]
) -> Image.Image:
    """Add the lower bytes to a 16-bit color image; Pillow reads only the upper bytes.

    `mode` is its `raw_mode` before loading. The file is decoded again only if the upper bytes are
    nearly empty; otherwise the image itself is returned.
    """
    if mode not in _LOWER:
        return image
    upper = _greatest(image)
    if max(upper[:3]) >> (_MOST_GUESSED - 8):
        return image
    lower = reopen()
    lower.tile = [tile._replace(args=_replaced(tile.args, _LOWER[mode])) for tile in lower.tile]
    lower.load()
    bands = [1, 1, 1, 3] if mode == "LA;16B" else list(range(len(upper)))
    # Only the bit length of the maximum matters.
    of_lower = _greatest(lower)
    high = max(upper[:3]) << 8 | max(of_lower[band] for band in bands[:3])
    bits = _significant(high, _stated_bits(image))
    if bits == 16:
        return image
    tables = [_table(bits)] * len(upper)
    if len(upper) == 4 and upper[3] << 8 >= 1 << bits:
        tables[3] = _table(16)
    eight = np.empty((image.height, image.width, len(upper)), dtype=np.uint8)
    for top in range(0, image.height, _ROWS):
        box = (0, top, image.width, min(top + _ROWS, image.height))
        high_bytes, low_bytes = np.asarray(image.crop(box)), np.asarray(lower.crop(box))
        for band, table in enumerate(tables):
            samples = high_bytes[..., band].astype(np.uint16) << 8 | low_bytes[..., bands[band]]
            eight[top : box[3], :, band] = table[samples]
    found = Image.fromarray(eight)
    found.info["icc_profile"] = image.info.get("icc_profile")
    return found


def _greatest(image: Image.Image) -> list[int]:
    """Return the maximum of each band."""
    extremes: Any = image.getextrema()
    return [int(most) for _, most in extremes]


def _replaced(args: Any, mode: str) -> Any:
    return (mode, *args[1:]) if isinstance(args, tuple) else mode
