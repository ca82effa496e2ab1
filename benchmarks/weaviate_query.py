"""Latency and recall of searches on Weaviate: imgsearch's `search` against bare `near_vector`.

    python -m benchmarks.weaviate_query [--count 44000] [--dimension 2048] [--url weaviate://...]

Both search the same collection alternately, with the same filters. Recall is measured against
NumPy, over all vectors that pass the filter. At the end, many searches at a time: imgsearch's
`search_many` against the bare client at each of several numbers of threads.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from benchmarks.vectors import SHARES, clustered, records, stamp
from benchmarks.weaviate_push import OURS, fresh, push_ours, server
from imgsearch.search import SearchRequest, search_vector
from imgsearch.stores.base import VectorQuery, Vectors
from imgsearch.stores.weaviate.client import query
from imgsearch.stores.weaviate.collection import WeaviateCollection
from imgsearch.stores.weaviate.schema import VECTOR
from imgsearch.stores.weaviate.store import WeaviateStore
from imgsearch.types import Condition

K = 10
QUERIES = 200
MANY = 1000
THREADS = (1, 2, 4, 8, 16, 32)


def timed(request: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    answer = request()
    return answer, 1000 * (time.perf_counter() - started)


def bare(collection: WeaviateCollection, vector: Vectors, one_in: int) -> Sequence[Any]:
    condition = query.Filter.by_property(f"one_in_{one_in}").equal(True) if one_in > 1 else None
    return collection._reader.handle.query.near_vector(
        vector.tolist(),
        limit=K,
        target_vector=VECTOR,
        filters=condition,
        return_metadata=query.MetadataQuery(distance=True),
    ).objects


def measure(
    collection: WeaviateCollection, vectors: Vectors, queries: Vectors, one_in: int
) -> tuple[float, float, float, float]:
    """Return p50 in ms of the bare client, `search` and the whole `search_vector`, and recall."""
    where = [Condition(f"one_in_{one_in}", "=", True)] if one_in > 1 else []
    passing = vectors[::one_in]
    times: list[tuple[float, float, float]] = []
    met = 0
    for number, vector in enumerate(queries):
        sides: list[Callable[[], Any]] = [
            partial(bare, collection, vector, one_in),
            partial(collection.search, vector, K, where),
            partial(search_vector, collection, vector, SearchRequest(k=K, where=where)),
        ]
        # The first request meets a colder server: the sides take turns at that, too.
        order = [(number + turn) % 3 for turn in range(3)]
        answers = {side: timed(sides[side]) for side in order}
        found = answers[1][0]
        times.append((answers[0][1], answers[1][1], answers[2][1]))
        best = one_in * np.argsort(-(passing @ vector))[:K]
        met += len({each.record.sha256 for each in found} & {f"{number:064x}" for number in best})
    p50 = np.median(times, axis=0)
    return float(p50[0]), float(p50[1]), float(p50[2]), met / (K * len(queries))


def measure_many(collection: WeaviateCollection, queries: Vectors) -> None:
    """Print queries per second of `search_many`, and of the bare client by number of threads.

    The sides take turns, and the better one of two turns counts: a server gets warmer.
    """

    def ours() -> None:
        collection.search_many([VectorQuery(each, K) for each in queries])

    def theirs(threads: int) -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda each: bare(collection, each, 1), queries))

    sides: dict[str, Callable[[], Any]] = {"search_many": ours}
    sides |= {f"bare, {threads} threads": partial(theirs, threads) for threads in THREADS}
    times = {name: [timed(sides[name])[1]] for name in sides}
    for name in reversed(sides):
        times[name].append(timed(sides[name])[1])
    rates = {name: 1000 * len(queries) / min(each) for name, each in times.items()}
    best = max(rate for name, rate in rates.items() if name != "search_many")
    for name, rate in rates.items():
        print(f"{name:20}{rate:8.0f} queries/s", flush=True)
    print(f"search_many against the best of the bare client: {rates['search_many'] / best:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=44_000)
    parser.add_argument("--dimension", type=int, default=2048)
    parser.add_argument("--many", type=int, default=MANY, help="searches at a time")
    parser.add_argument("--url")
    given = parser.parse_args()
    vectors = clustered(given.count, given.dimension)
    queries = clustered(QUERIES, given.dimension, seed=2)
    with server(given.url) as url, WeaviateStore(url, 300) as store:
        collection = fresh(store, OURS, given.dimension)
        push_ours(collection, records(given.count), vectors)
        collection.optimize()
        print(f"{given.count:,} x {given.dimension}, {stamp(given.dimension).distance}, rq8")
        print(f"{'filter':8}{'bare ms':>9}{'search':>9}{'ratio':>7}{'whole':>10}{'recall@10':>11}")
        measure(collection, vectors, queries[:20], 1)  # warm-up
        for name, one_in in SHARES.items():
            theirs, ours, whole, recall = measure(collection, vectors, queries, one_in)
            print(
                f"{name:8}{theirs:9.2f}{ours:9.2f}{ours / theirs:7.2f}{whole:10.2f}{recall:11.4f}",
                flush=True,
            )
        measure_many(collection, clustered(given.many, given.dimension, seed=3))
        store.drop(OURS)


if __name__ == "__main__":
    main()
