"""Search: a picture in, hits out. Everything that answers queries stands on `Searcher`."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from imgsearch import config, images
from imgsearch.encoders import Encoder
from imgsearch.encoders.base import Vectors
from imgsearch.images import fingerprint
from imgsearch.records import Condition, Hit, Scored
from imgsearch.stores.base import Collection

DEFAULT_K = 10


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """What to answer. `min_score` is a cosine similarity; `where` conditions must all hold."""

    k: int = DEFAULT_K
    where: Sequence[Condition] = field(default_factory=tuple)
    min_score: float | None = None
    collapse: bool = True
    """Whether records of equal content are one hit, with the number of its copies."""


class Searcher:
    """Searches one collection with the encoder that made it."""

    def __init__(
        self,
        collection: Collection,
        encoder: Encoder,
        max_pixels: int = config.DEFAULT_MAX_PIXELS,
    ) -> None:
        self._collection = collection
        self._encoder = encoder
        self._max_pixels = max_pixels

    def search_picture(
        self, source: str | bytes, options: SearchOptions, *, exclude_self: bool = False
    ) -> list[Hit]:
        """Hits for a picture, by path or bytes.

        `exclude_self` leaves out every record of this very content. Raises ImageError if it is no
        usable picture.
        """
        if isinstance(source, bytes):
            digest = hashlib.sha256(source).hexdigest()
        else:
            file = fingerprint(source)
            digest, source = file.sha256, file.data or source
        vector = self.encode(source)
        return self.search_vector(vector, options, without=digest if exclude_self else None)

    def encode(self, source: str | bytes) -> Vectors:
        """The vector of a picture, by path or bytes: float32 of shape (dimension,)."""
        picture = images.decode(source, self._encoder.preprocessing, self._max_pixels)
        vectors = self._encoder.encode(picture.pixels[np.newaxis])
        return np.asarray(vectors[0])

    def search_vector(
        self, vector: Vectors, options: SearchOptions, without: str | None = None
    ) -> list[Hit]:
        """Hits for a vector of shape (dimension,), without those of the SHA-256 `without`."""
        found = self._distinct(vector, options, without)[: options.k]
        if options.min_score is not None:
            found = [scored for scored in found if scored.score >= options.min_score]
        copies: dict[str, int] = {}
        if options.collapse and found:
            digests = [scored.record.sha256 for scored in found]
            copies = self._collection.copies(digests, options.where)
        return [
            Hit(rank, scored.score, scored.record, copies.get(scored.record.sha256, 1))
            for rank, scored in enumerate(found, start=1)
        ]

    def _distinct(
        self, vector: Vectors, options: SearchOptions, without: str | None
    ) -> list[Scored]:
        """At least k records, if there are so many, after copies and the picture itself are out.

        The store is asked for more as long as copies have filled its answer.
        """
        wanted = options.k + (without is not None)
        while True:
            answer = self._collection.search(vector, wanted, options.where)
            kept = [scored for scored in answer if scored.record.sha256 != without]
            if options.collapse:
                kept = _first_of_each_content(kept)
            if len(kept) >= options.k or len(answer) < wanted:
                return kept
            wanted *= 4


def _first_of_each_content(answer: Sequence[Scored]) -> list[Scored]:
    by_content: dict[str, Scored] = {}
    for scored in answer:
        by_content.setdefault(scored.record.sha256, scored)
    return list(by_content.values())
