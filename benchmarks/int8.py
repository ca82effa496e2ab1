"""int8 by imgsearch and by ONNX Runtime's own quantizer, against fp32: speed and result quality.

    python -m benchmarks.int8 FOLDER [--model efficientnet-lite0] [--count 3000]
    python -m benchmarks.int8 FOLDER --model resnet50 --weights seeded

FOLDER has the layout of Kaggle's fashion data: images/<id>.jpg and styles.csv. All sides use the
same images and weights, and the same 64 images for calibration. Rates are of the model alone, on
decoded images: the sides take turns, and the best turn counts. Each image is the query once, and is
left out of its own results. The overlap is the share of fp32's ten nearest images that a side
finds; P@1 and P@10 compare the values of a metadata field. `seeded` weights are random: only their
rates mean anything.
"""

import argparse
import csv
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.common import bench_home, machine, seeded_resnet50
from imgsearch.encoders.base import Encoder, Vectors
from imgsearch.encoders.factory import open_encoder
from imgsearch.encoders.int8.calibration import CALIBRATION_IMAGES, CHECK_IMAGES
from imgsearch.encoders.int8.graph import Graph
from imgsearch.encoders.int8.quantize import layers_to_quantize
from imgsearch.encoders.onnx import model_files
from imgsearch.encoders.onnx.encoder import OnnxEncoder
from imgsearch.encoders.onnx.model_files import OnnxFile
from imgsearch.encoders.onnx.sessions import INPUT
from imgsearch.encoders.request import EncoderRequest
from imgsearch.images import Pixels
from imgsearch.ingest.sample import MAX_FILES, ImageSample
from imgsearch.sources import resolve

K = 10
_BATCH = 32
_TIMED = 256


def encode_all(encoder: Encoder, pixels: Pixels) -> Vectors:
    parts = range(0, len(pixels), _BATCH)
    return np.concatenate([encoder.encode(pixels[start : start + _BATCH]) for start in parts])


def rates(encoders: dict[str, Encoder], pixels: Pixels, turns: int) -> dict[str, float]:
    """Images per second of each encoder."""
    best = dict.fromkeys(encoders, 0.0)
    for _ in range(turns):
        for name, encoder in encoders.items():
            started = time.perf_counter()
            encode_all(encoder, pixels)
            best[name] = max(best[name], len(pixels) / (time.perf_counter() - started))
    return best


def best_ten(queries: Vectors, gallery: Vectors) -> NDArray[np.int64]:
    """Return the ten nearest rows of the gallery for each query, without the query's own row."""
    similarity = queries @ gallery.T
    np.fill_diagonal(similarity, -2)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :K]


def images(folder: Path, field: str, count: int) -> tuple[list[Path], NDArray[np.str_]]:
    """Return `count` random images and their labels."""
    with (folder / "styles.csv").open(encoding="utf-8") as table:
        rows = {row["id"]: row[field] for row in csv.DictReader(table)}
    files = sorted(file for file in (folder / "images").iterdir() if file.stem in rows)
    order = np.random.default_rng(1).permutation(len(files))[:count]
    chosen = [files[i] for i in order]
    return chosen, np.array([rows[file.stem] for file in chosen])


class _Reader:
    """The calibration images, one at a time, as ONNX Runtime's quantizer reads them."""

    def __init__(self, pixels: Pixels) -> None:
        self._batches = iter([{INPUT: pixels[i : i + 1]} for i in range(len(pixels))])

    def get_next(self) -> dict[str, Pixels] | None:
        return next(self._batches, None)


