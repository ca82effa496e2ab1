"""Any colour space and sample depth to RGB of 8 bits."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imgsearch.errors import ImageError
from imgsearch.images.preprocessing import Pixels

_INVERTED = [255 - value for value in range(256)]
# Formats whose readers hold nothing beside the pixels.
_PIXELS_ALONE = frozenset({"PNG", "JPEG", "MPO", "TIFF", "BMP"})


def to_rgb(image: Image.Image, *, expendable: bool = False) -> Image.Image:
    """Any mode to RGB: transparency over white, 16 bits and floats scaled, inks by profile.

    An `expendable` image may be changed, or be the result: that saves a copy of all its pixels.
    """
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_to_eight_bits(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        rgba = image if expendable and image.mode == "RGBA" else image.convert("RGBA")
        rgba.paste("white", mask=rgba.getchannel("A").point(_INVERTED))
        return rgba.convert("RGB")
    if image.mode == "CMYK":
        return _cmyk_to_rgb(image)
    if image.mode == "LAB":
        from PIL import ImageCms

        return _through_profiles(image, ImageCms.createProfile("LAB"))
    # The readers of other formats keep more than the pixels for as long as the image exists.
    if expendable and image.mode == "RGB" and image.format in _PIXELS_ALONE:
        return image
    return image.convert("RGB")


def _to_eight_bits(values: NDArray[Any]) -> Pixels:
    """Grey values of more than 8 bits to 8.

    Integers are taken as 16 bits wide unless all of them fit into 8; floats as 0 to 1 or 0 to
    255, whichever holds them all; what fits neither is stretched from its least to its greatest.
    """
    kind, width = values.dtype.kind, values.dtype.itemsize
    grey = values.astype(np.float32)
    np.nan_to_num(grey, copy=False, posinf=0.0, neginf=0.0)
    low, high = float(grey.min()), float(grey.max())
    if (kind == "u" and width == 2) or (kind == "i" and low >= 0 and 255 < high < 65536):
        grey /= 257.0
    elif kind == "f" and low >= 0 and high <= 1.0:
        grey *= 255.0
    elif low < 0 or high > 255.0:
        scale = 255.0 / (high - low) if high > low else 0.0
        grey *= scale
        grey -= low * scale
    np.rint(grey, out=grey)
    return grey.astype(np.uint8)


def _cmyk_to_rgb(image: Image.Image) -> Image.Image:
    """By the embedded ink profile where there is one: without it, colours are only a guess."""
    if profile := image.info.get("icc_profile"):
        from PIL import ImageCms

        try:
            return _through_profiles(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)))
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass  # a damaged profile is as good as none
    return image.convert("RGB")


def _through_profiles(image: Image.Image, profile: Any) -> Image.Image:
    from PIL import ImageCms  # only here and above, as few pictures need its library

    converted = ImageCms.profileToProfile(
        image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    if converted is None:  # only with inPlace=True
        raise ImageError("its colours cannot be converted")
    return converted
