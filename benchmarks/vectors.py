"""Synthetic vectors and records, clustered like those of images."""

import numpy as np

from imgsearch.encoders.base import normalized
from imgsearch.stores.base import Vectors
from imgsearch.types import ImageRecord, Stamp

SHARES = {"all": 1, "10 %": 10, "1 %": 100}
"""Filters by the field `one_in_N`, which one record in N passes."""


def stamp(dimension: int) -> Stamp:
    return Stamp("synthetic", "0" * 64, "none", dimension)


def clustered(count: int, dimension: int, seed: int = 0) -> Vectors:
    """Return L2-normalized vectors, float32 of shape (count, dimension), around 440 centers."""
    random = np.random.default_rng(seed)
    centers = np.random.default_rng(1).standard_normal((440, dimension), dtype=np.float32)
    noise = random.standard_normal((count, dimension), dtype=np.float32)
    return normalized(centers[random.integers(0, len(centers), count)] + 0.8 * noise)


def records(count: int) -> list[ImageRecord]:
    return [
        ImageRecord(
            uri=f"file:///images/{number:07d}.jpg",
            sha256=f"{number:064x}",
            size=100_000 + number,
            mtime_ns=1_700_000_000_000_000_000 + number,
            width=640,
            height=480,
            metadata={f"one_in_{n}": number % n == 0 for n in SHARES.values() if n > 1}
            | {"year": 2000 + number % 20},
        )
        for number in range(count)
    ]


FIELDS = {"one_in_10": "bool", "one_in_100": "bool", "year": "int"}
