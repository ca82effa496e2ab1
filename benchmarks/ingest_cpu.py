"""An ingest on the CPU, end to end, against a typical script and the bare model.

    python -m benchmarks.ingest_cpu FOLDER [--model resnet50] [--count 1000] [--rounds 3]

The model runs in fp32 and int8 on the first images of FOLDER; resnet50 has random weights.
Alternately: imgsearch into a new store, exported and calibrated beforehand; for resnet50, the
typical script (PyTorch, torchvision's transforms, DataLoader with 0, 1 and as many workers as
cores, of which the best counts); ONNX Runtime alone, on ready tensors; and decoding alone. Also the
peak memory of an ingest with efficientnet-lite0, of a twentieth of the images and of all; if FOLDER
has too few, mirror images are added.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from PIL import Image, ImageOps

from benchmarks.common import bench_home, machine, seeded_resnet50
from imgsearch import config, images
from imgsearch.encoders.factory import open_encoder
from imgsearch.encoders.onnx import model_files
from imgsearch.encoders.onnx.model_files import OnnxFile
from imgsearch.encoders.request import EncoderRequest
from imgsearch.images import Preprocessing, looks_like_an_image
from imgsearch.ingest.sample import ImageSample
from imgsearch.sources import resolve

PRECISIONS = ("fp32", "int8")

_TYPICAL = """
import sys, numpy, torch, torchvision
from PIL import Image
folder, weights, workers = sys.argv[1:]
from pathlib import Path
class Photos(torch.utils.data.Dataset):
    files = sorted(Path(folder).iterdir())
    transform = torchvision.models.ResNet50_Weights.IMAGENET1K_V2.transforms()
    def __len__(self): return len(self.files)
    def __getitem__(self, n): return self.transform(Image.open(self.files[n]).convert("RGB"))
model = torchvision.models.resnet50()
model.load_state_dict(torch.load(weights))
model.fc = torch.nn.Identity()
model.eval()
loader = torch.utils.data.DataLoader(Photos(), batch_size=32, num_workers=int(workers))
with torch.inference_mode():
    vectors = torch.cat([torch.nn.functional.normalize(model(batch)) for batch in loader])
numpy.save(Path(weights).parent / "typical.npy", vectors.numpy())
"""


def copy_images(folder: Path, count: int, to: Path) -> list[Path]:
    """Copy the first images to a new folder."""
    to.mkdir()
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    found = (path for path in files if looks_like_an_image(path.read_bytes()[:32]))
    for path in islice(found, count):
        shutil.copy(path, to / path.name)
    return sorted(to.iterdir())


# Runs between this process and the measured one: on Linux, the peak memory of a process includes
# the time after fork, when it is still a copy of its parent.
_SMALL = """
import os, subprocess, sys, time
started = time.perf_counter()
process = subprocess.Popen(sys.argv[2:])
_, status, usage = os.wait4(process.pid, 0)
with open(sys.argv[1], "w") as file:
    print(time.perf_counter() - started, usage.ru_maxrss / 1024, file=file)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def many_of(folder: Path, count: int, to: Path) -> Path:
    """Create a folder with `count` different images: those of `folder`, then mirror images."""
    files = copy_images(folder, count, to)
    for path in files[: count - len(files)]:
        with Image.open(path) as image:
            ImageOps.mirror(image.convert("RGB")).save(to / f"mirrored-{path.stem}.jpg")
    return to


def run(command: Sequence[str], **options: Any) -> tuple[float, float, str]:
    """Run a process; return its seconds, peak megabytes and output.

    `options` are passed to `subprocess.run`.
    """
    with tempfile.NamedTemporaryFile("r") as figures:
        small = [sys.executable, "-S", "-c", _SMALL, figures.name, *command]
        done = subprocess.run(small, stdout=subprocess.PIPE, text=True, check=False, **options)
        assert done.returncode == 0, (command, done.stdout[-500:])
        seconds, megabytes = map(float, figures.read().split())
    return seconds, megabytes, done.stdout


def by_imgsearch(folder: Path, place: Path, *model: str) -> tuple[float, float, dict[str, Any]]:
    shutil.rmtree(place / "store", ignore_errors=True)
    words = ["ingest", str(folder), "--store", str(place / "store"), "--json", "--quiet", *model]
    seconds, megabytes, out = run([sys.executable, "-m", "imgsearch", *words])
    return seconds, megabytes, json.loads(out)


