"""The nearest neighbors of every image of a collection among all others."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from imgsearch import config
from imgsearch.analysis.contents import Contents
from imgsearch.events import Counted, Listener, Outcome, Stage, ignore
from imgsearch.stores.base import Vectors
from imgsearch.stores.blocks import merge, selected

BLOCK = 4096
"""Vectors of a block: with 2048 dimensions 34 MB, and the products of two blocks 67 MB."""
# Neighbors are selected for so many contents at a time by one thread.
_ROWS = 256


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
    listener(Stage(f"comparing {count:,} images with each other"))
    listener(Counted(count))
    progress = Progress(count, count * count, listener)
    with collecting(count, k, min_score) as best:
        for start in range(0, count, BLOCK):
            block = contents.vectors(start, start + BLOCK)
            rows = np.arange(start, start + len(block))
            for other in range(start, count, BLOCK):
                if stop.is_set():
                    return best.found
                vectors = block if other == start else contents.vectors(other, other + BLOCK)
                products = block @ vectors.T
                best.add_pairs(rows, products, np.arange(other, other + len(vectors)))
                progress.add(products.size if other == start else 2 * products.size)
        return best.found


@contextmanager
def collecting(
    count: int, k: int, min_score: float, *, repeated: bool = False
) -> Iterator["Collected"]:
    """Yield what collects the best `k` neighbors of `count` contents, by threads.

    `repeated` says that a pair may be added more than once.
    """
    with ThreadPoolExecutor(config.default_workers(), "imgsearch-select") as pool:
        yield Collected(count, k, min_score, pool, repeated=repeated)


class Collected:
    """The best neighbors so far."""

    def __init__(
        self, count: int, k: int, min_score: float, pool: ThreadPoolExecutor, *, repeated: bool
    ) -> None:
        numbers, scores = (
            np.full((count, k), -1, np.int32),
            np.full((count, k), -np.inf, np.float32),
        )
        self.found = Neighbors(numbers, scores)
        self._least = np.full(count, min_score, np.float32)
        self._pool = pool
        self._repeated = repeated

    def add_pairs(
        self, rows: NDArray[np.signedinteger], products: Vectors, columns: NDArray[np.signedinteger]
    ) -> None:
        """Add the pairs of two blocks of contents, which are the same one or have none in common.

        `products` of shape (rows, columns) are the cosine similarities.
        """
        if rows[0] == columns[0]:
            np.fill_diagonal(products, -np.inf)
        else:
            self._add(columns, products.T, rows)
        self._add(rows, products, columns)

    def _add(
        self, rows: NDArray[np.signedinteger], products: Vectors, columns: NDArray[np.signedinteger]
    ) -> None:
        parts = (slice(at, at + _ROWS) for at in range(0, len(rows), _ROWS))
        merged = partial(self._merge, rows=rows, products=products, columns=columns)
        for _ in self._pool.map(merged, parts):
            pass

    def _merge(
        self,
        part: slice,
        rows: NDArray[np.signedinteger],
        products: Vectors,
        columns: NDArray[np.signedinteger],
    ) -> None:
        """Merge the products of some rows into what was found for them."""
        own, found = rows[part], self.found
        k = found.scores.shape[1]
        at, chosen = selected(products[part], self._least[own], k)
        if not len(at):
            return
        scores, numbers = found.scores[own], found.numbers[own]
        if self._repeated:
            new = (numbers[at] != columns[chosen][:, None]).all(axis=1)
            at, chosen = at[new], chosen[new]
        merge(scores, numbers, at, products[part][at, chosen], columns[chosen])
        found.scores[own], found.numbers[own] = scores, numbers
        self._least[own] = np.maximum(self._least[own], scores[:, -1])


class Progress:
    """Reports as many images as correspond to the share of the pairs compared."""

    def __init__(self, count: int, pairs: int, listener: Listener) -> None:
        self._count, self._all, self._listener = count, max(pairs, 1), listener
        self._pairs = self._reported = 0

    def add(self, pairs: int) -> None:
        self._pairs += pairs
        due = self._pairs * self._count // self._all
        for _ in range(due - self._reported):
            self._listener(Outcome("", "answered"))
        self._reported = due
