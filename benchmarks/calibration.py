"""How often `--confident` is wrong, on products that are not in the collection, and its cost.

    python benchmarks/calibration.py FOLDER [--store STORE]

FOLDER has the layout of Kaggle's fashion data: images/<id>.jpg and styles.csv. STORE is a folder in
which it has been indexed as collection `images`; by default it is indexed with efficientnet-lite0.
A fifth of the products is held out, and the others are calibrated. The same error rate by a fixed
score is the other side.
"""

import argparse
import io
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from benchmarks.common import machine
from imgsearch import ImageIndex, calibration
from imgsearch.encoders.base import Vectors
from imgsearch.search import Searcher
from imgsearch.types import ImageRecord

PRODUCT = "productDisplayName"
KIND = "articleType"
CHANGED = 300
SMALLEST_KIND = 20
Texts = NDArray[np.str_]


def crop(part: float) -> Callable[[Image.Image], Image.Image]:
    def cropped(image: Image.Image) -> Image.Image:
        width, height = image.size
        box = (part * width, part * height, (1 - part) * width, (1 - part) * height)
        return image.crop(tuple(map(round, box)))  # type: ignore[arg-type]

    return cropped


CHANGES: dict[str, tuple[Callable[[Image.Image], Image.Image], int]] = {
    "JPEG, quality 50": (lambda image: image, 50),
    "mirrored": (lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 75),
    "turned by 5 degrees": (lambda image: image.rotate(5, fillcolor=(255, 255, 255)), 75),
    "30 % brighter": (lambda image: ImageEnhance.Brightness(image).enhance(1.3), 75),
    "5 % cut off each side": (crop(0.05), 75),
    "10 % cut off each side": (crop(0.10), 75),
    "15 % cut off each side": (crop(0.15), 75),
    "half the size": (lambda image: image.resize((image.width // 2, image.height // 2)), 75),
}


def changed(path: str, name: str) -> bytes:
    change, quality = CHANGES[name]
    made = io.BytesIO()
    with Image.open(path) as image:
        change(image.convert("RGB")).save(made, "JPEG", quality=quality)
    return made.getvalue()


def stored(index: ImageIndex) -> tuple[list[ImageRecord], Vectors]:
    """Return a record for each content, in the order of their ids, and the vectors."""
    by_content = {each.sha256: each for each in index.records()}
    records = sorted(by_content.values(), key=lambda each: each.id)
    vectors = index.collection.vectors_by_id([each.id for each in records])
    return records, np.stack([vectors[each.id] for each in records])


def first_and_tenth(queries: Vectors, vectors: Vectors) -> Iterator[tuple[float, float, int]]:
    """Yield the scores of the first and the tenth hit, and the number of the first."""
    scores = queries @ vectors.T
    ordered = np.sort(scores, axis=1)
    for first, tenth, best in zip(
        ordered[:, -1], ordered[:, -calibration.NEIGHBORS], scores.argmax(axis=1), strict=True
    ):
        yield float(first), float(tenth), int(best)


def alarms(known: calibration.Calibration, queries: Vectors, vectors: Vectors) -> list[bool]:
    """Return for each query whether its first hit is confident."""
    return [known.is_confident(s, t) for s, t, _ in first_and_tenth(queries, vectors)]


def without_products(vectors: Vectors, products: Texts, kinds: Texts) -> float:
    """Hold out a fifth of the products; return the fixed score that is as often wrong."""
    names = np.unique(products)
    held = np.isin(products, np.random.default_rng(0).permutation(names)[: len(names) // 5])
    others, queries = vectors[~held], vectors[held]
    known = calibration.of_vectors(others, len(others))
    wrong = np.array(alarms(known, queries, others))
    best = [at for _, _, at in first_and_tenth(queries, others)]
    same = kinds[~held][best] == kinds[held]
    scores = [score for score, _, _ in first_and_tenth(queries, others)]
    least = float(np.quantile(scores, 1 - wrong.mean()))
    print(f"held-out products: {held.sum()} queries, {len(others)} images")
    print(f"  answered with no good match: {1 - wrong.mean():.1%}")
    print(f"  of the others, first hits of the same {KIND}: {same[wrong].mean():.1%}")
    print(f"  as many errors by a fixed score: {least:.4f}")
    aside = known.counterparts
    print(f"  images of the collection with a counterpart, set aside: {aside:.1%}")
    return least


def without_kinds(vectors: Vectors, kinds: Texts) -> None:
    """Leave out each kind of product in turn."""
    wrong: list[bool] = []
    several = [kind for kind, count in Counter(kinds.tolist()).items() if count >= SMALLEST_KIND]
    for kind in several:
        others = vectors[kinds != kind]
        known = calibration.of_vectors(others, len(others))
        wrong += alarms(known, vectors[kinds == kind], others)
    print(f"left-out kinds ({KIND}): {len(wrong)} queries of {len(several)} kinds")
    print(f"  answered with no good match: {1 - np.mean(wrong):.1%}")


def changed_images(
    index: ImageIndex, records: list[ImageRecord], vectors: Vectors, least: float
) -> None:
    """Search with changed images of products that are in the collection."""
    known = calibration.of_vectors(vectors, len(vectors))
    chosen = np.random.default_rng(1).permutation(len(records))[:CHANGED]
    searcher = Searcher(index.collection, index.encoder)
    print(f"changed images of {len(chosen)} products among {len(vectors)} images")
    print(f"  {'':24}{'first hit':>10}{'confident':>11}{'fixed score':>13}")
    for name in CHANGES:
        parts = np.array_split(chosen, max(1, len(chosen) // 50))
        queries = np.concatenate(
            [searcher.encode([changed(records[at].path, name) for at in part]) for part in parts]
        )
        own = (queries * vectors[chosen]).sum(axis=1)
        found = list(first_and_tenth(queries, vectors))
        first = np.mean([at == best for at, (_, _, best) in zip(chosen, found, strict=True)])
        kept = [
            known.is_confident(float(score), tenth)
            for score, (_, tenth, _) in zip(own, found, strict=True)
        ]
        print(f"  {name:24}{first:>10.1%}{np.mean(kept):>11.1%}{np.mean(own >= least):>13.1%}")


def same_kind(vectors: Vectors, kinds: Texts) -> None:
    """Search with each image for the others."""
    known = calibration.of_vectors(vectors, len(vectors))
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -1.0)
    ordered = np.sort(scores, axis=1)
    same = kinds[scores.argmax(axis=1)] == kinds
    confident = np.array(
        [
            known.is_confident(float(first), float(tenth))
            for first, tenth in ordered[:, [-1, -calibration.NEIGHBORS]]
        ]
    )
    print(f"first hits of the same {KIND}, by the percentile of their score")
    percentiles = np.array([known.percentile(float(each)) for each in ordered[:, -1]])
    for low, high in ((0, 95), (95, 99), (99, 99.9), (99.9, 99.99), (99.99, 100)):
        within = (percentiles >= low) & (percentiles < high)
        print(f"  {low:>6} to {high:<6}: {same[within].mean():.1%} of {within.sum()}")
    print(f"  confident: {same[confident].mean():.1%} of {confident.sum()}")


def cost(index: ImageIndex) -> None:
    started, cpu = time.perf_counter(), time.process_time()
    known = calibration.calibrate(index.collection)
    assert known
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    print(
        f"cost: {seconds:.2f} s, {cpu:.2f} s of CPU time, for {known.pairs:,} pairs of "
        f"{index.collection.stamp.dimension} dimensions"
    )


def measure(index: ImageIndex) -> None:
    print(f"{machine()}; {index.collection.stamp.model}")
    records, vectors = stored(index)
    products = np.array([str(each.metadata.get(PRODUCT)) for each in records])
    kinds = np.array([str(each.metadata.get(KIND)) for each in records])
    cost(index)
    least = without_products(vectors, products, kinds)
    without_kinds(vectors, kinds)
    same_kind(vectors, kinds)
    changed_images(index, records, vectors, least)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--store")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        store = arguments.store or str(Path(place) / "store")
        with ImageIndex("images", store=store, model="efficientnet-lite0") as index:
            if not index.exists():
                index.add(arguments.folder)
            measure(index)


if __name__ == "__main__":
    main()