def bare_decode(files: Sequence[Path], preprocessing: Preprocessing) -> float:
    def decode(path: Path) -> images.Pixels:
        return images.decode(path.read_bytes(), preprocessing).pixels

    started = time.perf_counter()
    with ThreadPoolExecutor(config.cpu_cores()) as pool:
        for _ in pool.map(decode, files):
            pass
    return time.perf_counter() - started


def ready(model: str, weights: str | None, precision: str, files: Sequence[Path]) -> OnnxFile:
    """Export and calibrate the model; return its file."""
    sample = ImageSample(resolve([str(files[0].parent)]))
    encoder = open_encoder(EncoderRequest(model, weights, "cpu", precision, sample))
    exported = model_files.find(encoder.stamp)
    assert exported
    return exported


def bare_model(model: OnnxFile, files: Sequence[Path]) -> float:
    """Return the seconds of plain ONNX Runtime on ready batches of 32."""
    preprocessing = model.spec.preprocessing
    batch = np.stack([images.decode(str(path), preprocessing).pixels for path in files[:32]])
    session = ort.InferenceSession(str(model.path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    session.run(None, {name: batch})
    started = time.perf_counter()
    for start in range(0, len(files), 32):
        session.run(None, {name: batch[: len(files) - start]})
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", choices=("resnet50", "efficientnet-lite0"), default="resnet50")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=int, default=6000, help="images for the peak memory")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, bench_home(temporary):
        place = Path(temporary)
        os.environ["IMGSEARCH_DEVICE"] = "cpu"
        resnet50 = options.model == "resnet50"
        weights = str(seeded_resnet50(place / "resnet50.pth")) if resnet50 else None
        files = copy_images(options.folder, options.count, place / "images")
        model = ("--model", options.model, *(("--weights", weights) if weights else ()))
        exported = {each: ready(options.model, weights, each, files) for each in PRECISIONS}
        counts = sorted({0, 1, config.cpu_cores()}) if weights else []
        times: dict[str, list[float]] = {}
        for number in range(options.rounds):
            for precision in PRECISIONS:
                how = (*model, "--precision", precision)
                seconds, _, report = by_imgsearch(place / "images", place, *how)
                times.setdefault(f"imgsearch, {precision}", []).append(seconds)
                times.setdefault(f"{precision} without its start", []).append(report["seconds"])
                bare = bare_model(exported[precision], files)
                times.setdefault(f"bare model, {precision}", []).append(bare)
                print(f"round {number + 1}, {precision}: {report.get('busy')}", flush=True)
            for workers in counts:
                command = [sys.executable, "-c", _TYPICAL, str(place / "images"), str(weights)]
                usual = run([*command, str(workers)])[0]
                times.setdefault(f"typical script, {workers} workers", []).append(usual)
            if weights:  # later rounds use its best number of workers
                counts = [min(counts, key=lambda each: times[f"typical script, {each} workers"][0])]
            preprocessing = exported["fp32"].spec.preprocessing
            times.setdefault("bare decoding", []).append(bare_decode(files, preprocessing))
        medians = {name: statistics.median(each) for name, each in times.items()}
        print(machine())
        for name, seconds in medians.items():
            print(f"{name}: {seconds:.1f} s, {len(files) / seconds:.1f} images/s")
        for precision in PRECISIONS:
            ours = medians[f"imgsearch, {precision}"]
            inside = medians[f"{precision} without its start"]
            bare = medians[f"bare model, {precision}"]
            for workers in counts:
                usual = medians[f"typical script, {workers} workers"]
                print(f"{precision} against the typical script: {usual / ours:.2f}")
            print(f"{precision} against the bare model: {bare / inside:.2f}")
            bound = bare + medians["bare decoding"]
            print(f"{precision} against bare decoding + bare model: {bound / inside:.2f}")
        if options.memory:
            lite0 = ("--model", "efficientnet-lite0")
            open_encoder(EncoderRequest("efficientnet-lite0"))
            folder = many_of(options.folder, options.memory, place / "many")
            for count in (options.memory // 20, options.memory):
                limit = ("--limit", str(count))
                peak = by_imgsearch(folder, place, *lite0, *limit)[1]
                print(f"peak memory at {count:,} images: {peak:.0f} MB")


if __name__ == "__main__":
    main()
