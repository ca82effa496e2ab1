"""The cost of a new process: a query, --help, and an ingest that finds nothing new.

    python -m benchmarks.cold_start FOLDER [--rounds 7] [--records 44000]

The first image in FOLDER is the query. The store has random vectors, and resnet50 random weights
with a fixed seed: neither changes the cost. Each command and its reference run alternately; the
ratio is that of their medians.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.common import bench_home, machine, seeded_resnet50
from imgsearch.encoders.base import normalized
from imgsearch.encoders.factory import open_encoder
from imgsearch.encoders.request import EncoderRequest
from imgsearch.images import looks_like_an_image
from imgsearch.stores import open_store
from imgsearch.types import ImageRecord, Stamp

_IMGSEARCH = [sys.executable, "-m", "imgsearch"]
_PYTHON = [sys.executable, "-c"]
_BATCH = 4096


def fill(url: str, stamp: Stamp, count: int) -> None:
    """Create a collection of random vectors around a hundred centers, one per articleType."""
    random = np.random.default_rng(0)
    centers = random.standard_normal((100, stamp.dimension)).astype(np.float32)
    with open_store(url) as store, store.write_lock("images"):
        collection = store.create("images", stamp)
        collection.add_fields({"articleType": "str", "year": "int"})
        for start in range(0, count, _BATCH):
            numbers = range(start, min(start + _BATCH, count))
            noise = random.standard_normal((len(numbers), stamp.dimension)).astype(np.float32)
            kinds = [number % 100 for number in numbers]
            collection.upsert(
                [
                    ImageRecord(
                        f"file:///images/{number}.jpg",
                        f"{number:064x}",
                        20_000,
                        number,
                        400,
                        533,
                        {"articleType": f"kind {number % 100}", "year": 2000 + number % 20},
                    )
                    for number in numbers
                ],
                normalized(centers[kinds] + noise),
            )
        collection.optimize()


def seconds(command: Sequence[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def in_turn(rounds: int, ours: Sequence[str], theirs: Sequence[str]) -> tuple[float, float]:
    """Return the medians of both, after one round that brings the files into memory."""
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(rounds + 1)][1:]
    return statistics.median(one for one, _ in pairs), statistics.median(two for _, two in pairs)


def first_image(folder: Path) -> Path:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and looks_like_an_image(path.read_bytes()[:32]):
            return path
    raise SystemExit(f"{folder}: no image")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--records", type=int, default=44_000)
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as place, bench_home(place):
        os.environ["IMGSEARCH_DEVICE"] = "cpu"
        weights = seeded_resnet50(Path(place) / "resnet50.pth")
        stamp = open_encoder(EncoderRequest("resnet50", str(weights))).stamp
        url = str(Path(place) / "store")
        fill(url, stamp, options.records)
        query = [*_IMGSEARCH, "query", str(first_image(options.folder)), "--store", url]
        for name, ours, theirs, against in (
            (f"query, {options.records:,} records", query, "import torch", "import torch"),
            ("--help", [*_IMGSEARCH, "--help"], "pass", "python -c pass"),
        ):
            mine, other = in_turn(options.rounds, ours, [*_PYTHON, theirs])
            print(f"{name}: {mine:.3f} s; {against}: {other:.3f} s; ratio {mine / other:.2f}")
        unchanged = str(Path(place) / "unchanged")
        lite0 = ["--model", "efficientnet-lite0", "--store", unchanged, "--quiet"]
        ingest = [*_IMGSEARCH, "ingest", str(options.folder), *lite0]
        seconds(ingest)
        find = ["find", str(options.folder), "-type", "f", "-printf", "%p %s %T@\\n"]
        mine, other = in_turn(options.rounds, ingest, find)
        print(f"ingest of nothing new: {mine:.3f} s; find: {other:.3f} s")


if __name__ == "__main__":
    main()
