"""Vectors stored as float16 against float32: hits, disk, memory, and time of a search.

    python -m benchmarks.float16 IMAGES [--records 50000] [--work FOLDER]

First all photographs of a folder, each of which is a query once: the share of float32's ten best
that float16 finds, comparing all. Then a larger collection of mixtures of their embeddings, with an
index, copied from one number format to the other. The searches of both sides alternate; each side
has its own process to measure its peak memory.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.common import machine
from benchmarks.million_data import FILTERS, NAME, Data, embeddings, record
from benchmarks.million_table import peak_megabytes
from imgsearch.copying import copy
from imgsearch.stores import open_store
from imgsearch.stores.base import Collection, VectorQuery, Vectors
from imgsearch.types import Scored, Stamp, VectorDtype

SIDES: tuple[VectorDtype, VectorDtype] = ("float32", "float16")
_BLOCK = 256


def photographs(images: Path) -> None:
    """Print how many of the ten best of each photograph both sides share."""
    vectors = embeddings(images)
    stamp = Stamp("efficientnet-lite0", "0" * 64, "none", vectors.shape[1])
    answers: dict[str, list[list[Scored]]] = {}
    with tempfile.TemporaryDirectory() as place, open_store(place) as store:
        for side in SIDES:
            collection = store.create(side, stamp, vector_dtype=side)
            collection.upsert([record(each) for each in range(len(vectors))], vectors)
            answers[side] = []
            for start in range(0, len(vectors), _BLOCK):
                block = [VectorQuery(each, 11) for each in vectors[start : start + _BLOCK]]
                # Without the query itself.
                answers[side] += [hits[1:] for hits in collection.search_exact(block)]
    wanted, found = ([{hit.record.id for hit in hits} for hits in answers[side]] for side in SIDES)
    both = sum(len(a & b) for a, b in zip(wanted, found, strict=True))
    first = sum(a[0].record == b[0].record for a, b in zip(*answers.values(), strict=True))
    exact = vectors @ vectors.T
    score = {record(number).id: number for number in range(len(vectors))}
    # Equal or nearly equal scores stand for each other, as for an index.
    lost = 0
    for number, (a, b) in enumerate(zip(wanted, found, strict=True)):
        least = min(exact[number, score[each]] for each in a)
        lost += sum(exact[number, score[each]] < least - 1e-5 for each in b)
    total = 10 * len(vectors)
    print(
        f"{len(vectors):,} photographs: {both / total:.5f} of the ten best are the same, "
        f"{first / len(vectors):.5f} of the first; recall@10 lost beyond 1e-5 of score: "
        f"{lost / total:.5f}"
    )


def _open(data: Data, side: VectorDtype) -> Collection:
    """Open one side; float16 is copied from float32 once."""
    original = data.collection()
    if side == "float32":
        return original
    place = str(data.folder) + "-float16"
    with open_store(str(data.folder)) as source, open_store(place) as target:
        if NAME not in target.names():
            copy(source, target, NAME, NAME, vector_dtype=side)
        return target.open(NAME)


def search_alone(options: str, side: VectorDtype) -> None:
    """Print the peak memory in MB of a process that searches one side."""
    data = _parse(options)
    collection = _open(data, side)
    queries = np.load(_queries_file(data))
    for query in queries:
        collection.search(query, 10)
        collection.search(query, 10, FILTERS["10 %"])
    for query in queries[:3]:
        collection.search(query, 10, exact=True)
    print(peak_megabytes())


def _parse(options: str) -> Data:
    values = json.loads(options)
    return Data(**{**values, "work": Path(values["work"]), "images": Path(values["images"])})


def _queries_file(data: Data) -> Path:
    return data.folder / "queries.npy"


def _recall(full: Collection, query: Vectors, hits: list[Scored], exact: list[float]) -> float:
    """Return the share of the exact answers that was found, by the scores of float32."""
    vectors = full.vectors_by_id([hit.record.id for hit in hits])
    return sum(each @ query >= exact[-1] - 1e-6 for each in vectors.values()) / len(exact)


def indexed(data: Data) -> None:
    """Print the ratios of float16 to float32 in a collection with an index."""
    exact = data.exact()
    sides = {side: _open(data, side) for side in SIDES}
    sizes = {side: sides[side].info().bytes or 0 for side in SIDES}
    _print("disk", {side: size / 1e6 for side, size in sizes.items()}, "MB")
    queries = data.queries
    np.save(_queries_file(data), queries)
    options = json.dumps(
        {
            "kind": data.kind,
            "records": data.records,
            "dimension": data.dimension,
            "work": str(data.work),
            "images": str(data.images),
        }
    )
    memory = {}
    for side in SIDES:
        command = [sys.executable, "-m", "benchmarks.float16", "--alone", options, side]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
        memory[side] = float(done.stdout.splitlines()[-1])
    _print("peak memory of a process that searches", memory, "MB")
    for name, where in FILTERS.items():
        recalls = {
            side: statistics.mean(
                _recall(sides["float32"], query, sides[side].search(query, 10, where), scores)
                for query, scores in zip(queries, exact[name], strict=True)
            )
            for side in SIDES
        }
        seconds: dict[str, list[float]] = {side: [] for side in SIDES}
        for query in queries:
            for side in SIDES:
                started = time.perf_counter()
                sides[side].search(query, 10, where)
                seconds[side].append(time.perf_counter() - started)
        medians = {side: 1000 * statistics.median(each) for side, each in seconds.items()}
        note = ", ".join(f"recall {recalls[side]:.4f}" for side in SIDES)
        _print(f"search p50, filter {name}", medians, f"ms ({note})")
    seconds = {side: [] for side in SIDES}
    for query in queries[:5]:
        for side in SIDES:
            started = time.perf_counter()
            sides[side].search(query, 10, exact=True)
            seconds[side].append(time.perf_counter() - started)
    medians = {side: 1000 * statistics.median(each) for side, each in seconds.items()}
    _print("exact search p50", medians, "ms")


def _print(what: str, values: dict[str, float] | dict[VectorDtype, float], unit: str) -> None:
    full, half = values["float32"], values["float16"]
    print(f"{what}: float32 {full:.4g}, float16 {half:.4g} {unit}; ratio {half / full:.3f}")


def main() -> None:
    if sys.argv[1:2] == ["--alone"]:
        search_alone(sys.argv[2], "float16" if sys.argv[3] == "float16" else "float32")
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("--records", type=int, default=50_000)
    parser.add_argument("--work", type=Path, default=Path("~/.cache/imgsearch-million"))
    options = parser.parse_args()
    print(machine())
    images = options.images.resolve()
    photographs(images)
    dimension = embeddings(images).shape[1]
    data = Data("near-real", options.records, dimension, options.work.expanduser(), images)
    print(f"{data.records:,} records of {data.dimension}, {data.kind}")
    indexed(data)


if __name__ == "__main__":
    main()
