"""Many searches at a time in the embedded store, against the bare matrix product and single ones.

    python -m benchmarks.bulk [--records 44000] [--dimension 2048] [--queries 20000] [--k 10]
        [--work FOLDER] [--images FOLDER]

Prints queries per second of `Collection.search_many`, of numpy's matrix product with the best k of
each block, and of `Collection.search` alone; how many of the results are exact; and, with
`--images`, images per second of `ImageIndex.search_many` and of an ingest of the same images into
the same collection, with efficientnet-lite0.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.common import machine
from benchmarks.million_data import CHUNK, NAME, Data, record
from benchmarks.million_table import peak_megabytes
from imgsearch import ImageIndex
from imgsearch.encoders.base import Vectors
from imgsearch.encoders.factory import open_encoder
from imgsearch.encoders.request import EncoderRequest
from imgsearch.stores import open_store
from imgsearch.stores.base import VectorQuery

_QUERY_BLOCK = 4096
_VECTOR_BLOCK = 4096
_SINGLE = 100
_TURNS = 3


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _all_vectors(data: Data) -> Vectors:
    vectors = [data.vectors(chunk) for chunk in range(-(-data.records // CHUNK))]
    return np.concatenate(vectors)[: data.records]


def _bare(stored: Vectors, queries: Vectors, k: int) -> list[set[int]]:
    """Return the numbers of the best k of each query: numpy's product of blocks, and partitions."""
    found: list[set[int]] = []
    for start in range(0, len(queries), _QUERY_BLOCK):
        block = queries[start : start + _QUERY_BLOCK]
        scores = np.empty((len(block), 0), np.float32)
        numbers = np.empty((len(block), 0), np.int64)
        for first in range(0, len(stored), _VECTOR_BLOCK):
            products = block @ stored[first : first + _VECTOR_BLOCK].T
            best = np.argpartition(products, -k, axis=1)[:, -k:]
            scores = np.concatenate([scores, np.take_along_axis(products, best, 1)], axis=1)
            numbers = np.concatenate([numbers, best + first], axis=1)
            best = np.argpartition(scores, -k, axis=1)[:, -k:]
            scores = np.take_along_axis(scores, best, 1)
            numbers = np.take_along_axis(numbers, best, 1)
        found += map(set, numbers.tolist())
    return found


def _vectors(data: Data, queries: int, k: int) -> None:
    collection = data.collection()
    stored = _all_vectors(data)
    chosen = np.random.default_rng(5).integers(0, data.records, queries)
    wanted = stored[chosen]
    answers: list[set[str]] = []

    def many() -> None:
        for start in range(0, queries, _QUERY_BLOCK):
            block = [VectorQuery(each, k) for each in wanted[start : start + _QUERY_BLOCK]]
            answers.extend(
                {hit.record.id for hit in hits} for hits in collection.search_many(block)
            )

    bare: list[set[int]] = []
    ours, theirs = list[float](), list[float]()
    for _ in range(_TURNS):  # so that both meet the same machine
        answers.clear()
        bare.clear()
        ours.append(_seconds(many))
        theirs.append(_seconds(lambda: bare.extend(_bare(stored, wanted, k))))
    single = _seconds(lambda: [collection.search(each, k) for each in wanted[:_SINGLE]])
    ids = [record(number).id for number in range(data.records)]
    right = sum(
        len(found & {ids[number] for number in numbers})
        for found, numbers in zip(answers, bare, strict=True)
    )
    rate, bare_rate, one = queries / min(ours), queries / min(theirs), _SINGLE / single
    turns = ", ".join(f"{b / a:.2f}" for a, b in zip(ours, theirs, strict=True))
    print(f"search_many             {rate:8,.0f} queries/s   recall {right / queries / k:.4f}")
    print(f"numpy                   {bare_rate:8,.0f} queries/s   ratio  {turns}")
    print(f"search, one by one      {one:8,.1f} queries/s   ratio  {rate / one:.0f}")
    print(
        f"peak memory             {peak_megabytes():8,.0f} MB, {stored.nbytes / 1e6:,.0f} of them "
        "the vectors for numpy",
        flush=True,
    )


def _images(data: Data, folder: Path, count: int, k: int) -> None:
    """Compare a run over new images with an ingest of them, into copies of the same collection."""
    files = sorted(folder.rglob("*.jpg"))[:count]
    encoder = open_encoder(EncoderRequest("efficientnet-lite0", device="cpu"))
    with tempfile.TemporaryDirectory(dir=data.work) as place:
        store = Path(place) / "store"
        with open_store(str(store)) as opened:
            made = opened.create(NAME, encoder.stamp)
            for records, vectors in data.batches():
                made.upsert([replace(each, metadata={}) for each in records], vectors)
            made.optimize()
        copy = Path(place) / "copy"
        shutil.copytree(store, copy)
        with ImageIndex(store=store) as index:
            asked = _seconds(lambda: list(index.search_many(*files, k=k)))
        with ImageIndex(store=copy) as index:
            added = _seconds(lambda: index.add(*files))
    print(f"ImageIndex.search_many  {count / asked:8,.1f} images/s of {count:,}")
    print(f"ingest of the same      {count / added:8,.1f} images/s    ratio  {added / asked:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=44_000)
    parser.add_argument("--dimension", type=int, default=2048)
    parser.add_argument("--queries", type=int, default=20_000)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--images", type=Path, help="a folder of JPEG files")
    parser.add_argument("--count", type=int, default=1000, help="of the images")
    parser.add_argument("--work", type=Path, default=Path("~/.cache/imgsearch-million"))
    options = parser.parse_args()
    work = options.work.expanduser()
    data = Data("hard", options.records, options.dimension, work, Path("sample_data"))
    print(f"{machine()}; {data.records:,} records of {data.dimension}, k = {options.k}")
    _vectors(data, options.queries, options.k)
    if options.images:
        images = Data("hard", options.records, 1280, work, Path("sample_data"))
        _images(images, options.images, options.count, options.k)


if __name__ == "__main__":
    main()
