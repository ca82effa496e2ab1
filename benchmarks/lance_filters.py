"""Filters as SQL text against pyarrow expressions: equal counts and rows, and the time of both.

python -m benchmarks.lance_filters --records 44000
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace

from benchmarks.common import machine
from benchmarks.fragments import _STAMP, random_vectors
from imgsearch.stores.lance import filters
from imgsearch.stores.lance.arrow import lance, pc
from imgsearch.stores.lance.store import LanceStore
from imgsearch.types import Condition, ImageRecord

_ROWS = 2000
_DIMENSION = 64


def _fill(place: str, records: int) -> str:
    with LanceStore(place) as store:
        collection = store.create("images", replace(_STAMP, dimension=_DIMENSION))
        collection.add_fields({"year": "int", "kind": "str"})
        for start in range(0, records, _ROWS):
            part = [
                ImageRecord(
                    f"file:///{number}",
                    f"{number:064x}",
                    *(1, 1, 1, 1),
                    {"year": number % 50, "kind": f"it's {number % 7}"},
                )
                for number in range(start, min(records, start + _ROWS))
            ]
            collection.upsert(part, random_vectors(len(part), _DIMENSION, start))
        collection.optimize()
        return collection.folder.url


def _median_ms(call: Callable[[], object], times: int) -> float:
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=44_000)
    parser.add_argument("--times", type=int, default=21)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        dataset = lance.dataset(_fill(place, options.records))
        ids = dataset.scanner(columns=["id"], limit=1000).to_table()["id"].to_pylist()
        columns = {"year": "meta_year", "kind": "meta_kind"}
        kind, year = pc.field("meta_kind"), pc.field("meta_year")
        cases = {
            "1,000 ids": (filters.is_one_of("id", ids), pc.field("id").isin(ids)),
            "kind =": (
                filters.meets_all([Condition("kind", "=", "it's 3")], columns),
                kind == "it's 3",
            ),
            "kind !=, year <": (
                filters.meets_all(
                    [Condition("kind", "!=", "it's 3"), Condition("year", "<", 5)], columns
                ),
                (kind.is_null() | (kind != "it's 3")) & (year < 5),
            ),
            "URI prefix": (
                filters.starts_with_any("uri", ["file:///12"]),
                pc.starts_with(pc.field("uri"), "file:///12"),
            ),
        }
        print(f"{machine()}; {options.records:,} records")
        for name, (sql, expression) in cases.items():

            def read(condition: object) -> int:
                return len(dataset.scanner(columns=["id"], filter=condition).to_table())

            try:
                counts = read(sql), read(expression)
            except Exception as error:
                print(f"{name}: {str(error)[:200]}")
                continue
            assert counts[0] == counts[1], counts
            sql_ms, arrow_ms = (
                _median_ms(lambda each=each: read(each), options.times)  # type: ignore[misc]
                for each in (sql, expression)
            )
            print(
                f"{name}: SQL {sql_ms:.1f} ms, expression {arrow_ms:.1f} ms "
                f"(expression/SQL {arrow_ms / sql_ms:.2f}); {counts[0]:,} rows"
            )


if __name__ == "__main__":
    main()
