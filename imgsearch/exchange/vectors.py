"""Vectors of other programs: read them from .npy files, check and L2-normalize them."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgsearch.errors import MetadataError, SourceError, UsageError
from imgsearch.stores.base import Vectors

# Lengths that rounding explains: float16 gives 1e-3.
_UNIT = 2e-3
_ROUNDING = 1e-5
_ZERO = 1e-30


def unreadable(file: str | os.PathLike[str], error: Exception) -> SourceError:
    """Return the error to raise for a file that cannot be read."""
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    return SourceError(f"{os.fspath(file)}: cannot be read: {reason}")


def load_vectors(file: str | os.PathLike[str]) -> NDArray[Any]:
    """Return the array of a .npy file of floats, which stays on the disk.

    Raises SourceError if it cannot be read, MetadataError if it holds something else.
    """
    try:
        array = np.load(Path(file), mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise unreadable(file, error) from error
    except (ValueError, EOFError) as error:
        raise MetadataError(f"{file}: is not a .npy file of numbers, or is cut off") from error
    if not isinstance(array, np.ndarray) or not np.issubdtype(array.dtype, np.floating):
        kind = getattr(array, "dtype", "several arrays")
        raise MetadataError(f"{file}: holds {kind}, and vectors are floats")
    return array


def as_float32(values: NDArray[Any]) -> Vectors:
    """Return values as float32; those that it cannot hold become infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(values, dtype=np.float32)


def normalize(vectors: Vectors) -> tuple[Vectors, dict[int, str], NDArray[np.bool_]]:
    """Return vectors of shape (n, dimension), L2-normalized.

    Also returns the reason for each that cannot be, by its place, and which ones were not of
    length 1, to the precision of float16, before.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    unusable = {
        int(place): "its vector has values that are not finite numbers"
        for place in np.flatnonzero(~np.isfinite(norms))
    }
    unusable |= {int(place): "its vector is zero" for place in np.flatnonzero(norms < _ZERO)}
    norms[list(unusable)] = 1
    changed = np.abs(norms - 1) > _UNIT
    # Those of float32 that are normalized stay as they are, to the last bit.
    norms[np.abs(norms - 1) < _ROUNDING] = 1
    return (vectors / norms[:, np.newaxis]).astype(np.float32), unusable, changed


def read_query(file: str | os.PathLike[str], dimension: int) -> Vectors:
    """Return the vectors to search for in a .npy file, of shape (n, dimension), L2-normalized.

    A file of one vector may have the shape (dimension,). Raises SourceError, MetadataError, or
    UsageError for another shape and for a vector without a direction.
    """
    array = load_vectors(file)
    if array.shape[-1:] != (dimension,) or array.ndim > 2 or array.size == 0:
        raise UsageError(
            f"{file}: the array has the shape {array.shape}, and the vectors of the collection "
            f"have {dimension} dimensions: it must be ({dimension},) or (n, {dimension})"
        )
    vectors, unusable, _ = normalize(as_float32(array.reshape(-1, dimension)))
    for place, reason in unusable.items():
        raise UsageError(f"{file}: row {place} cannot be searched for: {reason}")
    return vectors
