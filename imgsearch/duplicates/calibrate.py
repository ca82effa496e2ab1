"""Choose the least cosine similarity of candidates for a collection.

How similar the vectors of an image and of a smaller copy of it are depends on the model, and on the
size of the images: a network sees a small image enlarged. So a sample of the collection is changed
as duplicates are, and encoded.

`imgsearch.calibration` cannot tell it, as it compares images that are different. Its score that few
images reach by chance is for hits that nothing verifies, and too high for candidates: in
`benchmarks/calibration.py`, it was 0.941, which no copy at half the size reached.
"""

import io
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from PIL import Image

from imgsearch import images
from imgsearch.config import DEFAULT_MAX_PIXELS
from imgsearch.encoders.base import Encoder
from imgsearch.errors import ImageError
from imgsearch.events import Listener, Note, Stage, ignore
from imgsearch.stores.base import Collection
from imgsearch.system import memory
from imgsearch.types import ImageRecord

DEFAULT_SCORE = 0.85
"""For a collection whose files cannot be read."""

_SAMPLE = 40
_ENOUGH = 10
# Of the changed images, so many percent may stay below, minus a margin for a small sample.
_PERCENTILE = 2
_MARGIN = 0.02
_LOWEST, _HIGHEST = 0.75, 0.93


def calibrated_score(
    collection: Collection,
    encoder: Encoder,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    listener: Listener = ignore,
) -> float:
    """Return the score that nearly all re-encoded, resized and slightly cropped images reach."""
    listener(Stage("calibrating the least score"))
    scores: list[float] = []
    used = 0
    # Ids are hashes, so that the first ones are a random sample that is always the same.
    for record in collection.page(2 * _SAMPLE):
        stored = collection.vectors_by_id([record.id])
        changed = _changed(record, encoder, max_pixels)
        if not changed or record.id not in stored:
            continue
        scores += (encoder.encode(np.stack(changed)) @ stored[record.id]).tolist()
        used += 1
        if used == _SAMPLE:
            break
    if used < _ENOUGH:
        listener(Note(f"too few files to calibrate with: candidates score {DEFAULT_SCORE:.2f}"))
        return DEFAULT_SCORE
    score = float(np.percentile(scores, _PERCENTILE)) - _MARGIN
    return round(min(max(score, _LOWEST), _HIGHEST), 3)


def _changed(record: ImageRecord, encoder: Encoder, max_pixels: int) -> list[images.Pixels]:
    """Return the pixels of changed images, none if the file cannot be read."""

    def read(file: BinaryIO) -> list[images.Pixels]:
        with memory.lease() as lease:
            image = images.load(file, 512, max_pixels, lease).image
            return [images.decode(each, encoder.preprocessing).pixels for each in _variants(image)]

    try:
        return images.read_original(record, read)
    except ImageError:
        return []


def _variants(image: Image.Image) -> Iterator[Image.Image]:
    """Yield the image at poor quality, at half the size, and without a tenth of each side."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=50)
    yield Image.open(buffer).convert("RGB")
    half = (max(1, image.width // 2), max(1, image.height // 2))
    yield image.resize(half, Image.Resampling.LANCZOS)
    left, top = image.width // 20, image.height // 20
    yield image.crop((left, top, image.width - left, image.height - top))
