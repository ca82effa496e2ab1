"""An ingest on a GPU, from image files to the store, against the bare forward pass.

    python -m benchmarks.ingest_gpu FOLDER [--device cuda] [--count 20000] [--rounds 3]

ResNet50 with random weights. Alternately: imgsearch into a new embedded store, with the model
already loaded; and PyTorch alone, the same network and dtype on a batch of the same shape that is
already on the device, one device after the other if there are several. FOLDER should have enough
images for ten seconds, because the start and end of a run count. Without a GPU it runs on the CPU,
which shows that it works, and nothing about a GPU's speed.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import bench_home, machine, seeded_resnet50
from imgsearch import config
from imgsearch.encoders.base import Encoder
from imgsearch.encoders.catalog import RESNET50
from imgsearch.encoders.torch.encoder import open_torch_encoder, pick_devices
from imgsearch.encoders.torch.networks import fused, load_model
from imgsearch.encoders.weights_cache import WeightsFile, file_sha256
from imgsearch.ingest import IngestOptions, IngestReport, ingest
from imgsearch.stores import open_store

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_BARE_SECONDS = 5.0


def synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.get_device_module(device).synchronize()


def bare_rate(weights: WeightsFile, device: torch.device, name: str, size: int) -> float:
    """Images per second of the forward pass alone."""
    network = fused(load_model(RESNET50, weights)).to(_DTYPES[name])
    network = network.to(memory_format=torch.channels_last).to(device)
    batch = torch.randn(size, 3, 224, 224).to(_DTYPES[name])
    batch = batch.to(memory_format=torch.channels_last).to(device)
    done = 0
    with torch.inference_mode():
        for _ in range(3):
            network(batch)
        synchronize(device)
        started = time.perf_counter()
        while time.perf_counter() - started < _BARE_SECONDS:
            for _ in range(4):  # queued, so that the device never waits
                network(batch)
            synchronize(device)
            done += 4 * size
        return done / (time.perf_counter() - started)


def by_imgsearch(encoder: Encoder, folder: Path, options: IngestOptions) -> IngestReport:
    with tempfile.TemporaryDirectory() as place, open_store(place) as store:
        return ingest(
            [str(folder)], store, "images", options=options, encoder_opener=lambda *_: encoder
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, help="by default what suits the device")
    parser.add_argument("--workers", type=int, default=config.default_workers())
    options = parser.parse_args()
    devices = pick_devices(options.device)
    with tempfile.TemporaryDirectory() as temporary, bench_home(temporary):
        path = seeded_resnet50(Path(temporary) / "resnet50.pth")
        weights = WeightsFile(path, file_sha256(path), str(path))
        encoder = open_torch_encoder(RESNET50, weights, options.device, print)
        size = options.batch_size or encoder.batch_size
        for _ in range(2 * encoder.concurrency):  # warm-up
            encoder.encode(np.zeros((size, 224, 224, 3), dtype=np.uint8))
        how = IngestOptions(batch_size=size, workers=options.workers, limit=options.count)
        ours, bare = [], []
        for number in range(options.rounds):
            report = by_imgsearch(encoder, options.folder, how)
            ours.append(report.images_per_second)
            name = encoder.compute_type.partition(",")[0]
            bare.append(sum(bare_rate(weights, device, name, size) for device in devices))
            print(f"round {number + 1}: {report.busy}, the limit was {report.limit}", flush=True)
        print(machine())
        print(
            f"{encoder.device} in {encoder.compute_type}, batches of {size}, {report.indexed:,} new"
        )
        print(f"imgsearch: {statistics.median(ours):,.1f} images/s")
        print(f"bare forward: {statistics.median(bare):,.1f} images/s")
        print(f"against the bare forward: {statistics.median(ours) / statistics.median(bare):.2f}")
        if devices[0].type == "cpu":
            print("on the CPU: a test of this script, not a figure for a GPU")


if __name__ == "__main__":
    main()
