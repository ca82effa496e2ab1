"""An ingest from S3 and from shards against one from a folder, of the same images.

    python -m benchmarks.objects FOLDER [--count 1000] [--latency 50] [--rounds 2] [--shards]

A real S3 server on loopback; `--latency` adds so many milliseconds to each of its answers, by a
proxy. `--shards` adds tar, zip and Parquet files, local and in S3, whose index is made each time.
The model is efficientnet-lite0, prepared beforehand. The sides take turns, the best counts.
Then reading alone, without a model: 64 objects at a time, and one at a time.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import pyarrow as pa
from obstore.store import S3Store
from pyarrow import parquet

from benchmarks.common import bench_home, machine
from imgsearch import config, images, objects
from imgsearch.ingest.limits import OBJECT_READS
from imgsearch.uris import ObjectUrl
from tests.faulty_http import proxy_of
from tests.shards import write_shard
from tools import s3


def ingest(source: str, place: Path) -> float:
    """Return the images per second of an ingest into a new store."""
    store = place / "store"
    shutil.rmtree(store, ignore_errors=True)
    shutil.rmtree(config.home() / "shards", ignore_errors=True)
    command = [sys.executable, "-m", "imgsearch", "ingest", source, "--store", str(store)]
    command += ["--model", "efficientnet-lite0", "--json", "--quiet"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    report = json.loads(done.stdout)
    return float(report["indexed"] / (report["seconds"] - report["preparing"]))


def write_shards(folder: Path, place: Path, bucket: S3Store) -> list[str]:
    """Write the images of a folder as shards, also into a bucket. Returns the shards' names."""
    files = [(path.name, path.read_bytes()) for path in sorted(folder.iterdir())]
    for name in ("images.tar", "images.zip"):
        write_shard(place / name, files)
    column = [{"bytes": content, "path": name} for name, content in files]
    parquet.write_table(pa.table({"image": column}), place / "images.parquet", row_group_size=100)
    names = ["images.tar", "images.zip", "images.parquet"]
    for name in names:
        bucket.put(name, (place / name).read_bytes())
    return names


def read(urls: list[str], threads: int) -> float:
    """Return how many objects a second are read and hashed."""
    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(images.fingerprint, urls):
            pass
    return len(urls) / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--latency", type=float, default=50)
    parser.add_argument("--shards", action="store_true")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as cleanup:
        place = Path(temporary)
        cleanup.enter_context(bench_home(temporary))
        endpoint = cleanup.enter_context(s3.serving())
        slow = cleanup.enter_context(proxy_of(endpoint))
        slow.latency = options.latency / 1000
        os.environ.update(s3.environment(endpoint))
        local = place / "images"
        local.mkdir()
        bucket = S3Store("bench")
        for path in islice(sorted(options.folder.glob("*.jpg")), options.count):
            shutil.copyfile(path, local / path.name)
            bucket.put(f"images/{path.name}", path.read_bytes())
        ingest(str(local), place)  # prepares the model
        sides = {"folder": (str(local), endpoint)}
        sides["S3"] = ("s3://bench/images", endpoint)
        sides[f"S3 + {options.latency:g} ms"] = ("s3://bench/images", slow.url)
        if options.shards:
            for name in write_shards(local, place, bucket):
                sides[name] = (str(place / name), endpoint)
                sides[f"S3 {name}"] = (f"s3://bench/{name}", endpoint)
        rates = dict.fromkeys(sides, 0.0)
        for _ in range(options.rounds):
            for name, (source, url) in sides.items():
                os.environ["AWS_ENDPOINT_URL"] = url
                rates[name] = max(rates[name], ingest(source, place))
        print(machine())
        for name, rate in rates.items():
            print(f"ingest from {name}: {rate:.1f} images/s, {rate / rates['folder']:.2f}")
        listed = ObjectUrl("s3", "bench", "images")
        urls = [str(each.url) for each in objects.list_objects(listed)]
        for name, url in (("S3", endpoint), (f"S3 + {options.latency:g} ms", slow.url)):
            os.environ["AWS_ENDPOINT_URL"] = url
            together, alone = read(urls, OBJECT_READS), read(urls[:100], 1)
            ratio = together / alone
            print(f"reading from {name}: {together:.0f}/s, one by one {alone:.0f}/s, {ratio:.1f}")


if __name__ == "__main__":
    main()
