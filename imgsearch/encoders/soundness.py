"""Whether a model's file gives what it gave when it was made.

A damaged file (a disk that fails, a power cut) may well load, and make vectors that are like no
other's. So what a model makes of one picture is kept beside it, and compared before an ingest.
"""

import os
from pathlib import Path

import numpy as np

from imgsearch.encoders.base import Encoder
from imgsearch.encoders.checking import least_cosine, representative
from imgsearch.errors import EncoderError
from imgsearch.images import Pixels

VECTOR = "vector.npy"
# As between two kinds of CPU: rounding alone leaves more.
_LEAST_COSINE = 0.999


def remember(model: Path, size: int) -> None:
    """Keep, beside a model, what it makes of a made picture of this side in pixels."""
    from imgsearch.encoders.onnx_sessions import vectors_of

    np.save(model.with_name(VECTOR), vectors_of(model, _picture(size), threads=1))


def is_sound(encoder: Encoder, model: Path) -> bool:
    """Whether the model in a file can be opened and makes what it made; True if nobody knows."""
    try:
        kept = np.load(model.with_name(VECTOR), allow_pickle=False)
    except FileNotFoundError:
        return True
    except (OSError, ValueError):  # damaged itself
        return False
    try:
        vectors = encoder.encode(_picture(encoder.preprocessing.size))
    except EncoderError:
        return False
    return kept.shape == vectors.shape and least_cosine(kept, vectors) >= _LEAST_COSINE


def settle(folder: Path) -> None:
    """Have a folder's files on the disk, so that no power cut leaves one that is there in part."""
    for path in folder.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())


def _picture(size: int) -> Pixels:
    return representative(size)[-1:]
