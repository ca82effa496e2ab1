"""Most of the nearest neighbors of a large collection, in a fraction of the time of all pairs.

The contents are partitioned by spherical k-means, and each is in the `SPREAD` partitions whose
centers are nearest. Only contents that share a partition are compared. So two similar contents may
be on different sides of a border and still meet, unlike in the cells of an inverted file, of which
a search reads some. The number of partitions is the square root of that of the contents: all
comparisons then take `SPREAD` squared times the square root of n, for each content.

The index of a store serves single queries: a search took 12 to 27 ms, and to compare a vector with
a million others, in blocks and each pair once, 5 ms (1280 dimensions, 2 cores).
"""

import threading
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from imgsearch.analysis.contents import Contents
from imgsearch.analysis.neighbors import BLOCK, Neighbors, Progress, collecting
from imgsearch.events import Counted, Listener, Stage, ignore
from imgsearch.stores.base import Vectors

SPREAD = 4
"""In how many partitions each content is."""

_ROUNDS = 8
_SAMPLE_PER_CENTER = 32
_MOST_PARTITIONS = 2048


def likely_nearest(
    contents: Contents,
    k: int,
    *,
    min_score: float = -1.0,
    listener: Listener = ignore,
    stop: threading.Event | None = None,
) -> Neighbors:
    """Return neighbors as `neighbors.nearest` does, of which some are missing.

    Memory holds two blocks with their products, 8 bytes per content and neighbor, 60 per content,
    and at most 65,536 vectors while partitions are made.
    """
    stop = stop or threading.Event()
    count = len(contents)
    listener(Stage("dividing the images into partitions"))
    centers = _centers(contents, stop)
    order, starts = _partitions(contents, centers, stop)
    sizes = np.diff(starts)
    listener(Stage(f"comparing {count:,} images with each other"))
    listener(Counted(count))
    progress = Progress(count, int((sizes.astype(np.int64) ** 2).sum()), listener)
    with collecting(count, k, min_score, repeated=True) as best:
        for start, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
            for at in range(start, end, BLOCK):
                rows = order[at : min(at + BLOCK, end)]
                block = contents.vectors_of(rows)
                for other in range(at, end, BLOCK):
                    if stop.is_set():
                        return best.found
                    columns = order[other : min(other + BLOCK, end)]
                    vectors = block if other == at else contents.vectors_of(columns)
                    products = block @ vectors.T
                    best.add_pairs(rows, products, columns)
                    progress.add(products.size if other == at else 2 * products.size)
        return best.found


def _centers(contents: Contents, stop: threading.Event) -> Vectors:
    """Return the centers of the partitions, float32 of shape (partitions, dimension)."""
    count = max(1, min(round(len(contents) ** 0.5), _MOST_PARTITIONS))
    random = np.random.default_rng(0)
    size = min(len(contents), count * _SAMPLE_PER_CENTER)
    sample = contents.vectors_of(np.sort(random.choice(len(contents), size, replace=False)))
    centers: Vectors = sample[random.choice(size, count, replace=False)]
    for _ in range(_ROUNDS):
        if stop.is_set():
            break
        nearest = np.concatenate(
            [np.argmax(sample[at : at + BLOCK] @ centers.T, axis=1) for at in range(0, size, BLOCK)]
        )
        for center in range(count):
            members = sample[nearest == center]
            length = np.linalg.norm(total := members.sum(axis=0)) if len(members) else 0.0
            if length > 0:
                centers[center] = total / length
    return centers


def _partitions(
    contents: Contents, centers: Vectors, stop: threading.Event
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the contents of all partitions, one after another, and where each begins and ends.

    Those of a partition are in ascending order, in which their vectors are in the file.
    """
    spread = min(SPREAD, len(centers))
    chosen = np.concatenate(
        [np.empty((0, spread), np.int16), *_nearest_centers(contents, centers, spread, stop)]
    )
    flat = chosen.reshape(-1)
    order = np.argsort(flat, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(flat, minlength=len(centers)))])
    return (order // spread).astype(np.int32), starts


def _nearest_centers(
    contents: Contents, centers: Vectors, spread: int, stop: threading.Event
) -> Iterator[NDArray[np.int16]]:
    for start in range(0, len(contents), BLOCK):
        if stop.is_set():
            return
        products = contents.vectors(start, start + BLOCK) @ centers.T
        yield np.argpartition(products, -spread, axis=1)[:, -spread:].astype(np.int16)
