"""Ingest on a Ray cluster of this machine: its overhead, and how it scales.

    python -m benchmarks.cluster overhead FOLDER [--limit 600] [--model resnet50]
    python -m benchmarks.cluster scaling

`overhead` compares with the ingest of one process on the same images; the cluster has one worker
for each core. `scaling` sleeps instead of encoding, so that many workers fit on few cores, and
measures the rate at which results arrive from the 20th to the 90th hundredth, when all workers run.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from imgsearch.encoders.base import Vectors
from imgsearch.events import Event, Outcome
from imgsearch.images import Pixels
from imgsearch.index import ImageIndex
from imgsearch.ingest import IngestReport
from tests.fakes import ColorEncoder

SECONDS = 0.05
IMAGES_PER_WORKER = 900


class Sleeping(ColorEncoder):
    def encode(self, pixels: Pixels) -> Vectors:
        time.sleep(SECONDS * len(pixels))
        return super().encode(pixels)


def open_sleeping(*_: object) -> ColorEncoder:
    """Replaces `open_encoder`."""
    return Sleeping()


def overhead(folder: str, limit: int, model: str, weights: str | None, repeat: int) -> None:
    rates: dict[str, list[float]] = {"here": [], "on Ray": []}
    with tempfile.TemporaryDirectory() as place, _index(place, model, weights) as index:
        index.add(folder, limit=1)  # which prepares the model
    for _ in range(repeat):
        for where, on in (("here", None), ("on Ray", "local")):
            with tempfile.TemporaryDirectory() as place:
                report = _ingest(folder, _index(place, model, weights), limit, on)
                rates[where].append(report.images_per_second)
                print(f"{where}: {report.indexed} in {report.seconds:.1f} s, {report.busy}")
    here, there = (max(rates[where]) for where in ("here", "on Ray"))
    print(f"{model}: {here:.1f} images/s here, {there:.1f} on Ray: {there / here:.2f}")


def _index(place: str, model: str, weights: str | None) -> ImageIndex:
    return ImageIndex(model=model, weights=weights, device="cpu", store=place)


def _ingest(folder: str, index: ImageIndex, limit: int, on: str | None) -> IngestReport:
    with index:
        return index.add(folder, limit=limit, on=on, workers=1 if on else None)


def scaling(most: int) -> None:
    import ray

    first = 0.0
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        for number in range(IMAGES_PER_WORKER * most):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(Path(folder, f"{number:05}.png"))
        for workers in (1, 2, 4, 8):
            if workers > most:
                break
            ray.init(
                address="local",
                num_cpus=workers,
                include_dashboard=False,
                log_to_driver=False,
                object_store_memory=100 << 20,
                _node_ip_address="127.0.0.1",
            )
            count = IMAGES_PER_WORKER * workers
            rate = _steady_rate(folder, count)
            ray.shutdown()
            first = first or rate
            print(
                f"{workers} workers: {rate:.1f} images/s, {rate / first / workers:.2f} of linear, "
                f"{rate * SECONDS / workers:.2f} of the sleep",
                flush=True,
            )


def _steady_rate(folder: str, count: int) -> float:
    times: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, Outcome):
            times.append(time.monotonic())

    with (
        tempfile.TemporaryDirectory() as place,
        ImageIndex(store=place, encoder_opener=open_sleeping) as index,
    ):
        index.add(folder, limit=count, on="ray", workers=1, listener=listen)
    # Results arrive by the chunk: the slope of a line through all of them.
    some = slice(int(0.2 * count), int(0.9 * count))
    return float(np.polyfit(times[some], np.arange(count)[some], 1)[0])


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("overhead")
    one.add_argument("folder")
    one.add_argument("--limit", type=int, default=600)
    one.add_argument("--model", default="resnet50")
    one.add_argument("--weights")
    one.add_argument("--repeat", type=int, default=2)
    two = commands.add_parser("scaling")
    two.add_argument("--most", type=int, default=8)
    given = parser.parse_args()
    if given.command == "overhead":
        overhead(given.folder, given.limit, given.model, given.weights, given.repeat)
    else:
        scaling(given.most)


if __name__ == "__main__":
    main()
