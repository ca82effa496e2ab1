"""Comparison of the vectors of two runtimes or devices."""

import numpy as np
from PIL import Image

from imgsearch.encoders.base import Vectors
from imgsearch.images import Pixels

_COUNT = 8


def representative(size: int) -> Pixels:
    """Return generated images, from smooth to noisy, one black and one white.

    uint8 of shape (8, size, size, 3). A runtime's rounding does not depend on what an image shows.
    """
    random = np.random.default_rng(0)
    images = [np.full((size, size, 3), value, dtype=np.uint8) for value in (0, 255)]
    for side in np.linspace(3, size, _COUNT - len(images)).astype(int):
        coarse = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
        images.append(np.asarray(image))
    return np.stack(images)


def least_cosine(one: Vectors, other: Vectors) -> float:
    """Return the lowest cosine between corresponding rows, which are L2-normalized."""
    return float((one * other).sum(axis=1).min())
