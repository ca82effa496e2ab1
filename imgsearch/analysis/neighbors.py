"""The nearest neighbors of every image of a collection among all others."""

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imgsearch.analysis.contents import Contents
from imgsearch.events import Counted, Listener, Outcome, Stage, ignore
from imgsearch.stores.base import Vectors
from imgsearch.stores.blocks import merge, selected

# Vectors of a block: with 2048 dimensions 34 MB, and the products of two blocks 67 MB.
_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Neighbors:
    """The `k` contents most similar to each content, best first, without the content itself.

    `numbers` are int32 and `scores`, cosine similarities, float32, both of shape (contents, k).
    Where there are fewer, numbers are -1 and scores -inf.
    """

    numbers: NDArray[np.int32]
    scores: NDArray[np.float32]


def nearest(
    contents: Contents,
    k: int,
    *,
    min_score: float = -1.0,
    listener: Listener = ignore,
    stop: threading.Event | None = None,
) -> Neighbors:
    """Return the neighbors with at least `min_score` of each content.

    Compares all pairs, each once, in blocks, which takes n * n * dimension multiplications for n
    contents. Memory holds two blocks with their products, and 8 bytes per content and neighbor.
    Setting `stop` ends the comparison early: some neighbors are missing then.
    """
    stop = stop or threading.Event()
    count = len(contents)
    found = Neighbors(np.full((count, k), -1, np.int32), np.full((count, k), -np.inf, np.float32))
    least = np.full(count, min_score, np.float32)
    listener(Stage(f"comparing {count:,} images with each other"))
    listener(Counted(count))
    progress = _Progress(count, listener)
    for start in range(0, count, _BLOCK):
        block = contents.vectors(start, start + _BLOCK)
        for other in range(start, count, _BLOCK):
            if stop.is_set():
                return found
            if other == start:
                products = block @ block.T
                np.fill_diagonal(products, -np.inf)
            else:
                products = block @ contents.vectors(other, other + _BLOCK).T
                _keep(found, least, other, products.T, start)
            _keep(found, least, start, products, other)
            progress.add(products.size if other == start else 2 * products.size)
    return found


def _keep(
    found: Neighbors, least: NDArray[np.float32], start: int, products: Vectors, other: int
) -> None:
    """Merge the products of the block at `start` with that at `other` into what was found."""
    part = slice(start, start + len(products))
    scores, numbers = found.scores[part], found.numbers[part]
    k = scores.shape[1]
    at, rows = selected(products, least[part], k)
    merge(scores, numbers, at, products[at, rows], other + rows)
    np.maximum(least[part], scores[:, -1], out=least[part])


class _Progress:
    """Reports as many images as correspond to the share of the pairs compared."""

    def __init__(self, count: int, listener: Listener) -> None:
        self._count, self._listener = count, listener
        self._pairs = self._reported = 0

    def add(self, pairs: int) -> None:
        self._pairs += pairs
        due = self._pairs // self._count
        for _ in range(due - self._reported):
            self._listener(Outcome("", "answered"))
        self._reported = due
