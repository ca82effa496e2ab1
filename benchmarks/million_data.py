"""Collections of many records for `benchmarks.million`: made once, kept in a folder, never changed.

Vectors are made chunk by chunk, each from its own seed, so that a collection of any size is made in
bounded memory, and a smaller one is the beginning of a larger one.
"""

import functools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.vectors import clustered
from imgsearch.encoders.base import Vectors, normalized
from imgsearch.stores import open_store
from imgsearch.stores.base import Collection, VectorQuery
from imgsearch.types import Condition, FieldType, ImageRecord, Stamp

CHUNK = 4096
QUERIES = 32
NAME = "images"
FIELDS: dict[str, FieldType] = {
    "number": "int",
    "one_in_100": "bool",
    "one_in_10": "bool",
    "description": "str",
}
FILTERS: dict[str, Sequence[Condition]] = {
    "none": (),
    "100": (Condition("number", "<", 100),),
    "1 %": (Condition("one_in_100", "=", True),),
    "10 %": (Condition("one_in_10", "=", True),),
}
"""Conditions by how many records meet them."""

CONTENTS = 30
"""Distinct contents of the kind "copies"."""

_QUERY_CHUNK = 1_000_000
_HARD_CENTERS = 2_000


def _hard(chunk: int, count: int, dimension: int, _: Path) -> Vectors:
    """Wide clusters that overlap: near neighbors are spread over many partitions of an index."""
    centers = np.random.default_rng(1).standard_normal((_HARD_CENTERS, dimension), dtype=np.float32)
    random = np.random.default_rng((2, chunk))
    found = np.zeros((count, dimension), np.float32)
    for weights in random.dirichlet((1.0, 1.0, 1.0), count).T.astype(np.float32):
        found += weights[:, None] * centers[random.integers(0, _HARD_CENTERS, count)]
    return normalized(found + 0.3 * random.standard_normal(found.shape, dtype=np.float32))


def _near_real(chunk: int, count: int, dimension: int, images: Path) -> Vectors:
    """Mixtures of two embeddings of photographs, mostly of the first, with a little noise."""
    real = embeddings(images)
    if real.shape[1] != dimension:
        raise SystemExit(f"the embeddings of {images} have {real.shape[1]} dimensions")
    random = np.random.default_rng((3, chunk))
    share = random.uniform(0.5, 1.0, (count, 1)).astype(np.float32)
    first, second = random.integers(0, len(real), (2, count))
    noise = random.standard_normal((count, dimension), dtype=np.float32) / np.sqrt(dimension)
    return normalized(share * real[first] + (1 - share) * real[second] + 0.2 * noise)


def _clustered(chunk: int, count: int, dimension: int, _: Path) -> Vectors:
    return clustered(count, dimension, seed=chunk)


def _copies(chunk: int, count: int, dimension: int, images: Path) -> Vectors:
    """Copies of a few contents, which alternate."""
    contents = _hard(0, CHUNK, dimension, images)[:CONTENTS]
    if chunk == _QUERY_CHUNK:
        return _hard(chunk, count, dimension, images)
    return contents[(chunk * CHUNK + np.arange(count)) % CONTENTS]


KINDS: dict[str, Callable[[int, int, int, Path], Vectors]] = {
    "clustered": _clustered,
    "hard": _hard,
    "near-real": _near_real,
    "copies": _copies,
}


@functools.cache
def embeddings(images: Path) -> Vectors:
    """Return embeddings of the images of a folder, kept beside the collections."""
    from imgsearch.encoders.factory import open_encoder
    from imgsearch.encoders.request import EncoderRequest
    from imgsearch.images import decode

    encoder = open_encoder(EncoderRequest(model="efficientnet-lite0"))
    files = sorted(images.rglob("*.jpg"))
    parts = [
        encoder.encode(
            np.stack(
                [decode(str(each), encoder.preprocessing).pixels for each in files[at : at + 32]]
            )
        )
        for at in range(0, len(files), 32)
    ]
    return np.concatenate(parts)


@dataclass(frozen=True, slots=True)
class Data:
    """What a collection holds, and where it is kept."""

    kind: str
    records: int
    dimension: int
    work: Path
    images: Path

    @property
    def folder(self) -> Path:
        return self.work / f"{self.kind}-{self.records}x{self.dimension}"

    def vectors(self, chunk: int, count: int = CHUNK) -> Vectors:
        """Return vectors of shape (count, dimension)."""
        return KINDS[self.kind](chunk, count, self.dimension, self.images)

    @property
    def queries(self) -> Vectors:
        """Vectors like those of the collection, which it does not hold."""
        return self.vectors(_QUERY_CHUNK, QUERIES)

    def batches(self) -> Iterator[tuple[list[ImageRecord], Vectors]]:
        """Yield the records and vectors, a chunk at a time."""
        for chunk, start in enumerate(range(0, self.records, CHUNK)):
            count = min(CHUNK, self.records - start)
            numbers = range(start, start + count)
            records = [record(each) for each in numbers]
            if self.kind == "copies":
                records = [
                    replace(each, sha256=f"{number % CONTENTS:064x}")
                    for number, each in zip(numbers, records, strict=True)
                ]
            yield records, self.vectors(chunk)[:count]

    def collection(self) -> Collection:
        """Open the collection, which is made first if it is not there."""
        if not self.folder.exists():
            self.work.mkdir(parents=True, exist_ok=True)
            # Renamed at the end, so that what is there is complete.
            making = Path(tempfile.mkdtemp(prefix="making-", dir=self.work))
            started = time.perf_counter()
            with open_store(str(making)) as store:
                made = store.create(NAME, Stamp("synthetic", "0" * 64, "none", self.dimension))
                made.add_fields(FIELDS)
                for records, vectors in self.batches():
                    made.upsert(records, vectors)
                written = time.perf_counter()
                made.optimize()
            seconds = {"write_s": written - started, "index_s": time.perf_counter() - written}
            (making / "made.json").write_text(json.dumps(seconds))
            making.rename(self.folder)
        return open_store(str(self.folder)).open(NAME)

    def copy(self, place: Path) -> Collection:
        """Open a copy, to be changed. It shares the files, which the store never changes."""
        self.collection()
        shutil.copytree(self.folder, place, copy_function=os.link)
        return open_store(str(place)).open(NAME)

    def exact(self) -> dict[str, list[list[float]]]:
        """Return the scores of the ten records nearest to each query, by filter."""
        kept = self.folder / "exact.json"
        if not kept.exists():
            answers = self.collection().search_exact(
                [
                    VectorQuery(each, 10, where)
                    for where in FILTERS.values()
                    for each in self.queries
                ]
            )
            scores = iter([[hit.score for hit in answer] for answer in answers])
            exact = {name: [next(scores) for _ in self.queries] for name in FILTERS}
            kept.write_text(json.dumps(exact))
        scores_by_filter: dict[str, list[list[float]]] = json.loads(kept.read_text())
        return scores_by_filter


def record(number: int) -> ImageRecord:
    return ImageRecord(
        uri=f"file:///images/{number % 1000:03d}/{number:08d}.jpg",
        sha256=f"{number:064x}",
        size=100_000 + number,
        mtime_ns=1_700_000_000_000_000_000 + number,
        width=640,
        height=480,
        metadata={
            "number": number,
            "one_in_100": number % 100 == 0,
            "one_in_10": number % 10 == 0,
            "description": ("red shoe" if number % 2 else "blue shirt") + f" {number}",
        },
    )
