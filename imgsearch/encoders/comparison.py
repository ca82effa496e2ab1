"""Whether two ways to run a model give the same vectors."""

import numpy as np
from PIL import Image

from imgsearch.encoders.base import Vectors
from imgsearch.images import Pixels

_CHECKED = 8


def representative(size: int) -> Pixels:
    """Pictures to check with, of every kind between smooth and noisy, and one of each extreme.

    uint8 of shape (8, size, size, 3). Made, not shipped: how a runtime rounds does not depend on
    what is to be seen.
    """
    random = np.random.default_rng(0)
    pictures = [np.full((size, size, 3), value, dtype=np.uint8) for value in (0, 255)]
    for side in np.linspace(3, size, _CHECKED - len(pictures)).astype(int):
        coarse = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
        pictures.append(np.asarray(image))
    return np.stack(pictures)


def least_cosine(one: Vectors, other: Vectors) -> float:
    """Of each picture's two vectors, both of length one."""
    return float((one * other).sum(axis=1).min())