def runtime_quantized(base: OnnxFile, pixels: Pixels, folder: Path) -> dict[str, Encoder]:
    """Quantize a model by `onnxruntime.quantization.quantize_static`, with different options.

    Its SmoothQuant option is not among them: it changes matrix multiplications only, and these
    models are convolutions.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    graph = Graph(onnx.load(base.path))
    quantized = {layer.output for layer in layers_to_quantize(graph, pixels[:1], base.spec.name)}
    first = [
        node.name
        for node in graph.model.graph.node
        if node.op_type == "Conv" and node.output[0] not in quantized
    ]
    convolutions = {"op_types_to_quantize": ["Conv", "Add", "MaxPool", "Clip", "Relu"]}
    best = {"per_channel": True, "nodes_to_exclude": first, **convolutions}
    minmax, percentile = CalibrationMethod.MinMax, CalibrationMethod.Percentile
    average = {"CalibMovingAverage": True}
    variants = {
        "ort defaults": {"calibrate_method": minmax},
        "ort per channel": {"calibrate_method": minmax, "per_channel": True, **convolutions},
        "ort first in fp32": {"calibrate_method": minmax, **best},
        "ort + reduce_range": {"calibrate_method": minmax, "reduce_range": True, **best},
        "ort + moving average": {"calibrate_method": minmax, "extra_options": average, **best},
        "ort + percentile": {"calibrate_method": percentile, **best},
    }
    encoders: dict[str, Encoder] = {}
    for name, options in variants.items():
        place = folder / name.replace(" ", "-")
        place.mkdir()
        path = place / model_files.MODEL
        quantize_static(
            str(base.path),
            str(path),
            _Reader(pixels),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            **options,
        )
        stamp = replace(base.stamp, variant="int8 onnxruntime")
        encoders[name] = OnnxEncoder(OnnxFile(path, base.spec, stamp))
    return encoders


def report(vectors: dict[str, Vectors], rate: dict[str, float], labels: NDArray[np.str_]) -> None:
    fp32 = vectors["fp32"]
    truth = best_ten(fp32, fp32)
    print(f"{'':22} images/s  ratio   cosine  overlap@10     P@1    P@10")
    sides = [(name, made, made, rate[name]) for name, made in vectors.items()]
    sides.append(("fp32 query on int8", fp32, vectors["int8"], 0.0))
    for name, queries, gallery, speed in sides:
        found = best_ten(queries, gallery)
        shared = np.mean([len({*a} & {*b}) / K for a, b in zip(found, truth, strict=True)])
        right = labels[found] == labels[:, None]
        cosine = (fp32 * gallery).sum(axis=1).mean()
        print(
            f"{name:22} {speed:8.1f}  {speed / rate['fp32']:5.2f}  {cosine:.5f}  {shared:10.4f}  "
            f"{right[:, 0].mean():.4f}  {right.mean():.4f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="efficientnet-lite0")
    parser.add_argument("--weights")
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--field", default="articleType")
    options = parser.parse_args()
    say: Callable[[object], None] = lambda event: print(getattr(event, "text", event))  # noqa: E731
    print(machine())
    with tempfile.TemporaryDirectory() as place, bench_home(place):
        given = options.weights
        if given == "seeded":
            given = str(seeded_resnet50(Path(place) / "seeded.pth"))
        files, labels = images(options.folder, options.field, options.count)
        sample = ImageSample(resolve([str(options.folder / "images")]), limit=MAX_FILES)
        fp32 = open_encoder(EncoderRequest(options.model, given, "cpu", "fp32", sample), None, say)
        int8 = open_encoder(EncoderRequest(options.model, given, "cpu", "int8", sample), None, say)
        encoders = {"fp32": fp32, "int8": int8}
        if base := model_files.find(fp32.stamp):
            pixels = sample(fp32.preprocessing, CALIBRATION_IMAGES + CHECK_IMAGES)
            encoders |= runtime_quantized(base, pixels[CHECK_IMAGES:], Path(place))
        named = ImageSample(resolve([str(file) for file in files[:_TIMED]]))
        rate = rates(encoders, named(fp32.preprocessing, _TIMED), options.turns)
        from imgsearch.images import decode

        vectors: dict[str, list[Vectors]] = {name: [] for name in encoders}
        for start in range(0, len(files), _BATCH):
            part = files[start : start + _BATCH]
            pixels = np.stack([decode(str(file), fp32.preprocessing).pixels for file in part])
            for name, encoder in encoders.items():
                vectors[name].append(encoder.encode(pixels))
        joined = {name: np.concatenate(parts) for name, parts in vectors.items()}
        print(f"{options.model}, {len(files)} images")
        report(joined, rate, labels)


if __name__ == "__main__":
    main()
