"""Search with the vectors of a .npy file."""

import os
import threading
from collections.abc import Callable, Iterator

from imgsearch.bulk.result import QueryResult
from imgsearch.exchange.vectors import read_query
from imgsearch.search import SearchRequest, search_vectors
from imgsearch.stores.base import Collection

_BLOCK = 1024


def search_file(
    collection: Collection,
    file: str,
    request: SearchRequest,
    skip: Callable[[str], bool],
    stop: threading.Event,
) -> Iterator[QueryResult]:
    """Yield a result for each vector of a file, called `FILE[0]`, `FILE[1]`, and so on.

    The conditions of `request` are parsed, and it has nothing else to search for but a text. Raises
    the errors of `read_query`.
    """
    vectors = read_query(os.path.expanduser(file), collection.stamp.dimension)
    rows = [row for row in range(len(vectors)) if not skip(f"{file}[{row}]")]
    for start in range(0, len(rows), _BLOCK):
        if stop.is_set():
            return
        block = rows[start : start + _BLOCK]
        found = search_vectors(collection, vectors[block], [request] * len(block))
        for row, hits in zip(block, found, strict=True):
            yield QueryResult(f"{file}[{row}]", hits=tuple(hits))
