"""Writing records to Weaviate: imgsearch's `upsert` against the fastest mode of the client.

    python -m benchmarks.weaviate_push [--count 20000] [--dimension 2048] [--url weaviate://...]

Both sides write the same objects to equal classes (RQ-8, the same properties and indexes) of the
same server, alternately. Without --url, tools/weaviate starts a server.
"""

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial

from benchmarks.vectors import FIELDS, clustered, records, stamp
from imgsearch.stores.base import Vectors
from imgsearch.stores.weaviate.collection import WeaviateCollection
from imgsearch.stores.weaviate.schema import VECTOR
from imgsearch.stores.weaviate.store import WeaviateStore
from imgsearch.types import ImageRecord
from tools import weaviate as servers

OURS = "bench"
_WRITE = 512  # records, as ingest writes them


@contextlib.contextmanager
def server(url: str | None) -> Iterator[str]:
    with contextlib.nullcontext() if url else servers.running() as cluster:
        yield url or cluster.url


def fresh(store: WeaviateStore, name: str, dimension: int) -> WeaviateCollection:
    if name in store.names():
        store.drop(name)
    collection = store.create(name, stamp(dimension))
    collection.add_fields(FIELDS)  # type: ignore[arg-type]
    return collection


def push_ours(collection: WeaviateCollection, rows: list[ImageRecord], vectors: Vectors) -> None:
    for start in range(0, len(rows), _WRITE):
        part = slice(start, start + _WRITE)
        assert collection.upsert(rows[part], vectors[part]) == {}


def push_bare(
    collection: WeaviateCollection, rows: list[ImageRecord], vectors: Vectors, mode: str
) -> None:
    client = collection._server.client
    opened = client.batch.stream() if mode == "stream" else client.batch.fixed_size(200, 2)
    with opened as batch:
        for row, vector in zip(rows, vectors, strict=True):
            batch.add_object(
                collection=collection.class_name,
                uuid=row.id,
                properties={
                    "uri": row.uri,
                    "sha256": row.sha256,
                    "size": row.size,
                    "mtime_ns": str(row.mtime_ns),
                    "width": row.width,
                    "height": row.height,
                    **row.metadata,
                },
                vector={VECTOR: vector},
            )
    assert not client.batch.failed_objects


MINE = f"imgsearch, upsert of {_WRITE}"
STREAM, FIXED = "bare client, stream", "bare client, fixed_size(200, 2)"
SIDES: dict[str, Callable[[WeaviateCollection, list[ImageRecord], Vectors], None]] = {
    MINE: push_ours,
    STREAM: partial(push_bare, mode="stream"),
    FIXED: partial(push_bare, mode="fixed"),
}
# A server gets slower as it fills, and other processes may be busy: so each side has an early and a
# late turn, and the better one counts.
ORDER = (STREAM, MINE, FIXED, FIXED, MINE, STREAM)


def rate(collection: WeaviateCollection, count: int, write: Callable[[], None]) -> float:
    started = time.perf_counter()
    write()
    seconds = time.perf_counter() - started
    assert collection.count() == count
    return count / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--dimension", type=int, default=2048)
    parser.add_argument("--url")
    parser.add_argument("--compression", choices=("rq8", "none"), default="rq8")
    given = parser.parse_args()
    rows, vectors = records(given.count), clustered(given.count, given.dimension)
    with server(given.url) as url:
        url += f"{'&' if '?' in url else '?'}compression={given.compression}"
        with WeaviateStore(url, 300) as store:
            rates: dict[str, list[float]] = {}
            for side in ORDER:
                collection = fresh(store, OURS, given.dimension)
                rates.setdefault(side, []).append(
                    rate(
                        collection,
                        given.count,
                        lambda side=side, to=collection: SIDES[side](to, rows, vectors),  # type: ignore[misc]
                    )
                )
                print(f"{side:30}{rates[side][-1]:7,.0f} objects/s", flush=True)
            better = {side: max(each) for side, each in rates.items()}
            best = max(rate for side, rate in better.items() if side != MINE)
            print(f"{MINE}, against the client's fastest mode: {better[MINE] / best:.2f}")
            store.drop(OURS)


if __name__ == "__main__":
    main()
