"""Search: pictures in, hits out. `Searcher` answers for one collection and one encoder."""

import hashlib
from collections.abc import Collection as Container
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from imgsearch import config, images
from imgsearch.encoders import Encoder
from imgsearch.encoders.base import Vectors, normalised
from imgsearch.errors import UsageError
from imgsearch.images import Region, Source
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
        self,
        source: Source,
        options: SearchOptions,
        *,
        exclude_self: bool = False,
        region: Region | None = None,
    ) -> list[Hit]:
        """Hits for a picture, or for a region of it.

        `exclude_self` leaves out every record of this very content. Raises ImageError if it is no
        usable picture.
        """
        return self.search_pictures([source], options, exclude_self=exclude_self, region=region)

    def search_pictures(
        self,
        sources: Sequence[Source],
        options: SearchOptions,
        *,
        exclude_self: bool = False,
        region: Region | None = None,
    ) -> list[Hit]:
        """Hits for what several pictures have in common: the mean of their vectors."""
        digests: list[str] = []
        if exclude_self:
            digests, sources = _digests(sources)
        vector = mean(self.encode(sources, region))
        return search_vector(self._collection, vector, options, without=digests)

    def encode(self, sources: Sequence[Source], region: Region | None = None) -> Vectors:
        """The vectors of pictures: float32 of shape (n, dimension)."""
        preprocessing = self._encoder.preprocessing
        decoded = [
            images.decode(source, preprocessing, self._max_pixels, region) for source in sources
        ]
        return self._encoder.encode(np.stack([picture.pixels for picture in decoded]))


def search_vector(
    collection: Collection,
    vector: Vectors,
    options: SearchOptions,
    without: Container[str] = (),
) -> list[Hit]:
    """Hits for a vector of shape (dimension,), without those of the SHA-256s `without`."""
    found = _distinct(collection, vector, options, without)[: options.k]
    if options.min_score is not None:
        found = [scored for scored in found if scored.score >= options.min_score]
    copies: dict[str, int] = {}
    if options.collapse and found:
        digests = [scored.record.sha256 for scored in found]
        copies = collection.copies(digests, options.where)
    return [
        Hit(rank, scored.score, scored.record, copies.get(scored.record.sha256, 1))
        for rank, scored in enumerate(found, start=1)
    ]


def mean(vectors: Vectors) -> Vectors:
    """The direction between vectors of shape (n, dimension), normalised: shape (dimension,)."""
    return np.asarray(normalised(vectors.mean(axis=0, keepdims=True))[0])


def _digests(sources: Sequence[Source]) -> tuple[list[str], list[Source]]:
    """The SHA-256s of pictures, and the pictures as they were read for it."""
    digests: list[str] = []
    read: list[Source] = []
    for source in sources:
        if isinstance(source, bytes):
            digests.append(hashlib.sha256(source).hexdigest())
            read.append(source)
        elif isinstance(source, str):
            file = images.fingerprint(source)
            digests.append(file.sha256)
            read.append(file.data or source)
        else:
            raise UsageError("exclude_self needs the picture's file, by path or bytes")
    return digests, read


def _distinct(
    collection: Collection, vector: Vectors, options: SearchOptions, without: Container[str]
) -> list[Scored]:
    """At least k records, if there are so many, after copies and the picture itself are out.

    The store is asked for more as long as copies have filled its answer.
    """
    wanted = options.k + len(without)
    while True:
        answer = collection.search(vector, wanted, options.where)
        kept = [scored for scored in answer if scored.record.sha256 not in without]
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
