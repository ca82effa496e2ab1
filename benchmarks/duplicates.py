"""Precision and recall of `imgsearch duplicates` on known duplicates of real photographs.

    python -m benchmarks.duplicates FOLDER [--bases 150] [--negatives 1500]

Each of `--bases` photographs gets variants of many kinds (`benchmarks/duplicate_set.py`), among
`--negatives` others. A pair of a kept image and a member is right if both come from one photograph.
Recall is the share of the variants of a kind that are in a group with an image of their
photograph. The model is efficientnet-lite0.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.common import bench_home, machine
from benchmarks.duplicate_set import VARIANTS, make


def imgsearch(*words: str) -> str:
    command = [sys.executable, "-m", "imgsearch", *words]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout


def photograph(path: str) -> str:
    return Path(path).name.partition("__")[0]


def kind(path: str) -> str:
    return Path(path).stem.partition("__")[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bases", type=int, default=150)
    parser.add_argument("--negatives", type=int, default=1500)
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as temporary, bench_home(temporary):
        place = Path(temporary)
        make(options.folder, place / "set", options.bases, options.negatives)
        store = ("--store", str(place / "store"))
        imgsearch("ingest", str(place / "set"), *store, "--model", "efficientnet-lite0", "--quiet")
        started = time.perf_counter()
        lines = imgsearch("duplicates", *store, "--json").splitlines()
        seconds = time.perf_counter() - started
    groups: list[dict[str, Any]] = [json.loads(line) for line in lines]
    groups = [group for group in groups if "keep" in group]
    right, wrong, found = 0, list[tuple[str, str]](), Counter[str]()
    for group in groups:
        keep, members = group["keep"], [each["path"] for each in group["members"]]
        for member in members:
            same = photograph(member) == photograph(keep)
            right += same
            if not same:
                wrong.append((Path(keep).name, Path(member).name))
        together = Counter(map(photograph, [keep, *members]))
        for path in [keep, *members]:
            found[kind(path)] += together[photograph(path)] > 1
    print(f"{len(groups)} groups of {options.bases} photographs with variants, {seconds:.1f} s")
    print(f"precision of pairs: {right / max(right + len(wrong), 1):.4f} ({right + len(wrong)})")
    for name in VARIANTS:
        print(f"recall, {name}: {found[name] / options.bases:.3f}")
    for pair in wrong[:20]:
        print("wrong:", *pair)


if __name__ == "__main__":
    main()
