"""Places in two dimensions by t-SNE. The only module that imports openTSNE.

openTSNE, and not UMAP or PaCMAP: it takes neighbors that are known already, brings no compiler
(Numba's and LLVM's 190 MB), and keeps more of the neighbors together.
"""

import math
import threading
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from imgsearch.errors import MissingLibraryError, Remedy
from imgsearch.events import Counted, Listener, Outcome, Stage, ignore

Places = NDArray[np.float32]

_EARLY_STEPS = 250
_STEPS = 500
_REPORTED = 10
_FEW = 8
# Fewer contents repel each other too little to withstand an exaggerated attraction.
_MANY = 100
# Threads that wait for each other after each step take longer for fewer.
_PARALLEL = 5000


def check_installed() -> None:
    """Raise MissingLibraryError if openTSNE is not installed. It is not imported."""
    if find_spec("openTSNE") is None:
        raise MissingLibraryError(
            "a map needs openTSNE, which is not installed", Remedy.INSTALL_MAP
        )


def require() -> None:
    """Raise MissingLibraryError if openTSNE cannot be imported, which takes seconds."""
    try:
        import openTSNE  # noqa: F401
    except ImportError as error:
        raise MissingLibraryError(
            f"a map needs openTSNE, which cannot be imported ({error})", Remedy.INSTALL_MAP
        ) from error


def lay_out(
    numbers: NDArray[np.int32],
    scores: NDArray[np.float32],
    start: Places,
    listener: Listener = ignore,
    stop: threading.Event | None = None,
) -> Places:
    """Return a place for each content: float32 of shape (contents, 2), centered at (0, 0).

    `numbers` and `scores` are the nearest neighbors of each content and their cosine similarities,
    both of shape (contents, k); where there are fewer, numbers are -1. `start` of shape (contents,
    2) are first places, such as principal components, which decide where groups lie among each
    other (Kobak and Berens, 2019). The result is the same for the same input. Setting `stop` ends
    early, with places that mean nothing.
    """
    count, k = numbers.shape
    if count < _FEW:
        angles = 2 * math.pi * np.arange(count) / max(count, 1)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    from openTSNE import TSNEEmbedding
    from openTSNE.affinity import Uniform
    from openTSNE.nearest_neighbors import PrecomputedNeighbors

    # Among few contents, where each is a neighbor of most others, nothing would hold groups apart.
    k = max(2, min(k, count // 4))
    numbers, scores = _filled(numbers[:, :k], scores[:, :k])
    distances = np.sqrt(np.maximum(0, 2 - 2 * scores))
    known = PrecomputedNeighbors(numbers, distances)
    affinities = Uniform(knn_index=known, k_neighbors=k, verbose=False)
    first = (start - start.mean(axis=0)).astype(np.float64)
    first *= (1e-4 if count >= _MANY else 0.1) / (first[:, 0].std() or 1.0)
    # Nothing would separate contents whose vectors are equal.
    first += np.random.default_rng(0).normal(scale=1e-6, size=first.shape)
    embedding = TSNEEmbedding(
        first,
        affinities,
        random_state=0,
        n_jobs=-1 if count >= _PARALLEL else 1,
        negative_gradient_method="fft" if count >= 10_000 else "bh",
    )
    listener(Stage(f"placing {count:,} images"))
    listener(Counted(count))
    reported = 0

    def report(step: int, *_: object) -> bool:
        """Report as many images as correspond to the share of the steps; return whether to end."""
        nonlocal reported
        due = (before + step) * count // (_EARLY_STEPS + _STEPS)
        for _image in range(due - reported):
            listener(Outcome("", "answered"))
        reported = due
        return stop is not None and stop.is_set()

    before = 0
    options = {
        "callbacks": report,
        "callbacks_every_iters": _REPORTED,
        "inplace": True,
        "verbose": False,
    }
    exaggeration = 12 if count >= _MANY else 1
    embedding.optimize(_EARLY_STEPS, exaggeration=exaggeration, momentum=0.5, **options)
    before = _EARLY_STEPS
    if stop and stop.is_set():
        return start
    embedding.optimize(_STEPS, momentum=0.8, **options)
    places: NDArray[np.float64] = np.array(embedding)
    # Contents that are neighbors of each other alone may share a place: a little of the average
    # distance sets them apart.
    spacing = np.ptp(places, axis=0).max() / math.sqrt(count)
    places += np.random.default_rng(1).normal(scale=spacing / 40, size=places.shape)
    centered: Places = (places - places.mean(axis=0)).astype(np.float32)
    return centered


def _filled(
    numbers: NDArray[np.int32], scores: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return neighbors in which the contents that follow take the place of missing ones.

    openTSNE takes as many for each. Only a content in partitions of few others lacks some.
    """
    rows, gaps = np.nonzero(numbers < 0)
    if len(rows):
        numbers, scores = numbers.copy(), scores.copy()
        numbers[rows, gaps] = (rows + gaps + 1) % len(numbers)
        scores[rows, gaps] = 0
    return numbers, scores
