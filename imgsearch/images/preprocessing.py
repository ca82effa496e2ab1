"""Crop and resize a decoded image to a network's input."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

# The version of the decoding, part of every stamp. Version 2 applies color profiles and scales
# 16-bit samples by their significant bits; version 1 made older collections.
DECODING = 2
DECODINGS = (1, 2)

# Images longer than this many times their short side are cut before they are resized.
_LONGEST = 16

_RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How an image of any size becomes a network's input.

    With `crop_fraction`, as in TensorFlow: crop the center square of that fraction of the short
    side, then resize it to `size`. Otherwise, as in torchvision: resize the short side to
    `resize`, then crop the center square of `size`. `mean` and `std` are for values in
    [0, 1] and are applied by the encoder. `decoding` is one of `DECODINGS`.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bilinear", "bicubic"]
    resize: int | None = None
    crop_fraction: float | None = None
    decoding: int = DECODING

    def describe(self) -> str:
        """Return the description that is part of a collection's stamp, with every parameter."""
        if self.crop_fraction is not None:
            shape = f"crop {self.crop_fraction:g}, resize {self.size}"
        else:
            shape = f"resize {self.resize}, crop {self.size}"
        mean = " ".join(f"{value:g}" for value in self.mean)
        std = " ".join(f"{value:g}" for value in self.std)
        return f"{shape}, {self.interpolation}, mean {mean}, std {std}, decode {self.decoding}"

    def as_described(self, description: str) -> "Preprocessing":
        """Return a copy with the decoding version of a stamp's description, if it is known."""
        for decoding in DECODINGS:
            if description.endswith(f", decode {decoding}"):
                return replace(self, decoding=decoding)
        return self

    @property
    def short_side(self) -> int:
        """The length of the full image's short side at the scale of the network, in pixels."""
        if self.crop_fraction is not None:
            return round(self.size / self.crop_fraction)
        return self.resize or self.size


@dataclass(frozen=True, slots=True)
class Loaded:
    """An RGB image, oriented and composited over white.

    `width` and `height` are those of the full image in the file, after orientation. `image` may be
    reduced by the factor `scale` and padded to whole pixels: the full image starts at (`left`,
    `top`), in pixels of `image`.
    """

    image: Image.Image
    width: int
    height: int
    scale: float = 1.0
    left: float = 0.0
    top: float = 0.0

    def box(self, left: float, top: float, right: float, bottom: float) -> "_Box":
        """Convert a box from pixels of the full image to pixels of `image`."""
        return (
            self.left + left / self.scale,
            self.top + top / self.scale,
            self.left + right / self.scale,
            self.top + bottom / self.scale,
        )


_Box = tuple[float, float, float, float]


def fit(loaded: Loaded, preprocessing: Preprocessing) -> Image.Image:
    """Return the center square at the size of the network.

    The square is computed in pixels of the full image, so that a reduced image gives the same one:
    a shift by a fraction of a pixel changes a vector more than the reduction does.
    """
    width, height = loaded.width, loaded.height
    size = preprocessing.size
    filter_ = _RESAMPLING[preprocessing.interpolation]
    if preprocessing.crop_fraction is not None:
        # As `decode_and_center_crop` of TensorFlow's EfficientNet, with the same rounding.
        side = max(1, int(preprocessing.crop_fraction * min(width, height)))
        left, top = (width - side + 1) // 2, (height - side + 1) // 2
        box = loaded.box(left, top, left + side, top + side)
        return _cut_and_resize(loaded.image, box, (size, size), filter_)
    # As torchvision's Resize and CenterCrop, with the same rounding.
    short = preprocessing.resize or size
    if width <= height:
        whole = (short, int(short * height / width))
    else:
        whole = (int(short * width / height), short)
    left, top = round((whole[0] - size) / 2.0), round((whole[1] - size) / 2.0)
    if max(whole) <= _LONGEST * short:
        resized = loaded.image.resize(whole, filter_, box=loaded.box(0, 0, width, height))
        return resized.crop((left, top, left + size, top + size))
    # The same square without the rest: the resized image of 10,000 x 1 pixels would take gigabytes.
    scale = min(width, height) / short
    box = loaded.box(left * scale, top * scale, (left + size) * scale, (top + size) * scale)
    return loaded.image.resize((size, size), filter_, box=box)


def _cut_and_resize(
    image: Image.Image,
    box: tuple[float, float, float, float],
    size: tuple[int, int],
    filter_: Image.Resampling,
) -> Image.Image:
    """Resize a part of an image.

    With `resize(box=...)` alone, the filter would read pixels around the part.
    """
    left, top = math.floor(box[0]), math.floor(box[1])
    right, bottom = min(image.width, math.ceil(box[2])), min(image.height, math.ceil(box[3]))
    inner = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
    return image.crop((left, top, right, bottom)).resize(size, filter_, box=inner)
