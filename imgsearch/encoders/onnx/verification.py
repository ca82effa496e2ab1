"""Whether a model's file gives what it gave when it was made.

A damaged file (a failing disk, a power cut) may still load, and make vectors that resemble no
others. So the vector of one made image is kept with each model, and compared before an ingest.

Only a proven difference counts as damage. A check that fails for another reason (too little
memory, too many open files) proves nothing: an int8 model that is lost cannot be made again, and
its collection would take no more images.
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
    """Keep, beside a model, what it makes of a made picture of this side in pixels."""
    from imgsearch.encoders.onnx.sessions import vectors_of

    np.save(model.with_name(VECTOR), vectors_of(model, _picture(size), threads=1))


def matches_record(encoder: Encoder, model: Path) -> bool:
    """Whether a model makes the vector that was kept with it; True where none was kept.

    Raises EncoderError if the model cannot be run, and UnreadableModelError if its file or that of
    the vector is in no readable format.
    """
    vectors = encoder.encode(_picture(encoder.preprocessing.size))
    kept = _kept(model)
    if kept is None:
        return True
    return kept.shape == vectors.shape and least_cosine(kept, vectors) >= _LEAST_COSINE


def is_damaged(encoder: Encoder, model: Path, digest: str) -> bool:
    """Whether a model is proven to be no longer what was made.

    `digest` is how the SHA-256 of its file began when it was made, in hexadecimal, or "" where
    that was not recorded; then an unreadable format or another vector is the proof. Raises
    EncoderError if the model cannot be used and its file is not the reason.
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
            f"{model} is the file that was made, but gives other vectors than it did then: either "
            f"{model.with_name(VECTOR)} is damaged, or this version of ONNX Runtime computes "
            "something else; nothing was written"
        )
    return True


def sha256_of(model: Path) -> str:
    """The SHA-256 of a file, in hexadecimal. Raises EncoderError if it cannot be read."""
    try:
        with model.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise EncoderError(f"{model} cannot be read: {error.strerror or error}") from error


def _kept(model: Path) -> Vectors | None:
    path = model.with_name(VECTOR)
    try:
        return np.asarray(np.load(path, allow_pickle=False), dtype=np.float32)
    except FileNotFoundError:
        return None
    except (ValueError, EOFError) as error:
        raise UnreadableModelError(f"{path} is damaged: {first_line(error)}") from error
    except (OSError, MemoryError) as error:
        raise EncoderError(f"{path} cannot be read: {first_line(error)}") from error


def _picture(size: int) -> Pixels:
    return representative(size)[-1:]
