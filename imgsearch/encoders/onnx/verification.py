"""Detection of damaged model files.

A damaged file (a failing disk, a power cut) may still load, and then return wrong vectors. Each
model is therefore stored with the vector of one generated image, which is compared before an
ingest.

Only a proven difference counts as damage. A check that fails for another reason (too little
memory, too many open files) proves nothing: a lost int8 model cannot be made again, and no images
could be added to its collection.
"""

import hashlib
from pathlib import Path

import numpy as np

from imgsearch.encoders.base import Encoder, Vectors
from imgsearch.encoders.comparison import least_cosine, representative
from imgsearch.errors import EncoderError, UnreadableModelError, first_line
from imgsearch.images import Pixels

VECTOR = "vector.npy"
# As between two kinds of CPU: rounding alone leaves more.
_LEAST_COSINE = 0.999


def record_vector(model: Path, size: int) -> None:
    """Store, next to a model, its vector of a generated image of size x size pixels."""
    from imgsearch.encoders.onnx.sessions import vectors_of

    np.save(model.with_name(VECTOR), vectors_of(model, _generated_image(size), threads=1))


def matches_record(encoder: Encoder, model: Path) -> bool:
    """Return whether a model still makes its recorded vector; True if none was recorded.

    Raises EncoderError if the model cannot be run, and UnreadableModelError if the model's or the
    vector's file has an unreadable format.
    """
    vectors = encoder.encode(_generated_image(encoder.preprocessing.size))
    recorded = _recorded(model)
    if recorded is None:
        return True
    return recorded.shape == vectors.shape and least_cosine(recorded, vectors) >= _LEAST_COSINE


def is_damaged(encoder: Encoder, model: Path, digest: str) -> bool:
    """Return whether a model's file is proven to have changed since it was made.

    `digest` is the first hexadecimal digits of the SHA-256 that the file had, or "" if it was not
    recorded; then an unreadable format or a different vector is the proof. Raises EncoderError if
    the model cannot be used and its file is not the reason.
    """
    try:
        if matches_record(encoder, model):
            return False
    except EncoderError as error:
        if digest and not sha256_of(model).startswith(digest):
            return True
        if not isinstance(error, UnreadableModelError):
            raise
        if not digest:
            return True
        record_vector(
            model, encoder.preprocessing.size
        )  # so it is the vector's file; else this raises
        return False
    if digest and sha256_of(model).startswith(digest):
        raise EncoderError(
            f"{model} is the file that was made, but gives other vectors than before: either "
            f"{model.with_name(VECTOR)} is damaged, or this version of ONNX Runtime computes "
            "different values; nothing was written"
        )
    return True


def sha256_of(model: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal. Raises EncoderError if it cannot be read."""
    try:
        with model.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise EncoderError(f"{model} cannot be read: {error.strerror or error}") from error


def _recorded(model: Path) -> Vectors | None:
    path = model.with_name(VECTOR)
    try:
        return np.asarray(np.load(path, allow_pickle=False), dtype=np.float32)
    except FileNotFoundError:
        return None
    except (ValueError, EOFError) as error:
        raise UnreadableModelError(f"{path} is damaged: {first_line(error)}") from error
    except (OSError, MemoryError) as error:
        raise EncoderError(f"{path} cannot be read: {first_line(error)}") from error


def _generated_image(size: int) -> Pixels:
    return representative(size)[-1:]
