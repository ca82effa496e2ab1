"""The protocol that every encoder implements.

One contract suite (`tests/encoder_contract.py`) tests all of them.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from imgsearch.errors import EncoderError
from imgsearch.images import Pixels, Preprocessing
from imgsearch.types import Stamp

Vectors = NDArray[np.float32]
# Returns at most the given number of preprocessed images, uint8 (n, size, size, 3).
Sample = Callable[[Preprocessing, int], Pixels]


class Encoder(Protocol):
    """Turns images into vectors. `imgsearch.encoders.factory.open_encoder` opens one."""

    @property
    def stamp(self) -> Stamp:
        """The stamp of a collection of these vectors."""
        ...

    @property
    def preprocessing(self) -> Preprocessing: ...

    @property
    def runtime(self) -> str:
        """The library that runs the model, for example `torch`."""
        ...

    @property
    def device(self) -> str:
        """The device in use, for example `cpu` or `cuda:0`; several are separated by commas."""
        ...

    @property
    def compute_type(self) -> str:
        """The number format of the computation, for example `fp32` or `fp16`.

        It depends on the device: fp32, fp16 and bf16 give the same vectors to a cosine of 0.999.
        """
        ...

    @property
    def batch_size(self) -> int:
        """The recommended number of images per batch."""
        ...

    @property
    def concurrency(self) -> int:
        """The number of threads that should call `encode` concurrently to keep it busy."""
        ...

    def encode(self, pixels: Pixels) -> Vectors:
        """Return the vectors of a batch, float32 of shape (n, dimension), L2-normalized.

        `pixels` is uint8 of shape (n, size, size, 3), RGB, preprocessed. The vector of an image
        does not depend on the rest of its batch, except for rounding. Raises DeviceMemoryError if
        the batch does not fit; a smaller one may. Thread-safe.
        """
        ...


def normalized(features: NDArray[np.float32]) -> Vectors:
    """Divide each row by its L2 norm; a row of zeros is unchanged.

    Raises EncoderError if a row is not finite, so that no such vector is ever stored.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.linalg.norm(features, axis=1, keepdims=True)
    if not np.isfinite(norms).all():
        raise EncoderError(
            "the model gives vectors that are not finite numbers: its weights are damaged"
        )
    return np.asarray(features / np.maximum(norms, 1e-12), dtype=np.float32)
