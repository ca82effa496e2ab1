"""Filters on fields with a scalar index of their own, against none.

    python -m benchmarks.field_indexes [--records 200000] [--dimension 256] [--work FOLDER]

Both sides hold the same records and alternate.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.common import machine
from benchmarks.million_data import FILTERS, Data, record
from imgsearch.stores.lance import scalar_indexes
from imgsearch.stores.lance.collection import LanceCollection
from imgsearch.types import Condition

_TIMES = 15
_NEW = 2048
_BATCH = 32


def drop_indexes(collection: LanceCollection) -> None:
    """Drop the indexes of metadata fields."""
    indexed = collection._maintenance.indexed_rows()
    for column in collection._dataset.columns.by_field.values():
        if column in indexed:
            collection._dataset.writable().drop_index(f"{column}_idx")


def milliseconds(
    sides: Sequence[LanceCollection], call: Callable[[LanceCollection, int], object]
) -> list[float]:
    """Return the median of each side; the first call of each is not counted."""
    seconds: list[list[float]] = [[] for _ in sides]
    for turn in range(_TIMES + 1):
        for side, taken in zip(sides, seconds, strict=True):
            started = time.perf_counter()
            call(side, turn)
            taken.append(time.perf_counter() - started)
    return [1000 * statistics.median(each[1:]) for each in seconds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--work", type=Path, default=Path("~/.cache/imgsearch-million"))
    options = parser.parse_args()
    work = options.work.expanduser()
    data = Data("hard", options.records, options.dimension, work, Path())
    print(f"{machine()}; {data.records:,} records of {data.dimension}, {data.kind}")
    data.collection()
    with tempfile.TemporaryDirectory(dir=work) as place:
        sides = []
        for name in "without", "with":
            collection = data.copy(Path(place) / name)
            assert isinstance(collection, LanceCollection)
            drop_indexes(collection)
            sides.append(collection)
        started = time.perf_counter()
        sides[1].optimize()
        print(f"{time.perf_counter() - started:.2f} s to index the fields")
        sizes = [each.info().bytes or 0 for each in sides]
        print(f"disk {sizes[0] / 1e6:.1f} MB without, {sizes[1] / 1e6:.1f} MB with")
        queries = data.queries
        for name, where in FILTERS.items():
            if not where:
                continue
            _compare(sides, f"count, {name}", lambda side, _, w=where: side.count(w))
            _compare(sides, f"page of 10, {name}", lambda side, _, w=where: side.page(10, "", w))
            _compare(
                sides,
                f"search, {name}",
                lambda side, turn, w=where: side.search(queries[turn % len(queries)], 10, w),
            )
        both = [Condition("one_in_10", "=", True), Condition("number", ">", data.records // 2)]
        _compare(sides, "count, two fields", lambda side, _: side.count(both))
        for side, name, fields in zip(sides, ("without", "with"), (0, 32), strict=True):
            scalar_indexes._MAX_FIELDS = fields
            started = time.perf_counter()
            for start in range(data.records, data.records + _NEW, _BATCH):
                records = [record(start + each) for each in range(_BATCH)]
                side.upsert(records, data.vectors(start, _BATCH))
            written = time.perf_counter()
            side.optimize()
            print(
                f"{name}: {_NEW / (written - started):.0f} new records/s, "
                f"optimize {time.perf_counter() - written:.2f} s"
            )


def _compare(
    sides: Sequence[LanceCollection],
    what: str,
    call: Callable[[LanceCollection, int], object],
) -> None:
    without, indexed = milliseconds(sides, call)
    print(
        f"{what}: without {without:.1f} ms, with {indexed:.1f} ms; ratio {indexed / without:.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
