"""All pairs of a large collection: how long `duplicates` takes without files, and what it misses.

    python -m benchmarks.pairs [--records 100000] [--dimension 1280] [--kind hard]
        [--images FOLDER] [--way exact|partitions|both] [--work FOLDER]

A twentieth of the records are near-duplicates of others, with a cosine similarity of 0.85 to 0.99.
Vectors are read from a store in a temporary folder; fingerprints, which otherwise come from files,
are made up, so that the verification takes the time that it takes, and finds each planted pair.
With `both`, the recall is the share of the exact candidates that the partitions find too.
"""

import argparse
import itertools
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np

from benchmarks.common import machine
from benchmarks.million_data import CHUNK, KINDS, NAME, record
from benchmarks.million_table import peak_megabytes
from imgsearch.analysis import neighbors, partitions
from imgsearch.analysis.contents import read_contents
from imgsearch.analysis.neighbors import Neighbors
from imgsearch.duplicates import DuplicateOptions, find, find_duplicates
from imgsearch.duplicates.fingerprints import Fingerprint
from imgsearch.encoders.base import Vectors, normalized
from imgsearch.stores import open_store
from imgsearch.stores.base import Collection
from imgsearch.types import ImageRecord, Stamp

_LEAST = 0.85
_EVERY = 20
_BANDS = (0.85, 0.9, 0.95, 1.01)


def planted(vectors: Vectors, chunk: int) -> Vectors:
    """Let each 20th vector be near the one before it."""
    random = np.random.default_rng((7, chunk))
    at = np.arange(1, len(vectors), _EVERY)
    noise = normalized(random.standard_normal((len(at), vectors.shape[1]), dtype=np.float32))
    noise -= (noise * vectors[at - 1]).sum(axis=1, keepdims=True) * vectors[at - 1]
    cosine = random.uniform(_LEAST, 0.99, (len(at), 1)).astype(np.float32)
    changed = vectors.copy()
    changed[at] = cosine * vectors[at - 1] + np.sqrt(1 - cosine**2) * normalized(noise)
    return normalized(changed)


def fingerprint(record: ImageRecord, _: int) -> Fingerprint:
    """Return a fingerprint that a planted pair shares."""
    number = int(record.sha256, 16)
    number -= number % CHUNK % _EVERY == 1
    return np.random.default_rng(number).integers(0, 256, 4224, dtype=np.uint8)


def make(store: str, options: argparse.Namespace) -> Collection:
    made = open_store(store).create(NAME, Stamp("synthetic", "0" * 64, "none", options.dimension))
    for chunk, start in enumerate(range(0, options.records, CHUNK)):
        count = min(CHUNK, options.records - start)
        vectors = KINDS[options.kind](chunk, count, options.dimension, options.images)
        made.upsert([record(each) for each in range(start, start + count)], planted(vectors, chunk))
    return made


def compare(collection: Collection) -> None:
    """Print the time of both ways, and the recall of the partitions by score."""
    with read_contents(collection) as contents:
        started = time.perf_counter()
        likely = partitions.likely_nearest(contents, find.NEIGHBORS, min_score=_LEAST)
        between = time.perf_counter()
        exact = neighbors.nearest(contents, find.NEIGHBORS, min_score=_LEAST)
        ended = time.perf_counter()
    print(f"candidates by partitions {between - started:8.1f} s")
    print(f"candidates, all pairs    {ended - between:8.1f} s")
    wanted, found = pairs(exact), pairs(likely)
    for low, high in itertools.pairwise(_BANDS):
        those = [pair for pair, score in wanted.items() if low <= score < high]
        recall = sum(pair in found for pair in those) / max(len(those), 1)
        print(
            f"recall, {low:.2f} to {min(high, 1):.2f}     {recall:8.4f}   of {len(those):,} pairs"
        )


def pairs(found: Neighbors) -> dict[tuple[int, int], float]:
    """Return pairs of contents with their scores."""
    row, place = np.nonzero(found.numbers >= 0)
    numbers = zip(row.tolist(), found.numbers[row, place].tolist(), strict=True)
    scores = found.scores[row, place].tolist()
    return {(min(pair), max(pair)): score for pair, score in zip(numbers, scores, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=1280)
    parser.add_argument("--kind", choices=list(KINDS), default="hard")
    parser.add_argument("--images", type=Path, default=Path("sample_data"))
    parser.add_argument("--way", choices=("exact", "partitions", "both"), default="exact")
    parser.add_argument("--work", type=Path, help="a folder with room for two times the vectors")
    options = parser.parse_args()
    print(f"{machine()}; {options.records:,} records of {options.dimension}, {options.kind}")
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        store = str(Path(folder) / "store")
        collection = make(store, options)
        before = peak_megabytes()
        if options.way == "both":
            compare(collection)
            return
        limit = options.records if options.way == "exact" else 0
        started = time.perf_counter()
        with (
            patch.object(find, "fingerprint_of", fingerprint),
            patch.object(find, "EXACT_CONTENTS", limit),
        ):
            chosen = DuplicateOptions(min_score=_LEAST)
            groups = sum(1 for _ in find_duplicates(collection, chosen, places=[Path(folder)]))
        seconds = time.perf_counter() - started
    print(f"{options.way}: {groups:,} groups in {seconds:,.1f} s")
    print(f"peak memory {peak_megabytes():,.0f} MB; {before:,.0f} MB after the store was made")


if __name__ == "__main__":
    main()
