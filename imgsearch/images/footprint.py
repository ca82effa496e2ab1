"""Estimate the memory that decoding an image takes, from its header.

The figures are bytes per pixel: the peak of a process with Pillow 12 at 36 megapixels.
"""

from typing import Final

from PIL import Image

from imgsearch.images.depth import has_lower_bytes

# Pixels as RGB, plus a copy for rotation or cropping.
_RGB: Final = 8.0
# Pixels in the file's mode, with every copy on the way to RGB.
_BY_MODE: Final = {"LA": 12.0, "PA": 12.0, "CMYK": 12.0, "LAB": 12.0, "YCbCr": 12.0, "HSV": 12.0}
_WITH_TRANSPARENCY: Final = 12.0
_SIXTEEN_BITS: Final = 13.0
_THIRTY_TWO_BITS: Final = 17.0
# A copy in sRGB; a second decoding for the lower bytes of 16-bit samples.
_PROFILE: Final = 4.0
_LOWER_BYTES: Final = 12.0
# What a format's decoder holds in addition to the pixels, at the file's full size.
_BY_FORMAT: Final = {"WEBP": 8.0, "JPEG2000": 11.5, "AVIF": 2.5, "HEIF": 0.5, "JPEG": 0.25}
_PROGRESSIVE: Final = 6.0
_RAW: Final = 8.0


def decoding_bytes(image: Image.Image, whole: tuple[int, int]) -> int:
    """Return the bytes needed to decode an image that is opened but not loaded.

    `image` may be in draft mode, to be decoded at a reduced size; `whole` is its size in the file.
    """
    if image.mode.startswith("I;16"):
        each = _SIXTEEN_BITS
    elif image.mode.startswith(("I", "F")):
        each = _THIRTY_TWO_BITS
    elif "transparency" in image.info and image.mode != "RGBA":
        each = _WITH_TRANSPARENCY
    else:
        each = _BY_MODE.get(image.mode, _RGB)
    if image.info.get("icc_profile"):
        each += _PROFILE
    if has_lower_bytes(image):
        each += _LOWER_BYTES
    reader = _BY_FORMAT.get(image.format or "", 0.0)
    if image.info.get("progressive"):
        reader = _PROGRESSIVE
    return int(image.width * image.height * each + whole[0] * whole[1] * reader)


def rgb_bytes(image: Image.Image) -> int:
    """Return the bytes of an image that is RGB already, with the copy that preprocessing makes."""
    return int(image.width * image.height * _RGB)


def raw_decoding_bytes(width: int, height: int) -> int:
    """Return the bytes needed to develop a camera raw file at half size, from its sensor's size."""
    return int(width * height * _RAW)
