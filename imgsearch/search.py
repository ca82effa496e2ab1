"""Search: pictures in, hits out. `Searcher` answers for one collection and one encoder."""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Sequence
from collections.abc import Collection as Container
from dataclasses import dataclass, field

import numpy as np

from imgsearch import config, images
from imgsearch.encoders.base import Encoder, Vectors, normalised
from imgsearch.errors import UsageError
from imgsearch.images import Region, Source
from imgsearch.stores.base import MAX_EXCLUDED_DIGESTS, Collection
from imgsearch.text import query_words
from imgsearch.types import Condition, Hit, ImageRecord, Scored

DEFAULT_K = 10

# The paper's own constant, and how many of either answer are fused: so many hits have the same
# order however many of them are asked for.
_FUSION_CONSTANT = 60
_FUSION_DEPTH = 200
# How often a store is asked for one answer, where copies of few contents fill what it returns.
_MOST_REQUESTS = 50
_FEW_REQUESTS = 5
_FEW_COPIES = 8

_Ask = Callable[[int, Sequence[str]], list[Scored]]
"""The best `k` records without some contents, given as SHA-256s."""


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """What to answer. `min_score` is a cosine similarity; `where` conditions must all hold.

    `text` holds words to look for in the metadata, beside the picture or alone.
    """

    k: int = DEFAULT_K
    where: Sequence[Condition] = field(default_factory=tuple)
    min_score: float | None = None
    collapse: bool = True
    """Whether records of equal content are one hit, with the number of its copies."""
    text: str = ""


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
        vectors: Vectors | None = None,
    ) -> list[Hit]:
        """Hits for what several pictures have in common: the mean of their vectors.

        `vectors` are those, of shape (n, dimension), where they are known already.
        """
        digests: list[str] = []
        if exclude_self:
            digests, sources = _digests(sources)
        vector = mean(self.encode(sources, region) if vectors is None else vectors)
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
    """Hits for a vector of shape (dimension,), without those of the SHA-256s `without`.

    With `options.text` they are those of the vector and those of the words, fused; see `_fused`.
    """

    def nearest(k: int, excluded: Sequence[str]) -> list[Scored]:
        return collection.search(vector, k, options.where, exclude_digests=excluded)

    if options.text.strip():
        depth = max(options.k, _FUSION_DEPTH)
        similar = _distinct(nearest, depth, options, without, enough=options.k)
        by_words = _by_words(collection, options)
        relevant = _distinct(by_words, depth, options, without, enough=options.k)
        found = _fused(collection, vector, similar, relevant, options)
    else:
        similar = _distinct(nearest, options.k, options, without)
        found = [_Found(scored.record, scored.score) for scored in similar]
    if options.min_score is not None:
        found = [each for each in found if each.score >= options.min_score]
    return _hits(collection, found[: options.k], options)


def search_text(
    collection: Collection, options: SearchOptions, without: Container[str] = ()
) -> list[Hit]:
    """Hits for the words of `options.text` alone. Raises UsageError if it holds none.

    Also for a `min_score`, as there is no cosine similarity without a picture.
    """
    if options.min_score is not None:
        raise UsageError("a minimum score is a similarity to a picture, and there is none")
    relevant = _distinct(_by_words(collection, options), options.k, options, without)
    found = [_Found(scored.record, scored.score, scored.score) for scored in relevant]
    return _hits(collection, found[: options.k], options)


@dataclass(frozen=True, slots=True)
class _Found:
    record: ImageRecord
    score: float
    text_score: float | None = None


def _hits(collection: Collection, found: Sequence[_Found], options: SearchOptions) -> list[Hit]:
    copies: dict[str, int] = {}
    if options.collapse and found:
        digests = [each.record.sha256 for each in found]
        copies = collection.count_by_digest(digests, options.where)
    return [
        Hit(rank, each.score, each.record, copies.get(each.record.sha256, 1), each.text_score)
        for rank, each in enumerate(found, start=1)
    ]


def _fused(
    collection: Collection,
    vector: Vectors,
    similar: Sequence[Scored],
    relevant: Sequence[Scored],
    options: SearchOptions,
) -> list[_Found]:
    """Both answers as one, by reciprocal rank (Cormack, Clarke and Buettcher, 2009).

    Ranks alone count, because cosines and relevances have no common measure. A picture that only
    its words have found gets its cosine too.
    """
    ranks: dict[str, float] = {}
    records: dict[str, ImageRecord] = {}
    for answer in (relevant, similar):
        for rank, scored in enumerate(answer, start=1):
            key = _key(scored.record, options)
            ranks[key] = ranks.get(key, 0.0) + 1.0 / (_FUSION_CONSTANT + rank)
            records.setdefault(key, scored.record)
    scores = {_key(scored.record, options): scored.score for scored in similar}
    far = {records[key].id: key for key in records if key not in scores}
    for record_id, other in collection.vectors_by_id(list(far)).items():
        scores[far[record_id]] = min(1.0, max(-1.0, float(other @ vector)))
    texts = {_key(scored.record, options): scored.score for scored in relevant}
    # What has no score now was removed a moment ago.
    found = [key for key in ranks if key in scores]
    found.sort(key=lambda key: (-ranks[key], -scores[key], records[key].uri))
    return [_Found(records[key], scores[key], texts.get(key)) for key in found]


def _key(record: ImageRecord, options: SearchOptions) -> str:
    return record.sha256 if options.collapse else record.id


def _by_words(collection: Collection, options: SearchOptions) -> _Ask:
    words = query_words(options.text)
    return lambda k, excluded: collection.search_text(
        words, k, options.where, exclude_digests=excluded
    )


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
    ask: _Ask,
    k: int,
    options: SearchOptions,
    without: Container[str],
    enough: int | None = None,
) -> list[Scored]:
    """At least k records, if there are so many, without copies and without contents of `without`.

    The first request excludes nothing, as a store answers fastest without a filter. Further ones
    exclude the contents that crowded the answers before. So each request returns a bounded number
    of records, whatever the number of copies, and the number of requests is bounded too: fewer
    than k records are found only where more than `_MOST_REQUESTS` contents crowd the answers. With
    `enough` records a few requests have to do.
    """
    found: dict[str, Scored] = {}
    # By content: how many records of an answer are of no use once the content is known.
    crowd = Counter(dict.fromkeys(without, 1))
    excluded: list[str] = []
    more = k
    for request in range(1, _MOST_REQUESTS + 1):
        wanted = more + crowd.total() - sum(crowd[each] for each in excluded)
        answer = ask(wanted, excluded)
        contents = Counter(scored.record.sha256 for scored in answer)
        crowd |= Counter(contents if options.collapse else {d: contents[d] for d in without})
        for scored in answer:
            if scored.record.sha256 not in without:
                found.setdefault(_key(scored.record, options), scored)
        before, excluded = excluded, [each for each, _ in crowd.most_common(MAX_EXCLUDED_DIGESTS)]
        if len(found) >= k or len(answer) < wanted or before == excluded:
            break
        if enough is not None and len(found) >= enough and request >= _FEW_REQUESTS:
            break
        copies = len(answer) / len(contents)
        # More at once saves requests only where copies are few: else they fill it just the same.
        if options.collapse and copies <= _FEW_COPIES:
            more = min(math.ceil((k - len(found)) * copies), 2 * k)
        else:
            more = k
    return sorted(found.values(), key=lambda scored: (-scored.score, scored.record.uri))
