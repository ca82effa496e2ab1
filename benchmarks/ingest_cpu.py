"""A CPU's ingest, end to end, against what the same CPU could do.

    python -m benchmarks.ingest_cpu FOLDER [--model resnet50] [--count 1000] [--rounds 3]

The model in fp32 and in int8, over the first pictures of FOLDER; resnet50 has seeded weights. In
turn: imgsearch into a new store, exported and calibrated before; the usual script, for resnet50
(torch, torchvision's transforms, DataLoader with 0, 1 and as many workers as cores, its best
counted); ONNX Runtime alone, on tensors that are ready; and the decoding alone. Also the peak
memory of an ingest with efficientnet-lite0, of a twentieth of the pictures and of all, mirrored
where FOLDER has too few.
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

_USUAL = """
import sys, numpy, torch, torchvision
from PIL import Image
folder, weights, workers = sys.argv[1:]
from pathlib import Path
class Pictures(torch.utils.data.Dataset):
    files = sorted(Path(folder).iterdir())
    transform = torchvision.models.ResNet50_Weights.IMAGENET1K_V2.transforms()
    def __len__(self): return len(self.files)
    def __getitem__(self, n): return self.transform(Image.open(self.files[n]).convert("RGB"))
model = torchvision.models.resnet50()
model.load_state_dict(torch.load(weights))
model.fc = torch.nn.Identity()
model.eval()
loader = torch.utils.data.DataLoader(Pictures(), batch_size=32, num_workers=int(workers))
with torch.inference_mode():
    vectors = torch.cat([torch.nn.functional.normalize(model(batch)) for batch in loader])
numpy.save(Path(weights).parent / "usual.npy", vectors.numpy())
"""


def pictures_of(folder: Path, count: int, to: Path) -> list[Path]:
    """Copies of the first pictures, in a folder of their own."""
    to.mkdir()
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    found = (path for path in files if looks_like_an_image(path.read_bytes()[:32]))
    for path in islice(found, count):
        shutil.copy(path, to / path.name)
    return sorted(to.iterdir())


# Between this process and the one that is measured: on Linux the peak memory of a process counts
# from its fork, when it still was a copy of the one that started it.
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
    """A folder of so many different pictures: those of `folder`, then their mirror images."""
    files = pictures_of(folder, count, to)
    for path in files[: count - len(files)]:
        with Image.open(path) as image:
            ImageOps.mirror(image.convert("RGB")).save(to / f"mirrored-{path.stem}.jpg")
    return to


def run(command: Sequence[str], **options: Any) -> tuple[float, float, str]:
    """Seconds and peak megabytes of a process of its own, and its output.

    `options` are those of `subprocess.run`.
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
    """The model as ONNX Runtime runs it, exported and calibrated now."""
    sample = ImageSample(resolve([str(files[0].parent)]))
    encoder = open_encoder(EncoderRequest(model, weights, "cpu", precision, sample))
    exported = model_files.find(encoder.stamp)
    assert exported
    return exported


def bare_model(model: OnnxFile, files: Sequence[Path]) -> float:
    """ONNX Runtime as it comes, on batches of 32 that are ready."""
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
    parser.add_argument("--memory", type=int, default=6000, help="pictures for the peak memory")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, bench_home(temporary):
        place = Path(temporary)
        os.environ["IMGSEARCH_DEVICE"] = "cpu"
        resnet50 = options.model == "resnet50"
        weights = str(seeded_resnet50(place / "resnet50.pth")) if resnet50 else None
        files = pictures_of(options.folder, options.count, place / "pictures")
        model = ("--model", options.model, *(("--weights", weights) if weights else ()))
        exported = {each: ready(options.model, weights, each, files) for each in PRECISIONS}
        counts = sorted({0, 1, config.cpu_cores()}) if weights else []
        times: dict[str, list[float]] = {}
        for number in range(options.rounds):
            for precision in PRECISIONS:
                how = (*model, "--precision", precision)
                seconds, _, report = by_imgsearch(place / "pictures", place, *how)
                times.setdefault(f"imgsearch, {precision}", []).append(seconds)
                times.setdefault(f"{precision} without its start", []).append(report["seconds"])
                bare = bare_model(exported[precision], files)
                times.setdefault(f"bare model, {precision}", []).append(bare)
                print(f"round {number + 1}, {precision}: {report.get('busy')}", flush=True)
            for workers in counts:
                command = [sys.executable, "-c", _USUAL, str(place / "pictures"), str(weights)]
                usual = run([*command, str(workers)])[0]
                times.setdefault(f"usual script, {workers} workers", []).append(usual)
            if weights:  # the later rounds are of its best
                counts = [min(counts, key=lambda each: times[f"usual script, {each} workers"][0])]
            preprocessing = exported["fp32"].spec.preprocessing
            times.setdefault("bare decoding", []).append(bare_decode(files, preprocessing))
        medians = {name: statistics.median(each) for name, each in times.items()}
        print(machine())
        for name, seconds in medians.items():
            print(f"{name}: {seconds:.1f} s, {len(files) / seconds:.1f} pictures a second")
        for precision in PRECISIONS:
            ours = medians[f"imgsearch, {precision}"]
            inside = medians[f"{precision} without its start"]
            bare = medians[f"bare model, {precision}"]
            for workers in counts:
                usual = medians[f"usual script, {workers} workers"]
                print(f"{precision} against the usual script: {usual / ours:.2f}")
            print(f"{precision} against the bare model: {bare / inside:.2f}")
            bound = bare + medians["bare decoding"]
            print(f"{precision} against bare decoding + bare model: {bound / inside:.2f}")
        if options.memory:
            lite0 = ("--model", "efficientnet-lite0")
            open_encoder(EncoderRequest("efficientnet-lite0"))
            pictures = many_of(options.folder, options.memory, place / "many")
            for count in (options.memory // 20, options.memory):
                limit = ("--limit", str(count))
                peak = by_imgsearch(pictures, place, *lite0, *limit)[1]
                print(f"peak memory at {count:,} pictures: {peak:.0f} MB")


if __name__ == "__main__":
    main()
