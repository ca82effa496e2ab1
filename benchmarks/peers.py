"""imgsearch against rclip, fastdup and imagededup's CNN, on the same images and the CPU.

    python -m benchmarks.peers FOLDER [--count 300] [--rounds 2] [--only rclip fastdup ...]

Each tool is installed from the package index into its own virtual environment in --cache, and used
as its documentation says, with the number of threads or workers that suits it best. The models
differ, and most tools would download their weights: here rclip, imagededup and every ResNet50 get
random weights of the same architecture, which are as fast as the real ones but say nothing about
quality. fastdup and imgsearch include their own models.

The time is that of a process from start to end, the best of some rounds, with everything that a
user waits for: fastdup also finds duplicates, rclip also answers a query, imgsearch also verifies.
Then each tool indexes the same folder once more, and a small one with awkward files.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image

from benchmarks.common import bench_home, machine, seeded_resnet50
from benchmarks.ingest_cpu import copy_images, run
from imgsearch import config
from imgsearch.encoders.factory import open_encoder
from imgsearch.encoders.request import EncoderRequest
from imgsearch.stores import open_store

Named = Mapping[str, NDArray[np.float32]]

_INSTALLED = {
    "rclip": ("rclip",),
    "clip": ("open_clip_torch", "onnx"),  # required by rclip's conversion script
    "fastdup": ("fastdup",),
    "imagededup": ("imagededup",),
}

# As in rclip's scripts/convert_model.py: the same architecture, export and opset.
_RCLIP_MODEL = """
import sys, torch, open_clip
torch.manual_seed(0)
class Visual(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.visual = open_clip.create_model("ViT-B-32-256", pretrained=None).visual.eval()
    def forward(self, x):
        return self.visual(x)
torch.onnx.export(
    Visual().eval(), (torch.randn(1, 3, 256, 256),), sys.argv[1], input_names=["input"],
    output_names=["output"], dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
    opset_version=18, dynamo=False)
"""
_FASTDUP = """
import os, sys, numpy, fastdup
folder, place, model = sys.argv[1:]
own = dict(model_path=model, d=2048) if model else {}
work = fastdup.create(input_dir=folder, work_dir=place + "/work")
work.run(**own)
names, vectors = work.embeddings(d=2048 if model else 576)
numpy.savez(place + "/vectors.npz", **{os.path.basename(n): v for n, v in zip(names, vectors)})
print(work.invalid_instances().to_string())
"""
_IMAGEDEDUP = """
import sys, numpy, torch, torchvision
from imagededup.methods import CNN
from imagededup.utils import CustomModel
folder, place, weights, workers = sys.argv[1:]
config = None
if weights:
    model = torchvision.models.resnet50()
    model.load_state_dict(torch.load(weights))
    model.fc = torch.nn.Identity()
    transform = torchvision.models.ResNet50_Weights.IMAGENET1K_V2.transforms()
    config = CustomModel(name="resnet50", model=model.eval(), transform=transform)
cnn = CNN(verbose=False, model_config=config)
vectors = cnn.encode_images(image_dir=folder, num_enc_workers=int(workers))
numpy.savez(place + "/vectors.npz", **vectors)
"""


class NotRunError(Exception):
    """The reason why a tool could not be run."""


@dataclass(frozen=True)
class Side:
    """A tool with a model. `command` takes the folder of images and an empty working folder."""

    name: str
    model: str
    command: Callable[[Path, Path], Sequence[str]]
    vectors: Callable[[Path], Named]
    prepare: Callable[[Path], None] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    def index(self, folder: Path, place: Path) -> tuple[float, float, str]:
        """Return seconds, peak megabytes of the largest process, and all output."""
        environment = os.environ | {"HOME": str(place), **self.environment}
        command = self.command(folder, place)
        return run(command, env=environment, cwd=folder, stderr=subprocess.STDOUT)


class Peers:
    """The environments and models of the tools, created once in `cache`."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        cache.mkdir(parents=True, exist_ok=True)
        self.resnet50 = cache / "resnet50.pth"
        if not self.resnet50.exists():
            seeded_resnet50(self.resnet50)

    def python(self, name: str) -> str:
        folder = self._cache / name
        python = str(folder / "bin" / "python")
        if not (folder / ".ready").exists():
            _checked([sys.executable, "-m", "venv", "--without-pip", str(folder)])
            packages = ["install", "--quiet", "--python", python, *_INSTALLED[name]]
            _checked([sys.executable, "-m", "uv", "pip", *packages])
            (folder / ".ready").touch()
        return python

    def version(self, name: str) -> str:
        script = f"import importlib.metadata as m; print(m.version('{name}'))"
        return _checked([self.python(name), "-c", script]).strip()

    def rclip_model(self) -> Path:
        path = self._cache / "visual.onnx"
        return self._made(path, [self.python("clip"), "-c", _RCLIP_MODEL])

    def resnet50_onnx(self) -> Path:
        path = self._cache / "resnet50.onnx"
        if not path.exists():
            model = torchvision.models.resnet50()
            model.load_state_dict(torch.load(self.resnet50))
            model.fc = torch.nn.Identity()
            names = {"input_names": ["input"], "output_names": ["output"]}
            example = (torch.randn(1, 3, 224, 224),)
            torch.onnx.export(model.eval(), example, str(path), dynamo=False, **names)
        return path

    def torch_home(self) -> Path:
        """Return a TORCH_HOME with weights for MobileNetV3 under the name of the download."""
        home = self._cache / "torch"
        (home / "hub" / "checkpoints").mkdir(parents=True, exist_ok=True)
        url = torchvision.models.MobileNet_V3_Small_Weights.IMAGENET1K_V1.url
        script = """
            import sys, torch, torchvision
            torch.manual_seed(0)
            torch.save(torchvision.models.mobilenet_v3_small().state_dict(), sys.argv[1])
        """
        path = home / "hub" / "checkpoints" / url.rpartition("/")[2]
        self._made(path, [self.python("imagededup"), "-c", textwrap.dedent(script)])
        return home

    def _made(self, path: Path, command: Sequence[str]) -> Path:
        """Return a file that `command` writes to its last argument, renamed when complete."""
        if not path.exists():
            part = path.with_suffix(".part")
            _checked([*command, str(part)])
            part.rename(path)
        return path


def _checked(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise NotRunError(f"{' '.join(command[:4])} ...: {lines[-1]}")
    return done.stdout


def imgsearch(model: str, weights: Path | None = None) -> Side:
    given = ["--weights", str(weights)] if weights else []
    request = EncoderRequest(model, str(weights) if weights else None, "cpu")
    open_encoder(request)  # exported beforehand, as are the other tools' models

    def command(folder: Path, place: Path) -> list[str]:
        words = ["ingest", str(folder), "--store", str(place / "store"), "--device", "cpu"]
        return [sys.executable, "-m", "imgsearch", *words, "--model", model, *given]

    def vectors(place: Path) -> Named:
        with open_store(str(place / "store")) as store:
            collection = store.open("images")
            records = [record for batch in collection.scan() for record in batch]
            found = collection.vectors_by_id([record.id for record in records])
            return {Path(record.path).name: found[record.id] for record in records}

    return Side(
        "imgsearch", f"{model}, {'seeded' if weights else 'its own'} weights", command, vectors
    )


def rclip(peers: Peers) -> Side:
    program = Path(peers.python("rclip")).with_name("rclip")
    model = peers.rclip_model()

    def prepare(place: Path) -> None:
        models, tokenizer = place / "ViT-B-32-256-datacomp_s34b_b86k", place / "tokenizer"
        models.mkdir()
        tokenizer.mkdir()
        (models / "visual.onnx").symlink_to(model)
        # They must exist, but a query by an image never opens them.
        (models / "textual.onnx").touch()
        (tokenizer / "bpe_simple_vocab_16e6.txt.gz").touch()

    def command(folder: Path, place: Path) -> list[str]:
        some = min(path.name for path in folder.iterdir())
        return ["env", f"RCLIP_DATADIR={place}", str(program), "--top", "3", f"./{some}"]

    def vectors(place: Path) -> Named:
        import sqlite3

        rows = sqlite3.connect(place / "db.sqlite3").execute("SELECT filepath, vector FROM images")
        return {Path(path).name: np.frombuffer(vector, np.float32) for path, vector in rows}

    name = f"rclip {peers.version('rclip')}"
    return Side(name, "CLIP ViT-B/32 at 256 px, seeded weights", command, vectors, prepare)


def _saved_vectors(place: Path) -> Named:
    with np.load(place / "vectors.npz") as saved:
        return dict(saved)


def fastdup(peers: Peers, model: str, path: Path | None = None) -> Side:
    python = peers.python("fastdup")

    def command(folder: Path, place: Path) -> list[str]:
        return [python, "-c", _FASTDUP, str(folder), str(place), str(path or "")]

    name = f"fastdup {peers.version('fastdup')}"
    quiet = {"SENTRY_OPT_OUT": "1"}
    return Side(name, model, command, _saved_vectors, environment=quiet)


def imagededup(peers: Peers, model: str, workers: int, weights: Path | None = None) -> Side:
    python = peers.python("imagededup")

    def command(folder: Path, place: Path) -> list[str]:
        words = [str(folder), str(place), str(weights or ""), str(workers)]
        return [python, "-c", _IMAGEDEDUP, *words]

    name = f"imagededup {peers.version('imagededup')}"
    home = {"TORCH_HOME": str(peers.torch_home()), "CUDA_VISIBLE_DEVICES": ""}
    what = f"{model}, {workers} workers"
    return Side(name, what, command, _saved_vectors, environment=home)


def sides(peers: Peers) -> dict[str, list[Callable[[], Side]]]:
    """Return the tools with their models, by the value of --only."""
    seeded = peers.resnet50
    cores = config.cpu_cores()
    resnet50, small = "ResNet50, seeded weights", "MobileNetV3-small, seeded weights"
    return {
        "imgsearch": [
            lambda: imgsearch("efficientnet-lite0"),
            lambda: imgsearch("resnet50", seeded),
        ],
        "rclip": [lambda: rclip(peers)],
        "fastdup": [
            lambda: fastdup(peers, "its own model"),
            lambda: fastdup(peers, resnet50, peers.resnet50_onnx()),
        ],
        "imagededup": [
            lambda: imagededup(peers, small, 0),
            lambda: imagededup(peers, small, cores),
            lambda: imagededup(peers, resnet50, 0, seeded),
            lambda: imagededup(peers, resnet50, cores, seeded),
        ],
    }


def awkward(some: Path, folder: Path) -> None:
    """Write an upright image, rotated ones with and without an EXIF tag, two damaged files."""
    folder.mkdir()
    with Image.open(some) as opened:
        upright = opened.convert("RGB")
    upright.save(folder / "upright.jpg", quality=95)
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    turned.save(folder / "turned.jpg", quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(folder / "tagged.jpg", quality=95, exif=exif)
    (folder / "text.jpg").write_text("not an image")
    whole = (folder / "upright.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])


def behavior(side: Side, folder: Path, place: Path) -> dict[str, str]:
    """Return what a tool does with the awkward files."""
    _, _, output = _fresh(side, folder, place)
    found = {name: vector / np.linalg.norm(vector) for name, vector in side.vectors(place).items()}
    tagged = found["tagged.jpg"]
    applied = tagged @ found["upright.jpg"] > tagged @ found["turned.jpg"]
    result = {"EXIF orientation": "applied" if applied else "ignored"}
    for name, what in (("text.jpg", "not an image"), ("cut.jpg", "cut in half")):
        outcome = "indexed" if name in found else "rejected"
        result[what] = f"{outcome}, {'named' if name in output else 'not reported'}"
    return result


def _fresh(side: Side, folder: Path, place: Path) -> tuple[float, float, str]:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    if side.prepare:
        side.prepare(place)
    return side.index(folder, place)


def measure(side: Side, folder: Path, odd: Path, place: Path, rounds: int) -> dict[str, Any]:
    runs = [_fresh(side, folder, place)[:2] for _ in range(rounds)]
    count = len(list(folder.iterdir()))
    indexed = len(side.vectors(place))
    assert indexed == count, f"{side.name} has {indexed} of {count}"
    again = side.index(folder, place)[0]
    seconds = min(seconds for seconds, _ in runs)  # other work on the machine only slows it down
    return {
        "tool": side.name,
        "model": side.model,
        "seconds": round(seconds, 1),
        "images/s": round(count / seconds, 1),
        "peak MB": round(max(megabytes for _, megabytes in runs)),
        "again, s": round(again, 1),
        **behavior(side, odd, place),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--only", nargs="+", choices=["imgsearch", "rclip", "fastdup", "imagededup"]
    )
    parser.add_argument("--setup", action="store_true", help="only install tools and models")
    cache = Path.home() / ".cache" / "imgsearch-peers"
    parser.add_argument("--cache", type=Path, default=cache, help="folder for the tools")
    options = parser.parse_args()
    peers = Peers(options.cache.absolute())
    with tempfile.TemporaryDirectory() as temporary, bench_home(options.cache.absolute()):
        place = Path(temporary)
        files = copy_images(options.folder, options.count, place / "images")
        awkward(files[0], place / "awkward")
        print(machine(), f"{len(files):,} images", sep="; ", flush=True)
        for name, makers in sides(peers).items():
            for make in makers if not options.only or name in options.only else ():
                try:
                    side = make()
                    if not options.setup:
                        arguments = (place / "images", place / "awkward", place / "own")
                        result = measure(side, *arguments, options.rounds)
                        print(json.dumps(result), flush=True)
                except NotRunError as error:
                    print(f"{name}: not run: {error}", flush=True)


if __name__ == "__main__":
    main()
