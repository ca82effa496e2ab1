"""Small images, by which duplicates are verified independently of the model.

A fingerprint has 64 x 64 gray values, and 8 x 8 of each of the two chroma channels (YCbCr), which
tell a recolored image. All are stretched to the square.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imgsearch import images
from imgsearch.config import DEFAULT_MAX_PIXELS
from imgsearch.system import memory
from imgsearch.system.memory import Lease
from imgsearch.types import ImageRecord

SIDE = 64
CHROMA_SIDE = 8
_BYTES = SIDE * SIDE + 2 * CHROMA_SIDE * CHROMA_SIDE
# A JPEG is decoded at no less than this size: 4 pixels each way for each of the fingerprint.
_ENOUGH = 4 * SIDE

Fingerprint = NDArray[np.uint8]
"""A fingerprint: uint8 of shape (4224,)."""


def read(
    source: images.Source, max_pixels: int = DEFAULT_MAX_PIXELS
) -> tuple[Fingerprint, int, int]:
    """Return the fingerprint of an image, and its width and height. Raises ImageError."""
    with memory.lease() as lease:
        return _read(source, max_pixels, lease)


def _read(source: images.Source, max_pixels: int, lease: Lease) -> tuple[Fingerprint, int, int]:
    """Read it. A separate function, so that the image is freed before the lease ends."""
    loaded = images.load(source, _ENOUGH, max_pixels, lease)
    # Bicubic weighs all pixels: of an image at half the size, the fingerprint is nearly the same.
    small = loaded.image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    gray, *chroma = small.convert("YCbCr").split()
    parts = [each.resize((CHROMA_SIDE, CHROMA_SIDE), Image.Resampling.BOX) for each in chroma]
    values = [np.asarray(each, np.uint8).reshape(-1) for each in (gray, *parts)]
    return np.concatenate(values), loaded.width, loaded.height


def fingerprint_of(record: ImageRecord, max_pixels: int = DEFAULT_MAX_PIXELS) -> Fingerprint:
    """Return the fingerprint of a record's file.

    Raises ImageError, and ChangedError if the file is not the one that was indexed.
    """
    return images.read_original(record, lambda file: read(file, max_pixels)[0])


def gray(fingerprints: Fingerprint) -> NDArray[np.float32]:
    """Return the gray values of fingerprints (n, 4224), as (n, 64, 64)."""
    values = fingerprints[:, : SIDE * SIDE].reshape(-1, SIDE, SIDE)
    return values.astype(np.float32)


def chroma(fingerprints: Fingerprint) -> NDArray[np.float32]:
    """Return the chroma values of fingerprints (n, 4224), as (n, 128)."""
    return fingerprints[:, SIDE * SIDE :].astype(np.float32)


class FingerprintFile:
    """Fingerprints by number in a file, so that memory does not grow with them."""

    def __init__(self, path: Path, count: int) -> None:
        """Make the file. Raises OSError."""
        self._path, self._count = path, count
        with path.open("wb") as file:
            file.truncate(count * _BYTES)
        self.known = np.zeros(count, np.bool_)
        """Which numbers have a fingerprint."""

    def write(self, number: int, value: Fingerprint) -> None:
        with self._path.open("rb+") as file:
            file.seek(number * _BYTES)
            file.write(value.tobytes())
        self.known[number] = True

    def read(self, numbers: NDArray[np.integer]) -> Fingerprint:
        """Return the fingerprints of some numbers, of shape (n, 4224)."""
        if not len(numbers):
            return np.empty((0, _BYTES), np.uint8)
        # Opened for each call, as pages of a file that is mapped count as memory of the process.
        mapped = np.memmap(self._path, np.uint8, "r", shape=(self._count, _BYTES))
        return np.array(mapped[numbers])
