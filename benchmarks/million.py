"""A collection of a million records: what each operation takes, against a goal.

    python -m benchmarks.million [ROW ...] [--records 1000000] [--data hard] [--work FOLDER]

Each row runs in a process of its own, to measure its peak memory. The collections are made once,
and kept in the working folder: 1,000,000 records of 1280 dimensions take 6 GB and some minutes.
`--list` names the rows. Goals are for a million records on two cores.
"""

import argparse
import importlib
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.million_data import KINDS, Data
from benchmarks.million_table import ROWS, Line, peak_megabytes

MODULES = (
    "benchmarks.million_search",
    "benchmarks.million_ingest",
    "benchmarks.million_service",
    "benchmarks.million_weaviate",
)
"""What registers rows."""


def load_rows() -> None:
    for module in MODULES:
        importlib.import_module(module)


def measure(name: str, data: Data) -> tuple[list[Line], float]:
    """Measure a row in a new process; return its lines and its peak memory in MB."""
    options = json.dumps({**asdict(data), "work": str(data.work), "images": str(data.images)})
    command = [sys.executable, "-m", "benchmarks.million", "--measure", name, options]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False, text=True)
    if done.returncode:
        return [Line(f"{name}: failed", float("nan"), float("nan"))], float("nan")
    answer = json.loads(done.stdout.splitlines()[-1])
    return [Line(**each) for each in answer["lines"]], answer["megabytes"]


def _measure_here(name: str, options: str) -> None:
    values = json.loads(options)
    data = Data(**{**values, "work": Path(values["work"]), "images": Path(values["images"])})
    lines = [asdict(each) for each in ROWS[name](data)]
    megabytes = peak_megabytes()
    print(json.dumps({"lines": lines, "megabytes": megabytes}))


def main() -> None:
    load_rows()
    if sys.argv[1:2] == ["--measure"]:
        _measure_here(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--list", action="store_true", help="name the rows")
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=1280)
    parser.add_argument("--data", choices=KINDS, default="hard")
    parser.add_argument("--images", type=Path, default=Path("sample_data"), help="for near-real")
    parser.add_argument("--work", type=Path, default=Path("~/.cache/imgsearch-million"))
    options = parser.parse_args()
    if unknown := set(options.rows) - set(ROWS):
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    if options.list:
        print("\n".join(ROWS))
        return
    data = Data(
        options.data,
        options.records,
        options.dimension,
        options.work.expanduser(),
        options.images.resolve(),
    )
    from benchmarks.common import machine  # here, as it loads PyTorch

    print(f"{machine()}; {data.records:,} records of {data.dimension}, {data.kind}")
    for name in options.rows or ROWS:
        lines, megabytes = measure(name, data)
        for each in lines:
            before = f"{each.before:.3g}" if each.before is not None else "-"
            print(
                f"{each.what:52} before {before:>7}  goal {each.goal:>6.3g}"
                f"  reached {each.reached:>7.3g} {each.unit:3}  {each.note}"
            )
        print(f"{'':52} {name}: {megabytes:,.0f} MB", flush=True)


if __name__ == "__main__":
    main()
