"""A small, meaningful encoder for tests that are not about the model: colors by place."""

import threading

import numpy as np

from imgsearch.encoders.base import Vectors, normalized
from imgsearch.encoders.request import EncoderRequest
from imgsearch.errors import DeviceMemoryError
from imgsearch.events import Listener, ignore
from imgsearch.images import Pixels, Preprocessing
from imgsearch.types import Stamp

SIZE = 32
GRID = 4
PREPROCESSING = Preprocessing(
    size=SIZE, resize=SIZE, interpolation="bilinear", mean=(0, 0, 0), std=(1, 1, 1)
)


class ColorEncoder:
    """Encodes the mean colors of 4 x 4 parts of the image: 48 dimensions, in microseconds.

    `fits` bounds the batch that its pretended device holds. `batches` tells the sizes it was
    given. With `gate`, it waits there before each batch, and sets `at_gate` once it does.
    """

    runtime = "fake"
    device = "none"
    compute_type = "fp32"
    batch_size = 32
    concurrency = 1
    preprocessing = PREPROCESSING

    def __init__(self, weights: str = "0" * 64, fits: int = 10**9) -> None:
        self.stamp = Stamp("colors", weights, PREPROCESSING.describe(), 3 * GRID * GRID)
        self.fits = fits
        self.batches: list[int] = []
        self.gate: threading.Event | None = None
        self.at_gate = threading.Event()

    @property
    def encoded(self) -> int:
        return sum(self.batches)

    def encode(self, pixels: Pixels) -> Vectors:
        if self.gate:
            self.at_gate.set()
            self.gate.wait(60)
        if len(pixels) > self.fits:
            raise DeviceMemoryError(f"a batch of {len(pixels)} does not fit")
        self.batches.append(len(pixels))
        part = SIZE // GRID
        parts = pixels.reshape(-1, GRID, part, GRID, part, 3).mean((2, 4), dtype=np.float32)
        return normalized(parts.reshape(len(pixels), -1) - np.float32(127.5))

    def open(
        self, request: EncoderRequest, stamp: Stamp | None = None, listener: Listener = ignore
    ) -> "ColorEncoder":
        """Replaces `open_encoder`."""
        return self
