"""Exact search of many queries at a time: each block of vectors is multiplied by all of them."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from imgsearch import config
from imgsearch.stores.base import Vectors

# More candidates than results: whether equal scores are among the results, their URIs decide.
_SLACK = 16
# Scores are computed for so many pairs of a query and a vector at a time, which fit into the cache
# of a core: 0.5 MB at 2048 dimensions.
_PAIRS = 64
# Candidates are selected for so many queries at a time by one thread.
_QUERIES = 256


@dataclass(frozen=True, slots=True)
class Block:
    """Some vectors, float32 of shape (n, dimension), and the number of each, int64 (n,)."""

    vectors: Vectors
    numbers: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Candidates:
    """The vectors with the highest cosine similarities to each query, descending.

    `scores` is float64 and `numbers` int64, both of shape (queries, k + some more); where there
    are fewer vectors, scores are -inf. `incomplete` (queries,) is true where further vectors have
    a score that is equal to that of the k-th, as far as rounding lets one know.
    """

    scores: NDArray[np.float64]
    numbers: NDArray[np.int64]
    incomplete: NDArray[np.bool_]


def candidates(blocks: Iterable[Block], queries: Vectors, k: int) -> Candidates:
    """Return the vectors of all blocks that are among the k most similar to each query.

    `queries` is of shape (n, dimension), L2-normalized like the vectors. Reads the blocks once;
    memory holds one of them, and its products with all queries.
    """
    width = k + _SLACK
    scores = np.full((len(queries), width), -np.inf)
    numbers = np.full((len(queries), width), -1, np.int64)
    # A matrix product rounds a vector differently depending on its place. It only selects
    # candidates, with the largest possible rounding error as tolerance.
    tolerance = 2 * queries.shape[1] * float(np.finfo(np.float32).eps)
    parts = [slice(at, at + _QUERIES) for at in range(0, len(queries), _QUERIES)]

    def select(part: slice, block: Block, products: Vectors) -> None:
        best = scores[part]
        at, rows = selected(products[part], best[:, k - 1] - tolerance, width)
        hopeful = _among_best(best[:, :k], at, products[part][at, rows], tolerance)
        at, rows = at[hopeful], rows[hopeful]
        found = _scores(queries[part], block.vectors, at, rows)
        merge(best, numbers[part], at, found, block.numbers[rows])

    with ThreadPoolExecutor(config.default_workers(), "imgsearch-select") as pool:
        for block in blocks:
            # The product uses all cores by itself.
            products = queries @ block.vectors.T
            for _ in pool.map(partial(select, block=block, products=products), parts):
                pass
    incomplete = (scores[:, -1] > -np.inf) & (scores[:, -1] >= scores[:, k - 1] - tolerance)
    return Candidates(scores, numbers, incomplete)


def selected(
    products: Vectors, least: NDArray[np.floating], width: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the pairs of a query and a vector that may be among the `width` best of the query."""
    near = products >= least[:, None].astype(np.float32)
    crowded = np.flatnonzero(np.count_nonzero(near, axis=1) > width)
    if len(crowded):
        # All further ones are below the last of these.
        kept = np.argpartition(products[crowded], -width, axis=1)[:, -width:]
        chosen = np.zeros((len(crowded), products.shape[1]), np.bool_)
        np.put_along_axis(chosen, kept, True, axis=1)
        near[crowded] &= chosen
    # In a third of the time of `nonzero` with two dimensions.
    at, rows = np.divmod(np.flatnonzero(near), near.shape[1])
    return at, rows


def _among_best(
    scores: NDArray[np.float64], at: NDArray[np.intp], found: Vectors, tolerance: float
) -> NDArray[np.bool_]:
    """Return which new candidates, sorted by query `at`, may be among the k best of the query.

    `scores` are the k best so far. The exact scores of the others, which take most of the time
    after the products, need not be computed.
    """
    _, padded, row, column = _side_by_side(scores, at)
    padded[row, column] = found
    k = scores.shape[1]
    least = np.partition(padded, -k, axis=1)[:, -k] - tolerance
    return np.asarray(found >= least[row])


def _side_by_side(
    scores: NDArray[np.floating], at: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.intp], NDArray[np.intp]]:
    """Return the queries of new candidates, sorted by query `at`, and a row of scores for each.

    A row has the query's scores so far, then room for the new ones, now -inf; the places of these
    follow, as rows and columns.
    """
    changed, first, counts = np.unique(at, return_index=True, return_counts=True)
    width = scores.shape[1]
    padded = np.full((len(changed), width + int(counts.max(initial=0))), -np.inf)
    padded[:, :width] = scores[changed]
    row = np.repeat(np.arange(len(changed)), counts)
    column = width + np.arange(len(at)) - np.repeat(first, counts)
    return changed, padded, row, column


def _scores(
    queries: Vectors, vectors: Vectors, at: NDArray[np.intp], rows: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Return the cosine similarities of pairs as `comparing.cosine_scores` does."""
    scores = np.empty(len(at))
    for start in range(0, len(at), _PAIRS):
        part = slice(start, start + _PAIRS)
        products = queries.take(at[part], axis=0)
        products *= vectors.take(rows[part], axis=0)
        scores[part] = products.sum(axis=1, dtype=np.float64)
    return np.clip(scores, -1.0, 1.0)


def merge(
    scores: NDArray[np.floating],
    numbers: NDArray[np.signedinteger],
    at: NDArray[np.intp],
    found: NDArray[np.floating],
    found_numbers: NDArray[np.signedinteger],
) -> None:
    """Merge new candidates, sorted by query `at`, into the best of each query, in place."""
    changed, new_scores, row, column = _side_by_side(scores, at)
    if not len(changed):
        return
    width = scores.shape[1]
    new_numbers = np.full(new_scores.shape, -1, np.int64)
    new_numbers[:, :width] = numbers[changed]
    new_scores[row, column], new_numbers[row, column] = found, found_numbers
    order = np.argsort(-new_scores, axis=1, kind="stable")[:, :width]
    scores[changed] = np.take_along_axis(new_scores, order, axis=1)
    numbers[changed] = np.take_along_axis(new_numbers, order, axis=1)
