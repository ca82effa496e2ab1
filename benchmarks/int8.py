"""int8 against fp32: speed, and the quality of answers, on the same pictures and weights.

    python -m benchmarks.int8 FOLDER [--model efficientnet-lite0] [--count 3000]
    python -m benchmarks.int8 FOLDER --model resnet50 --weights seeded

FOLDER is laid out like Kaggle's set: images/<id>.jpg and styles.csv. Rates are of the model alone,
on decoded pictures, both sides in turn, the best of their turns. Every picture is the query once,
itself left out: the overlap is the share of fp32's ten best that are found, P@1 and P@10 go by the
field. `seeded` weights are random, so that only their rates mean anything.
"""

import argparse
import csv
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import bench_home, machine, seeded_resnet50
from imgsearch.encoders.base import Encoder, Vectors
from imgsearch.encoders.factory import open_encoder
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
    """Pictures a second of each."""
    best = dict.fromkeys(encoders, 0.0)
    for _ in range(turns):
        for name, encoder in encoders.items():
            started = time.perf_counter()
            encode_all(encoder, pixels)
            best[name] = max(best[name], len(pixels) / (time.perf_counter() - started))
    return best


def best_ten(queries: Vectors, gallery: Vectors) -> NDArray[np.int64]:
    """Rows of the gallery for each query, the query's own row left out."""
    similarity = queries @ gallery.T
    np.fill_diagonal(similarity, -2)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :K]


def pictures(folder: Path, field: str, count: int) -> tuple[list[Path], NDArray[np.str_]]:
    """Spread over all, with their labels."""
    with (folder / "styles.csv").open(encoding="utf-8") as table:
        rows = {row["id"]: row[field] for row in csv.DictReader(table)}
    files = sorted(file for file in (folder / "images").iterdir() if file.stem in rows)
    order = np.random.default_rng(1).permutation(len(files))[:count]
    chosen = [files[i] for i in order]
    return chosen, np.array([rows[file.stem] for file in chosen])


def report(vectors: dict[str, Vectors], labels: NDArray[np.str_]) -> None:
    fp32, int8 = vectors["fp32"], vectors["int8"]
    truth = best_ten(fp32, fp32)
    cosine = (fp32 * int8).sum(axis=1)
    print(f"cosine of int8 with fp32: mean {cosine.mean():.5f}, least {cosine.min():.5f}")
    print(f"{'query on gallery':20}  overlap@10     P@1    P@10")
    for name, queries, gallery in (
        ("fp32 on fp32", fp32, fp32),
        ("int8 on int8", int8, int8),
        ("fp32 on int8", fp32, int8),
    ):
        found = best_ten(queries, gallery)
        shared = [len({*a} & {*b}) / K for a, b in zip(found, truth, strict=True)]
        right = labels[found] == labels[:, None]
        print(f"{name:20}  {np.mean(shared):10.4f}  {right[:, 0].mean():.4f}  {right.mean():.4f}")


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
        files, labels = pictures(options.folder, options.field, options.count)
        sample = ImageSample(resolve([str(options.folder / "images")]), limit=MAX_FILES)
        fp32 = open_encoder(EncoderRequest(options.model, given, "cpu", "fp32", sample), None, say)
        int8 = open_encoder(EncoderRequest(options.model, given, "cpu", "int8", sample), None, say)
        encoders = {"fp32": fp32, "int8": int8}
        named = ImageSample(resolve([str(file) for file in files[:_TIMED]]))
        timed = named(fp32.preprocessing, _TIMED)
        rate = rates(encoders, timed, options.turns)
        print(
            f"{options.model}: fp32 {rate['fp32']:.1f}, int8 {rate['int8']:.1f} pictures a second, "
            f"ratio {rate['int8'] / rate['fp32']:.2f}"
        )
        from imgsearch.images import decode

        vectors: dict[str, list[Vectors]] = {name: [] for name in encoders}
        for start in range(0, len(files), _BATCH):
            part = files[start : start + _BATCH]
            pixels = np.stack([decode(str(file), fp32.preprocessing).pixels for file in part])
            for name, encoder in encoders.items():
                vectors[name].append(encoder.encode(pixels))
        report({name: np.concatenate(parts) for name, parts in vectors.items()}, labels)


if __name__ == "__main__":
    main()
