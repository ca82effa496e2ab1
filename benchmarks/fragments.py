"""The embedded store in its fragments and in one: exact searches, and memory to merge.

    python -m benchmarks.fragments [--records 44032] [--dimension 2048]

Records are random vectors, written 512 at a time, as by a fast ingest. Each form has its own
processes.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.common import machine
from imgsearch.encoders.base import Vectors, normalized
from imgsearch.stores import open_store
from imgsearch.stores.lance import maintenance, vector_index
from imgsearch.stores.lance.collection import LanceCollection
from imgsearch.types import Condition, ImageRecord, Stamp

_WRITTEN_AT_ONCE = 512
_QUERIES = 9
_STAMP = Stamp("random", "none", "none", 2048)


def random_vectors(count: int, dimension: int, seed: int) -> Vectors:
    return normalized(
        np.random.default_rng(seed).standard_normal((count, dimension), dtype=np.float32)
    )


def make(place: str, records: int, dimension: int) -> None:
    """Create a collection; half of its records have `even` set."""
    with open_store(place) as store:
        collection = store.create("images", replace(_STAMP, dimension=dimension))
        collection.add_fields({"even": "bool"})
        for start in range(0, records, _WRITTEN_AT_ONCE):
            numbers = range(start, min(start + _WRITTEN_AT_ONCE, records))
            written = [
                ImageRecord(f"file:///{number}", f"{number:064x}", 1, 1, 1, 1, {"even": not n % 2})
                for n, number in enumerate(numbers)
            ]
            collection.upsert(written, random_vectors(len(numbers), dimension, start))


def merge_and_search(place: str, one: bool) -> None:
    """Print the megabytes that `optimize` takes, the number of fragments, and ms per search."""
    if one:
        maintenance._ROWS_PER_FRAGMENT = maintenance._ROWS_PER_LARGE_FRAGMENT_AT_REST
        maintenance._SMALL_FRAGMENTS = 8
    vector_index.MIN_ROWS = sys.maxsize  # no index: searches compare all vectors
    with open_store(place) as store:
        collection = store.open("images")
        before = megabytes("VmRSS")
        collection.optimize()
        took = megabytes("VmHWM") - before
        assert isinstance(collection, LanceCollection)
        fragments = len(collection._dataset.handle.get_fragments())
        seconds = []
        where = [Condition("even", "=", True)]
        for query in random_vectors(_QUERIES, collection.stamp.dimension, 1):
            started = time.perf_counter()
            collection.search(query, 10, where)
            seconds.append(time.perf_counter() - started)
    print(json.dumps((took, fragments, 1000 * float(np.median(seconds[1:])))))


def megabytes(name: str) -> float:
    """Return a memory figure of this process from Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith(name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=44_032)
    parser.add_argument("--dimension", type=int, default=2048)
    options = parser.parse_args()
    print(f"{machine()}; {options.records:,} records of {options.dimension}")
    for one in (True, False):
        with tempfile.TemporaryDirectory() as place:
            made = str(Path(place) / "store")
            make(made, options.records, options.dimension)
            code = "from benchmarks.fragments import merge_and_search as run"
            code += f"; run({made!r}, {one})"
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
            shutil.rmtree(made)
        took, fragments, ms = json.loads(done.stdout)
        print(f"{fragments} fragments: {took:.0f} MB to merge, {ms:.0f} ms a filtered search")


if __name__ == "__main__":
    main()
