"""Whether the embedded store, one Weaviate node and a cluster return the same hits for photos.

    python -m benchmarks.weaviate_photos FOLDER [--queries 100]

The folder is ingested once into the embedded store by efficientnet-lite0; the collection is then
copied into a server and a cluster of three with replication 3, and each answers the same queries.
"""

import argparse
import contextlib
import tempfile
import time
from collections.abc import Sequence

import numpy as np

from imgsearch.copying import copy
from imgsearch.encoders.request import EncoderRequest
from imgsearch.ingest import ingest
from imgsearch.stores import open_store
from imgsearch.stores.base import Collection, Vectors
from imgsearch.types import Scored
from tools import weaviate as servers

NAME = "bench-photos"
K = 10


def queries(collection: Collection, count: int) -> list[Vectors]:
    """Return vectors of images spread over the collection."""
    ids = sorted(record.id for batch in collection.scan() for record in batch)
    chosen = ids[:: max(1, len(ids) // count)][:count]
    found = collection.vectors_by_id(chosen)
    return [found[each] for each in chosen]


def answers(collection: Collection, vectors: Sequence[Vectors]) -> list[list[Scored]]:
    return [collection.search(vector, K) for vector in vectors]


def compare(name: str, expected: list[list[Scored]], found: list[list[Scored]]) -> None:
    same = sum(
        [hit.record.uri for hit in one] == [hit.record.uri for hit in other]
        for one, other in zip(expected, found, strict=True)
    )
    pairs = zip(expected, found, strict=True)
    differences = [
        abs(a.score - b.score) for one, other in pairs for a, b in zip(one, other, strict=True)
    ]
    print(
        f"{name}: {same} of {len(expected)} queries with the same {K} hits in the same order, "
        f"scores differ by at most {np.max(differences):.1e}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--queries", type=int, default=100)
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        embedded = stack.enter_context(open_store(folder))
        started = time.perf_counter()
        report = ingest([given.folder], embedded, NAME, EncoderRequest("efficientnet-lite0"))
        print(
            f"embedded: {report.indexed:,} indexed, {report.reused:,} reused, verified "
            f"{report.verified}, {time.perf_counter() - started:.1f} s",
            flush=True,
        )
        collection = embedded.open(NAME)
        vectors = queries(collection, given.queries)
        expected = answers(collection, vectors)
        for name, nodes, option in (("one node", 1, ""), ("three nodes", 3, "&replication=3")):
            with servers.running(nodes=nodes) as cluster, open_store(cluster.url + option) as store:
                copied = copy(embedded, store, NAME, NAME)
                print(
                    f"{name}: {copied.copied:,} copied in {copied.seconds:.1f} s, verified "
                    f"{copied.verified}",
                    flush=True,
                )
                compare(name, expected, answers(store.open(NAME), vectors))


if __name__ == "__main__":
    main()
