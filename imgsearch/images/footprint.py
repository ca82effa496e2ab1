"""How much memory the decoding of an image takes, estimated from its header alone.

In bytes per pixel, measured as the peak of a process with Pillow 12 at 36 megapixels.
"""

from typing import Final

from PIL import Image

from imgsearch.images.depth import has_lower_bytes

# Pixels as RGB, and once more: for the orientation, or the part that is cut out.
_RGB: Final = 8.0
# Pixels as they are in the file, with every copy on the way to RGB.
_BY_MODE: Final = {"LA": 12.0, "PA": 12.0, "CMYK": 12.0, "LAB": 12.0, "YCbCr": 12.0, "HSV": 12.0}
_WITH_TRANSPARENCY: Final = 12.0
_SIXTEEN_BITS: Final = 13.0
_THIRTY_TWO_BITS: Final = 17.0
# Converted to sRGB; and read twice, for the upper and the lower bytes of samples of 16 bits.
_PROFILE: Final = 4.0
_LOWER_BYTES: Final = 12.0
# What the libraries that read a format keep beside the pixels, at the file's full size.
_BY_FORMAT: Final = {"WEBP": 8.0, "JPEG2000": 11.5, "AVIF": 2.5, "HEIF": 0.5, "JPEG": 0.25}
_PROGRESSIVE: Final = 6.0
_RAW: Final = 8.0


def decoding_bytes(image: Image.Image, whole: tuple[int, int]) -> int:
    """For an image that is opened but not loaded.

    `image` may have been set to be decoded at a reduced size; `whole` is its size in the file.
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
    """For an image that is RGB already, with the copy that preprocessing makes."""
    return int(image.width * image.height * _RGB)


def raw_decoding_bytes(width: int, height: int) -> int:
    """For a camera's raw file, by the size of its sensor: its samples, developed at half size."""
    return int(width * height * _RAW)
