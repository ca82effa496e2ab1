"""Decoding large JPEGs at reduced size: the change of the vectors, and the time saved.

    python benchmarks/draft_mode.py FOLDER [--images 40] [--megapixels 8 12] [--margins 1 2 4]

Images from FOLDER are enlarged bicubically, get the mild noise of a camera sensor, and are saved as
JPEG of quality 90. Each is decoded at full size and in draft mode with every margin (see
`imgsearch.images.decoding.DRAFT_MARGIN`), and the two vectors of efficientnet-lite0 are compared.
"""

import argparse
import io
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from imgsearch import images
from imgsearch.encoders.factory import open_encoder
from imgsearch.encoders.request import EncoderRequest

NOISE = 4.0  # standard deviation, of 255


def enlarged(image: Path, megapixels: float, seed: int) -> bytes:
    """Return the image enlarged to a number of megapixels, as JPEG."""
    with Image.open(image) as opened:
        small = opened.convert("RGB")
    scale = (megapixels * 1e6 / (small.width * small.height)) ** 0.5
    size = (round(small.width * scale) + 1, round(small.height * scale) + 1)
    large = np.asarray(small.resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
    random = np.random.default_rng(seed)
    noisy = large + NOISE * random.standard_normal((*large.shape[:2], 1), dtype=np.float32)
    buffer = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def decoded(
    data: bytes, preprocessing: images.Preprocessing, margin: float | None
) -> tuple[images.Pixels, float]:
    """Return the network's input and the seconds it took; at full size if margin is None."""
    started = time.perf_counter()
    enough = None if margin is None else round(margin * preprocessing.short_side)
    pixels = np.asarray(images.fit(images.load(data, enough), preprocessing))
    return pixels, time.perf_counter() - started


def images_in(folder: Path, count: int) -> Iterator[Path]:
    """Yield images spread over the folder."""
    found = sorted(path for path in folder.rglob("*.jpg"))
    return islice(found, 0, None, max(1, len(found) // count)) if found else iter(())


def compare(folder: Path, count: int, megapixels: float, margins: list[float]) -> None:
    encoder = open_encoder(EncoderRequest("efficientnet-lite0", device="cpu"))
    inputs: dict[float | None, list[images.Pixels]] = {margin: [] for margin in [None, *margins]}
    seconds: dict[float | None, float] = dict.fromkeys(inputs, 0.0)
    for number, image in enumerate(islice(images_in(folder, count), count)):
        data = enlarged(image, megapixels, seed=number)
        for margin, taken in inputs.items():
            pixels, time_taken = decoded(data, encoder.preprocessing, margin)
            taken.append(pixels)
            seconds[margin] += time_taken
    whole = encoder.encode(np.stack(inputs[None]))
    print(
        f"{megapixels:g} MP, {len(whole)} images: whole "
        f"{1000 * seconds[None] / len(whole):.0f} ms each"
    )
    for margin in margins:
        cosines = (whole * encoder.encode(np.stack(inputs[margin]))).sum(axis=1)
        print(
            f"  margin {margin:g}: cosine min {cosines.min():.5f}, mean {cosines.mean():.5f}; "
            f"{1000 * seconds[margin] / len(whole):.0f} ms each, "
            f"{seconds[None] / seconds[margin]:.1f} times as fast"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Draft-mode decoding against whole decoding.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--megapixels", type=float, nargs="+", default=[8, 12])
    parser.add_argument("--margins", type=float, nargs="+", default=[1, 2, 4])
    wanted = parser.parse_args()
    for megapixels in wanted.megapixels:
        compare(wanted.folder, wanted.images, megapixels, wanted.margins)


if __name__ == "__main__":
    main()
