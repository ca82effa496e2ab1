"""Precision and recall of `imgsearch duplicates` on known duplicates of real photographs.

    python -m benchmarks.duplicates FOLDER [--bases 150] [--negatives 1500] [--peers PYTHON]

Each of `--bases` photographs gets variants of many kinds (`benchmarks/duplicate_set.py`), among
`--negatives` others. The model is efficientnet-lite0. A pair is right if both images come from one
photograph; the pairs of imgsearch are those of a kept image and a member, of other tools all that
they report. Recall is the share of the variants of a kind that are in a right pair. `--peers` is an
interpreter with imagededup, fastdup and ImageHash (`benchmarks/duplicate_peers.py`).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import duplicate_peers
from benchmarks.common import bench_home, machine
from benchmarks.duplicate_set import VARIANTS, make
from imgsearch import ImageIndex

Pair = tuple[str, str]


def imgsearch(*words: str) -> str:
    command = [sys.executable, "-m", "imgsearch", *words]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout


def photograph(path: str) -> str:
    return Path(path).name.partition("__")[0]


def kind(path: str) -> str:
    return Path(path).stem.partition("__")[2]


@dataclass(frozen=True)
class Result:
    """What one tool found: pairs of the paths of images."""

    seconds: float
    pairs: Sequence[Pair]

    @property
    def wrong(self) -> list[Pair]:
        return [pair for pair in self.pairs if photograph(pair[0]) != photograph(pair[1])]

    @property
    def precision(self) -> float:
        return 1 - len(self.wrong) / max(len(self.pairs), 1)

    def recall(self, bases: int) -> dict[str, float]:
        wrong = set(self.wrong)
        found = {path for pair in self.pairs if pair not in wrong for path in pair}
        counts = Counter(map(kind, found))
        return {name: counts[name] / bases for name in VARIANTS}


def ours(store: Sequence[str]) -> Result:
    started = time.perf_counter()
    lines = imgsearch("duplicates", *store, "--json").splitlines()
    seconds = time.perf_counter() - started
    groups = [json.loads(line) for line in lines]
    pairs = [(group["keep"], each["path"]) for group in groups for each in group["members"]]
    return Result(seconds, pairs)


def write_vectors(store: str, file: Path) -> None:
    """Write the vectors of a store by the names of the images."""
    with ImageIndex(store=store) as index:
        records = [record for page in index.collection.scan() for record in page]
        vectors = index.collection.vectors_by_id([record.id for record in records])
    np.savez(file, **{Path(each.path).name: vectors[each.id] for each in records})


def of_peer(python: str, tool: str, folder: Path, vectors: Path) -> Result | None:
    command = [python, duplicate_peers.__file__, tool, str(folder), str(vectors)]
    run = subprocess.run(command, capture_output=True, check=False, text=True)
    if run.returncode:
        print(f"{tool} was not run: {run.stderr.strip().splitlines()[-1]}")
        return None
    found = json.loads(run.stdout.splitlines()[-1])
    return Result(found["seconds"], [(one, other) for one, other in found["pairs"]])


def show(results: dict[str, Result], bases: int) -> None:
    recalls = {name: result.recall(bases) for name, result in results.items()}
    print(" " * 20 + "".join(f"{name:>18}" for name in results))
    print(f"{'pairs':20}" + "".join(f"{len(each.pairs):18,}" for each in results.values()))
    print(f"{'precision':20}" + "".join(f"{each.precision:18.4f}" for each in results.values()))
    print(f"{'seconds':20}" + "".join(f"{each.seconds:18.1f}" for each in results.values()))
    for variant in VARIANTS:
        print(f"{variant:20}" + "".join(f"{recalls[name][variant]:18.3f}" for name in results))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bases", type=int, default=150)
    parser.add_argument("--negatives", type=int, default=1500)
    parser.add_argument("--peers", metavar="PYTHON", help="an interpreter with the other tools")
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as temporary, bench_home(temporary):
        folder, store, vectors = (
            Path(temporary) / each for each in ("set", "store", "vectors.npz")
        )
        make(options.folder, folder, options.bases, options.negatives)
        at = ("--store", str(store))
        imgsearch("ingest", str(folder), *at, "--model", "efficientnet-lite0", "--quiet")
        results = {"imgsearch": ours(at)}
        if options.peers:
            write_vectors(str(store), vectors)
            for tool in duplicate_peers.TOOLS:
                if result := of_peer(options.peers, tool, folder, vectors):
                    results[tool] = result
    show(results, options.bases)
    for pair in results["imgsearch"].wrong[:20]:
        print("wrong:", *(Path(each).name for each in pair))


if __name__ == "__main__":
    main()
