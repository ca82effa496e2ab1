"""Single metadata edits in the embedded store, with and without maintenance.

    python -m benchmarks.edits [--records 3000] [--dimension 512] [--edits 10000]

Records are random vectors. Each side runs in its own process and prints, after each tenth of the
edits: milliseconds per edit (median and 99th percentile) and per search, resident memory, files.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.common import machine
from benchmarks.fragments import _STAMP, megabytes, random_vectors
from imgsearch.index import ImageIndex
from imgsearch.stores import open_store
from imgsearch.stores.lance import dataset, maintenance
from imgsearch.types import ImageRecord

_ROWS = 2000


def edit(place: str, records: int, dimension: int, edits: int, tidy: bool) -> None:
    if not tidy:
        maintenance._VERSIONS_BETWEEN_CLEANUPS = sys.maxsize
        dataset._METADATA_CACHE = 1 << 30  # Lance's default
    with open_store(place) as store, ImageIndex("images", store=store) as index:
        collection = store.create("images", replace(_STAMP, dimension=dimension))
        collection.add_fields({"kind": "str"})
        made = [
            ImageRecord(f"file:///{number}", f"{number:064x}", 1, 1, 1, 1, {"kind": "shoe"})
            for number in range(records)
        ]
        for start in range(0, records, _ROWS):
            part = made[start : start + _ROWS]
            collection.upsert(part, random_vectors(len(part), dimension, start))
        collection.optimize()
        chance = random.Random(0)
        query = random_vectors(1, dimension, 1)[0]
        every = max(1, edits // 10)
        seconds: list[float] = []
        for number in range(1, edits + 1):
            started = time.perf_counter()
            index.set_metadata(chance.choice(made).id, {"kind": f"kind {number % 7}"})
            seconds.append(time.perf_counter() - started)
            if number % every == 0:
                started = time.perf_counter()
                index.collection.search(query, 10)
                searched = time.perf_counter() - started
                seconds.sort()
                median, worst = (seconds[int(len(seconds) * share)] for share in (0.5, 0.99))
                files = sum(1 for path in Path(place).rglob("*") if path.is_file())
                print(
                    f"{number:7,} edits: {1000 * median:4.0f} ms ({1000 * worst:4.0f}), "
                    f"search {1000 * searched:4.0f} ms, {megabytes('VmRSS'):5.0f} MB, "
                    f"{files:6,} files",
                    flush=True,
                )
                seconds.clear()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=3000)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--edits", type=int, default=10_000)
    parser.add_argument("--without", type=int, default=1000, help="edits without maintenance")
    options = parser.parse_args()
    print(f"{machine()}; {options.records:,} records of {options.dimension}")
    for tidy, edits in ((False, options.without), (True, options.edits)):
        print("with maintenance" if tidy else "without")
        with tempfile.TemporaryDirectory() as place:
            what = (str(Path(place) / "store"), options.records, options.dimension, edits, tidy)
            code = f"from benchmarks.edits import edit; edit{what!r}"
            subprocess.run([sys.executable, "-c", code], check=True)


if __name__ == "__main__":
    main()
