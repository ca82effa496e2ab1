"""Convert any color space and sample depth to 8-bit RGB.

Decoding version 1 applies profiles of CMYK images only, and treats all samples of more than 8 bits
as 16 bits wide.
"""

import numpy as np
from PIL import Image

from imgsearch.images.depth import to_eight_bits, to_eight_bits_1
from imgsearch.images.profiles import from_lab, to_srgb

_INVERTED = [255 - value for value in range(256)]
# Formats whose readers hold nothing but the pixels.
_PIXELS_ALONE = frozenset({"PNG", "JPEG", "TIFF", "BMP"})


def to_rgb(image: Image.Image, decoding: int, *, expendable: bool = False) -> Image.Image:
    """Convert an image of any mode to RGB: over white, 8 bits a sample, in sRGB.

    If `expendable`, the image may be modified or returned, which saves a copy of its pixels.
    """
    profile = image.info.get("icc_profile")
    if decoding == 1 and image.mode != "CMYK":
        profile = None
    if image.mode.startswith(("I", "F")):
        gray = to_eight_bits_1(np.asarray(image)) if decoding == 1 else to_eight_bits(image)
        return _rgb(to_srgb(Image.fromarray(gray), profile))
    if image.has_transparency_data:
        return _over_white(image, profile, expendable)
    if image.mode == "LAB":
        return from_lab(image)
    if image.mode in ("L", "CMYK"):
        return _rgb(to_srgb(image, profile))
    # Readers of other formats hold more than the pixels for as long as the image exists.
    alone = expendable and image.mode == "RGB" and image.format in _PIXELS_ALONE
    return to_srgb(image if alone else image.convert("RGB"), profile)


def _rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")


def _over_white(image: Image.Image, profile: bytes | None, expendable: bool) -> Image.Image:
    gray = image.mode in ("L", "LA", "La")
    shown = image if expendable and image.mode == "RGBA" else image.convert("RGBA")
    background = shown.getchannel("A").point(_INVERTED)
    if profile:
        shown = _rgb(to_srgb(shown.getchannel("R") if gray else shown.convert("RGB"), profile))
    shown.paste("white", mask=background)
    del background  # not needed in memory next to the copy that `_rgb` makes
    return _rgb(shown)
