"""What the scores of one collection mean: how rare they are, and which are no chance.

A cosine similarity says nothing by itself. `calibrate` compares some thousand images of a
collection with each other, and keeps with the collection

- how many pairs of different images reach each score (`Calibration.percentile`);
- how similar the nearest other image is by chance (`Calibration.threshold`);
- how far an image stands out from the ten nearest by chance (`Calibration.is_confident`).

Distances are 1 - cosine. Among points that are spread evenly in m dimensions, the volume that the
nearest of ten neighbors encloses, as a share of the tenth's, has a Beta(1, 9) distribution; so
`distance 1 / distance 10` depends on m alone, and not on how dense the neighborhood is or how large
the collection. m follows from the quartile of images that stand out the least, which counterparts
hardly disturb. Images whose nearest one stands out by more than this law allows in one of a
thousand have a counterpart, such as the same product in another color, and are set aside. The
thresholds are quantiles of all others. The distance of the nearest image shrinks with the size of
the collection by a power, which the sample shows by its first half.
"""

import contextlib
import datetime
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from imgsearch.errors import CollectionMismatchError, StoreError
from imgsearch.events import Listener, Note, Stage, ignore
from imgsearch.stores.base import Collection, Vectors
from imgsearch.types import CollectionInfo, Stamp

SAMPLE = 3000
"""How many records are compared with each other at most: 4.5 million pairs."""

MIN_CONTENTS = 50
"""With fewer different images, nothing is calibrated."""

NEIGHBORS = 10
"""Whether a hit stands out is decided by the distance of this many nearest images."""

# A collection that has grown or shrunk by this factor is calibrated again.
_GROWTH = 1.5
_ATTACHMENT = "calibration"
_VERSION = 1
_BLOCK = 512
# Steps of the histogram of cosines: 1e-4, below which vectors of float16 round anyway.
_STEPS = 20_000
# Of so many pairs at least is the share known to some 30 %: no percentile goes beyond it.
_FEWEST_PAIRS = 10
_POINTS_PER_DECADE = 8
_BODY = (0.999, 0.99, *np.arange(0.95, 0.1, -0.05).round(2).tolist())
_CHANCES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
# Chances of a hit for an image without a counterpart: by standing out, and by its score alone.
_CHANCE_OF_RATIO = 0.03
_CHANCE_OF_SCORE = 0.01
_CHANCE_OF_NO_COUNTERPART = 0.001


