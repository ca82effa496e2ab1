"""What a collection of many million records takes, from the slopes between measured sizes.

    python -m benchmarks.scale --embedded 20000 50000 100000 --weaviate 15000 30000 60000
        [--dimension 1280] [--compression rq8 none] [--work FOLDER]

Each size is made and measured in processes of its own, and the measurements are kept in
FOLDER/scale.jsonl: what is in there is not measured again, so that sizes can be added later. The
tables are printed for all that was measured with `--dimension`.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.million_data import Data
from benchmarks.million_table import median_seconds
from benchmarks.million_weaviate import made
from imgsearch.stores import open_store
from tools import weaviate as servers

FLOAT16 = "float16"
"""The embedded store with vectors of 2 bytes a dimension: computed, not measured."""

_TARGETS = (1_000_000, 10_000_000, 100_000_000)
_DIMENSIONS = (1280, 2048)
_GB, _HOUR = 1e9, 3600
# Of a record in memory, besides the vector: the links of a graph, or its place in a partition.
_OTHER_MEMORY = 512
# A server that has started loads its index of vectors in the background.
_SETTLE_S = 15


@dataclass(frozen=True, slots=True)
class Measured:
    """One size of one store. `variant` is "float32", or a compression of Weaviate."""

    store: str
    variant: str
    records: int
    dimension: int
    write_s: float
    index_s: float
    disk_bytes: int
    memory_bytes: int
    search_ms: float

    @property
    def making_s(self) -> float:
        return self.write_s + self.index_s


def bytes_in(folder: Path) -> int:
    """Return the disk space of a folder's files, each counted once."""
    found = {(s := each.lstat()).st_ino: 512 * s.st_blocks for each in folder.rglob("*")}
    return sum(found.values())


