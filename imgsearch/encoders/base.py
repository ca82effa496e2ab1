"""What an encoder is: the protocol that every runtime keeps.

One contract suite (`tests/encoder_contract.py`) runs against all of them.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from imgsearch.errors import EncoderError
from imgsearch.images import Pixels, Preprocessing
from imgsearch.types import Stamp

Vectors = NDArray[np.float32]
# Gives so many pictures or fewer, uint8 (n, size, size, 3), preprocessed.
Sample = Callable[[Preprocessing, int], Pixels]


class Encoder(Protocol):
    """Turns pictures into vectors. Built by `imgsearch.encoders.open_encoder`."""

    @property
    def stamp(self) -> Stamp:
        """What a collection of these vectors is stamped with."""
        ...

    @property
    def preprocessing(self) -> Preprocessing: ...

    @property
    def runtime(self) -> str:
        """What really runs the model, for example `torch`."""
        ...

    @property
    def device(self) -> str:
        """Where it really runs, for example `cpu` or `cuda:0`, or several with commas between."""
        ...

    @property
    def compute_type(self) -> str:
        """The format in which it really computes, for example `fp32` or `fp16`.

        A matter of the device: fp32, fp16 and bf16 give the same vectors to a cosine of 0.999.
        """
        ...

    @property
    def batch_size(self) -> int:
        """The number of pictures at once that suits it."""
        ...

    @property
    def concurrency(self) -> int:
        """How many threads should call `encode` at once to keep it busy."""
        ...

    def encode(self, pixels: Pixels) -> Vectors:
        """Vectors of a batch, float32 of shape (n, dimension), L2-normalised.

        `pixels` is uint8 of shape (n, size, size, 3), RGB, preprocessed. A picture's vector does
        not depend on the others of its batch, beyond rounding. Raises DeviceMemoryError if the
        batch does not fit; a smaller one may. Threads may call it at once.
        """
        ...


def normalised(features: NDArray[np.float32]) -> Vectors:
    """Each row divided by its L2 norm; a row of zeros stays as it is.

    Raises EncoderError if a row is not finite, so that no store ever holds such a vector.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.linalg.norm(features, axis=1, keepdims=True)
    if not np.isfinite(norms).all():
        raise EncoderError(
            "the model gives vectors that are not finite numbers: its weights are damaged"
        )
    return np.asarray(features / np.maximum(norms, 1e-12), dtype=np.float32)