@dataclass(frozen=True, slots=True)
class Calibration:
    """The meaning of the scores of one collection.

    `made` is the time in ISO 8601 and UTC, `images` the number of records then. `sample` images of
    different contents were compared, in `pairs` pairs. `quantiles` holds pairs of a score and the
    share of pairs that reach it, by ascending score. `counterparts` is the share of the sample that
    was set aside. `chances` holds pairs of a share of the others and the score that the nearest
    image of the sample reaches for it. With n times as many images, distances shrink by
    `n ** -growth`. `ratio` is the largest ratio of distances of a hit that stands out.
    """

    made: str
    images: int
    sample: int
    pairs: int
    quantiles: tuple[tuple[float, float], ...]
    counterparts: float
    chances: tuple[tuple[float, float], ...]
    growth: float
    ratio: float

    def percentile(self, score: float) -> float:
        """Return the percentage of pairs of different images that are less similar than a score.

        At most 100 - 1000 / pairs, which ten pairs of the sample reached: no more was measured.
        """
        scores, shares = zip(*self.quantiles, strict=True)
        share = float(np.exp(np.interp(score, scores, np.log(shares))))
        return 100.0 * (1.0 - share)

    def threshold(self, chance: float = _CHANCE_OF_SCORE, images: int | None = None) -> float:
        """Return the score that the nearest other image reaches by chance, for a share of images.

        `chance` is that share, from 0.001 to 0.5: of 1,000 images without a counterpart in the
        collection, 1,000 x chance have one that is at least so similar. `images` is the size of the
        collection, by default that of the calibration.
        """
        chances, scores = zip(*self.chances, strict=True)
        near = float(np.interp(np.log(chance), np.log(chances), scores))
        grown = max(1.0, (images or self.images) / self.sample)
        return float(1.0 - (1.0 - near) * grown**-self.growth)

    def is_confident(self, score: float, tenth: float | None) -> bool:
        """Return whether a hit is hardly there by chance.

        It stands out from the `NEIGHBORS` nearest images, or its score alone is enough. `tenth` is
        the score of the last of them, None if there are fewer. Of images without a counterpart, 4 %
        have a confident hit by chance.
        """
        if score >= self.threshold():
            return True
        return tenth is not None and 1.0 - score <= self.ratio * (1.0 - tenth)

    def to_dict(self) -> dict[str, Any]:
        """Return the calibration as JSON values."""
        return asdict(self)

    def summary(self) -> dict[str, Any]:
        """Return what `imgsearch info` shows."""
        return {
            "made": self.made,
            "images": self.images,
            "sample": self.sample,
            "pairs": self.pairs,
            "counterparts": round(self.counterparts, 4),
            "confident_score": round(self.threshold(), 4),
            "confident_ratio": self.ratio,
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Calibration":
        """Return the calibration of a `to_dict`. Raises KeyError, TypeError or ValueError."""
        known = dict(fields)
        for name in ("quantiles", "chances"):
            known[name] = tuple((float(x), float(y)) for x, y in known[name])
            if not known[name]:
                raise ValueError(f"{name} is empty")
        return cls(**known)


def percentile_text(percentile: float) -> str:
    """Return a percentage with one digit beyond the nines, rounded down: `99.98 %`."""
    digits = max(0, -math.floor(math.log10(max(100.0 - percentile, 1e-9)) + 1e-9))
    return f"{math.floor(percentile * 10**digits + 1e-6) / 10**digits:.{digits}f} %"


def stored(collection: Collection) -> Calibration | None:
    """Return the calibration that is kept with a collection, None if there is none for it."""
    return _parsed(collection.attachment(_ATTACHMENT), collection.stamp)


def describe(collection: Collection) -> CollectionInfo:
    """Return the description of a collection, with its calibration."""
    known = stored(collection)
    return replace(collection.info(), calibration=known.summary() if known else None)


_unstored: WeakKeyDictionary[Collection, Calibration] = WeakKeyDictionary()


def available(collection: Collection) -> Calibration:
    """Return the calibration of a collection, which is calibrated if it has none.

    It is kept with the collection, or with the object where the store cannot be written to. Raises
    CollectionMismatchError if the collection has too few images.
    """
    if known := stored(collection) or _unstored.get(collection):
        return known
    fresh = calibrate(collection)
    if fresh is None:
        raise CollectionMismatchError(
            f"collection {collection.name} has fewer than {MIN_CONTENTS} different images: too few "
            "to say which hits are no chance"
        )
    try:
        _store(collection, fresh)
    except StoreError:
        _unstored[collection] = fresh
    return fresh


def keep_current(collection: Collection, listener: Listener = ignore) -> None:
    """Calibrate a collection that has none, or has grown or shrunk by half; call it after writing.

    The listener receives a note if that fails.
    """
    try:
        known, images = stored(collection), collection.count()
        if known and known.images / _GROWTH <= images <= known.images * _GROWTH:
            return
        if known is None and images < MIN_CONTENTS:
            return
        listener(Stage("calibrating scores"))
        _store(collection, calibrate(collection))
    except StoreError as error:
        listener(Note(f"the scores of collection {collection.name} are not calibrated: {error}"))


def calibrate(collection: Collection) -> Calibration | None:
    """Compare a sample of a collection, which depends on the ids of its records alone.

    Reads at most `SAMPLE` records and their vectors, 25 MB with 2048 dimensions. Returns None if
    they have fewer than `MIN_CONTENTS` different contents.
    """
    by_content = {record.sha256: record.id for record in collection.page(SAMPLE)}
    found = collection.vectors_by_id(list(by_content.values()))
    if len(found) < MIN_CONTENTS:
        return None
    vectors = np.stack([found[each] for each in by_content.values() if each in found])
    return of_vectors(vectors, collection.count())


def of_vectors(vectors: Vectors, images: int) -> Calibration:
    """Return the calibration by a random sample of the vectors of `images` images.

    The vectors are float32 of shape (n, dimension), L2-normalized, of different contents and in
    random order.
    """
    sample = len(vectors)
    counts = np.zeros(_STEPS + 1, np.int64)
    near, near_in_half = list[NDArray[np.float32]](), list[NDArray[np.float32]]()
    for start, scores in _blocks(vectors):
        rows = np.arange(len(scores))
        cells = np.rint((scores + 1.0) * (_STEPS / 2)).astype(np.int32)
        np.clip(cells, 0, _STEPS, out=cells)
        counts += np.bincount(cells.ravel(), minlength=_STEPS + 1)
        counts -= np.bincount(cells[rows, start + rows], minlength=_STEPS + 1)
        scores[rows, start + rows] = -1.0
        near.append(np.partition(scores, -NEIGHBORS, axis=1)[:, -NEIGHBORS:])
        near_in_half.append(scores[:, : sample // 2].max(axis=1))
    distances = np.maximum(1.0 - np.concatenate(near).astype(np.float64), 1e-6)
    first, tenth = distances.min(axis=1), distances.max(axis=1)
    in_half = np.maximum(1.0 - np.concatenate(near_in_half).astype(np.float64), 1e-6)
    growth = float(np.log2(np.median(in_half) / np.median(first)))
    ratios = first / tenth
    alone = ratios >= _least_ratio(ratios)
    chances = [(chance, 1.0 - np.quantile(first[alone], chance)) for chance in _CHANCES]
    return Calibration(
        made=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        images=images,
        sample=sample,
        pairs=sample * (sample - 1) // 2,
        quantiles=_quantiles(counts // 2),
        counterparts=round(1.0 - float(alone.mean()), 6),
        chances=tuple((chance, round(float(score), 6)) for chance, score in chances),
        growth=round(min(1.0, max(0.0, growth)), 4),
        ratio=round(float(np.quantile(ratios[alone], _CHANCE_OF_RATIO)), 4),
    )


def _blocks(vectors: Vectors) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield the cosines of some vectors with all, and the number of the first of them."""
    for start in range(0, len(vectors), _BLOCK):
        yield start, vectors[start : start + _BLOCK] @ vectors.T


def _least_ratio(ratios: NDArray[np.float64]) -> float:
    """Return the ratio that only images with a counterpart are below."""
    others = NEIGHBORS - 1
    quartile = max(1e-6, min(float(np.quantile(ratios, 0.75)), 1.0 - 1e-6))
    dimensions = np.log(1.0 - 0.25 ** (1 / others)) / np.log(quartile)
    volume = 1.0 - (1.0 - _CHANCE_OF_NO_COUNTERPART) ** (1 / others)
    return float(volume ** (1 / dimensions))


def _quantiles(counts: NDArray[np.int64]) -> tuple[tuple[float, float], ...]:
    """Return scores and the shares of pairs that reach them, from counts by score."""
    reached = np.cumsum(counts[::-1])[::-1]
    pairs = int(reached[0])
    least = min(_FEWEST_PAIRS, pairs) / pairs
    decades = -np.log10(least)
    shares = {1.0, *_BODY, least, *(10 ** -np.arange(1, decades, 1 / _POINTS_PER_DECADE))}
    points = dict[float, float]()
    for share in sorted(shares, reverse=True):
        # The highest score that this many pairs reach.
        cell = int(np.flatnonzero(reached >= share * pairs - 1e-9)[-1])
        points[round(cell / (_STEPS / 2) - 1.0, 4)] = float(reached[cell]) / pairs
    return tuple(sorted(points.items()))


def _stamp_digest(stamp: Stamp) -> str:
    return hashlib.blake2b(stamp.to_json().encode(), digest_size=8).hexdigest()


def _store(collection: Collection, calibration: Calibration | None) -> None:
    text = None
    if calibration:
        kept = {"version": _VERSION, "stamp": _stamp_digest(collection.stamp)}
        text = json.dumps(kept | {"calibration": calibration.to_dict()})
    collection.attach(_ATTACHMENT, text)


def _parsed(text: str | None, stamp: Stamp) -> Calibration | None:
    """Return a stored calibration, None if it is of another version or of other vectors."""
    with contextlib.suppress(AttributeError, KeyError, TypeError, ValueError):
        kept = json.loads(text or "{}")
        if (kept.get("version"), kept.get("stamp")) == (_VERSION, _stamp_digest(stamp)):
            return Calibration.from_dict(kept["calibration"])
    return None


def tenth_score(contents: Sequence[tuple[str, float]]) -> float | None:
    """Return the score of the `NEIGHBORS`th nearest content, None if there are fewer.

    `contents` are digests and scores of records, best first; copies count once.
    """
    seen: dict[str, float] = {}
    for digest, score in contents:
        seen.setdefault(digest, score)
        if len(seen) == NEIGHBORS:
            return score
    return None