def resident_bytes(pid: int | str) -> int:
    """Return the memory of a process without the pages of files, by Linux."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def measure_embedded(data: Data) -> Measured:
    """Measure a collection that is made; memory is that of this process after its searches."""
    before = resident_bytes("self")
    collection = data.collection()
    took = median_seconds(lambda query: collection.search(query, 10), data.queries)
    memory = resident_bytes("self") - before
    seconds = json.loads((data.folder / "made.json").read_text())
    return Measured(
        "embedded",
        "float32",
        data.records,
        data.dimension,
        seconds["write_s"],
        seconds["index_s"],
        bytes_in(data.folder),
        memory,
        1000 * took,
    )


def measure_weaviate(data: Data, compression: str) -> Measured:
    """Measure a server with this collection alone, after it was started again."""
    folder = data.work / f"weaviate-{data.records}x{data.dimension}-{compression}"
    # Connected to while it is empty: what a server takes without records does not count.
    with servers.running(data=folder) as cluster:
        empty = resident_bytes(cluster.nodes[0].pid)
        with open_store(f"{cluster.url}&compression={compression}", 300) as store:
            seconds = made(store, data)[1]
    if seconds is None:
        raise SystemExit(f"{folder} is of an interrupted run: remove it")
    disk = bytes_in(folder)
    with servers.running(data=folder) as cluster, open_store(cluster.url, 300) as store:
        collection = made(store, data)[0]
        took = median_seconds(lambda query: collection.search(query, 10), data.queries)
        time.sleep(_SETTLE_S)
        memory = resident_bytes(cluster.nodes[0].pid) - empty
    return Measured(
        "weaviate",
        compression,
        data.records,
        data.dimension,
        seconds,
        0.0,
        disk,
        memory,
        1000 * took,
    )


def line(measured: Sequence[Measured], value: Callable[[Measured], float]) -> tuple[float, float]:
    """Return slope and intercept of the line through the values by number of records."""
    records = [each.records for each in measured]
    slope, intercept = np.polyfit(records, [value(each) for each in measured], 1)
    return float(slope), float(intercept)


def seconds_per_record(measured: Sequence[Measured]) -> float:
    """Return the least of any size: other work on the machine only adds to times."""
    return min(each.making_s / each.records for each in measured)


def exponent(measured: Sequence[Measured]) -> float:
    """Return e, where the time of a search grows with the e-th power of the records."""
    first, last = measured[0], measured[-1]
    growth = np.log(last.search_ms / first.search_ms) / np.log(last.records / first.records)
    return float(max(0.0, growth))


def search_ms(measured: Sequence[Measured], records: int) -> float:
    """Return the time of a search among more records: in a graph it grows with their logarithm."""
    if measured[0].store == "weaviate":
        fastest = min(measured, key=lambda each: each.search_ms)
        return fastest.search_ms * float(np.log(records) / np.log(fastest.records))
    return measured[-1].search_ms * float((records / measured[-1].records) ** exponent(measured))


def vector_bytes(variant: str, dimension: int) -> tuple[float, float]:
    """Return the bytes of one vector on disk and in memory, the codes of an index included."""
    whole, code = 4.0 * dimension, dimension / 8
    match variant:
        case "float32":
            return whole + code, code
        case "float16":
            return whole / 2 + code, code
        case "rq8":
            return whole + dimension, dimension
        case "rq1":
            return whole + code, code
        case _:
            return whole, whole


def print_measured(measured: Sequence[Measured]) -> None:
    print("| store | records | write, records/s | index, s | disk, GB | memory, MB | search, ms |")
    print("|---|---|---|---|---|---|---|")
    for each in measured:
        index = f"{each.index_s:.0f}" if each.index_s else "(in write)"
        print(
            f"| {each.store}, {each.variant} | {each.records:,} "
            f"| {each.records / each.write_s:,.0f} | {index} "
            f"| {each.disk_bytes / _GB:.3f} | {each.memory_bytes / 1e6:,.0f} "
            f"| {each.search_ms:.1f} |"
        )


def print_slopes(groups: dict[tuple[str, str], list[Measured]]) -> None:
    print("| store | disk, B a record | memory, B a record | ms a record, at least | search |")
    print("|---|---|---|---|---|")
    for (store, variant), group in groups.items():
        disk = line(group, lambda each: each.disk_bytes)[0]
        memory = line(group, lambda each: each.memory_bytes)[0]
        search = "log(records)" if store == "weaviate" else f"records^{exponent(group):.2f}"
        print(
            f"| {store}, {variant} | {disk:,.0f} | {memory:,.0f} "
            f"| {1000 * seconds_per_record(group):.2f} | {search} |"
        )


def print_table(groups: dict[tuple[str, str], list[Measured]]) -> None:
    """Print a table of what each of `_TARGETS` takes: slope times records."""
    sizes = " / ".join(f"{each // 1_000_000} M" for each in _TARGETS)
    print(f"For {sizes} records:\n")
    print("| store | dimensions | disk, GB | memory, GB | hours to write and index | search, ms |")
    print("|---|---|---|---|---|---|")
    for (store, variant), group in groups.items():
        others = [FLOAT16] if variant == "float32" else []
        if variant == "rq8":
            others = [each for each in ("rq1", "none") if ("weaviate", each) not in groups]
        for kind in (variant, *others):
            for dimension in _DIMENSIONS:
                measured = kind == variant and dimension == group[-1].dimension
                note = "" if measured else " *"
                columns = zip(*(_values(group, kind, dimension, n) for n in _TARGETS), strict=True)
                cells = (" / ".join(map(_short, column)) for column in columns)
                print(f"| {store}, {kind}{note} | {dimension:,} | {' | '.join(cells)} |")
    print("\n* for other dimensions or another size of vectors than measured")


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}"


def _values(
    group: Sequence[Measured], kind: str, dimension: int, records: int
) -> tuple[float, float, float, float]:
    """Return disk and memory in GB, hours, and milliseconds of a search."""
    last = group[-1]
    disk = line(group, lambda each: each.disk_bytes)[0]
    memory = max(0.0, line(group, lambda each: each.memory_bytes)[0])
    new_disk, new_memory = vector_bytes(kind, dimension)
    old_disk, old_memory = vector_bytes(last.variant, last.dimension)
    # Memory in proportion: a server's garbage grows with what it holds.
    disk += new_disk - old_disk
    memory *= (new_memory + _OTHER_MEMORY) / (old_memory + _OTHER_MEMORY)
    ratio = dimension / last.dimension
    return (
        records * disk / _GB,
        records * memory / _GB,
        records * seconds_per_record(group) * ratio / _HOUR,
        search_ms(group, records) * ratio,
    )


def in_process(*words: object) -> None:
    command = [sys.executable, "-m", "benchmarks.scale", *map(str, words)]
    subprocess.run(command, check=True)


def read(file: Path) -> list[Measured]:
    lines = file.read_text().splitlines() if file.exists() else []
    return [Measured(**json.loads(each)) for each in lines]


def add(file: Path, measured: Measured) -> None:
    with file.open("a") as kept:
        kept.write(json.dumps(asdict(measured)) + "\n")


def one(step: str, variant: str, records: str, dimension: str, work: str) -> None:
    """Make or measure one size, in this process."""
    data = Data("hard", int(records), int(dimension), Path(work), Path())
    if step == "make":
        data.collection()
    elif step == "embedded":
        add(data.work / "scale.jsonl", measure_embedded(data))
    else:
        add(data.work / "scale.jsonl", measure_weaviate(data, variant))


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        one(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--embedded", type=int, nargs="*", default=[], metavar="RECORDS")
    parser.add_argument("--weaviate", type=int, nargs="*", default=[], metavar="RECORDS")
    parser.add_argument("--dimension", type=int, default=1280)
    parser.add_argument("--compression", nargs="*", default=["rq8"])
    parser.add_argument("--work", type=Path, default=Path("~/.cache/imgsearch-million"))
    given = parser.parse_args()
    work = given.work.expanduser().resolve()
    work.mkdir(parents=True, exist_ok=True)
    kept = work / "scale.jsonl"
    wanted = [("embedded", "float32", each) for each in given.embedded]
    wanted += [("weaviate", kind, each) for kind in given.compression for each in given.weaviate]
    known = {(each.store, each.variant, each.records, each.dimension) for each in read(kept)}
    for store, variant, records in wanted:
        if (store, variant, records, given.dimension) in known:
            continue
        print(f"{time.strftime('%H:%M:%S')} {store}, {variant}, {records:,} ...", file=sys.stderr)
        place = (variant, records, given.dimension, work)
        if store == "embedded":
            in_process("--one", "make", *place)
        in_process("--one", store, *place)
    measured = [each for each in read(kept) if each.dimension == given.dimension]
    measured.sort(key=lambda each: (each.store, each.variant, each.records))
    groups: dict[tuple[str, str], list[Measured]] = {}
    for each in measured:
        groups.setdefault((each.store, each.variant), []).append(each)
    several = {key: group for key, group in groups.items() if len(group) > 1}
    from benchmarks.common import machine  # here, as it loads PyTorch

    print(f"{machine()}, {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / _GB:.0f} GB")
    print(f"Measured, {given.dimension} dimensions:\n")
    print_measured(measured)
    print("\nSlopes:\n")
    print_slopes(several)
    print("\nExtrapolated:\n")
    print_table(several)


if __name__ == "__main__":
    main()
