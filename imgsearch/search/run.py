"""Search one collection: a request in, hits out."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from imgsearch import calibration, config, images
from imgsearch.calibration import Calibration
from imgsearch.encoders.base import Encoder, Vectors, normalized
from imgsearch.errors import UsageError, no_record
from imgsearch.images import Region, Source
from imgsearch.search.distinct import (
    by_text,
    by_vector,
    depth_of,
    many_without_copies,
    record_key,
    without_copies,
)
from imgsearch.search.request import SearchRequest
from imgsearch.stores.base import Collection
from imgsearch.types import Hit, ImageRecord, Scored

# The paper's constant, and how many hits of either ranking are fused: up to this number, the order
# of hits does not depend on k.
_FUSION_CONSTANT = 60
_FUSION_DEPTH = 200


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

    def search(self, request: SearchRequest, encoded: Vectors | None = None) -> list[Hit]:
        """Return the hits for images, for records, or for both.

        `encoded` are the vectors of the images, of shape (n, dimension), if they are known already.
        Raises ImageError for an unusable image, RecordNotFoundError for an unknown record.
        """
        vectors: list[Vectors] = []
        excluded = list(request.exclude_digests)
        if request.records:
            stored, digests = stored_vectors(self._collection, request.records)
            vectors.append(stored)
            excluded += digests if request.exclude_self else []
        if request.images:
            sources = request.images
            if request.exclude_self:
                digests, sources = _digests(sources)
                excluded += digests
            vectors.append(self.encode(sources, request.region) if encoded is None else encoded)
        request = replace(request, exclude_digests=excluded)
        return search_vector(self._collection, mean(np.concatenate(vectors)), request)

    def encode(self, sources: Sequence[Source], region: Region | None = None) -> Vectors:
        """Return the vectors of images: float32 of shape (n, dimension)."""
        preprocessing = self._encoder.preprocessing
        decoded = [
            images.decode(source, preprocessing, self._max_pixels, region) for source in sources
        ]
        return self._encoder.encode(np.stack([image.pixels for image in decoded]))


def search_records(collection: Collection, request: SearchRequest) -> list[Hit]:
    """Return the hits for stored records, which needs no encoder."""
    vectors, digests = stored_vectors(collection, request.records)
    if request.exclude_self:
        request = replace(request, exclude_digests=[*request.exclude_digests, *digests])
    return search_vector(collection, mean(vectors), request)


def stored_vectors(collection: Collection, ids: Sequence[str]) -> tuple[Vectors, list[str]]:
    """Return the vectors of records, of shape (n, dimension), and the SHA-256 of each content.

    Raises RecordNotFoundError for an unknown id.
    """
    known = collection.lookup(ids)
    vectors = collection.vectors_by_id(ids)
    for each in ids:
        if each not in known or each not in vectors:
            raise no_record(collection.name, each)
    return (
        np.stack([vectors[each] for each in ids]),
        [known[each].sha256 for each in ids],
    )


def search_vector(
    collection: Collection,
    vector: Vectors,
    request: SearchRequest,
) -> list[Hit]:
    """Return the hits for a vector, float32 of shape (dimension,), L2-normalized.

    With `request.text` the hits for the vector and for the words are fused; see `_fused`. Raises
    UsageError for a vector of another shape, CollectionMismatchError for a confident search in a
    collection that is too small.
    """
    _check_shape(collection, vector)
    known = _calibration(collection, [request])
    similarity = by_vector(collection, vector, request)
    if request.text.strip():
        depth = max(request.k, _FUSION_DEPTH)
        similar = without_copies(collection, similarity, depth, request, enough=depth_of(request))
        relevance = by_text(collection, request)
        relevant = without_copies(collection, relevance, depth, request, enough=request.k)
        found = _fused(collection, vector, similar, relevant, request)
    else:
        similar = without_copies(collection, similarity, depth_of(request), request)
        found = [_Found(scored.record, scored.score) for scored in similar]
    if request.confident and known:
        tenth = _tenth(collection, vector, similar, request)
        found = [each for each in found if known.is_confident(each.score, tenth)]
    if request.min_score is not None:
        found = [each for each in found if each.score >= request.min_score]
    return _hits(collection, found[: request.k], request, known)


def _calibration(collection: Collection, requests: Sequence[SearchRequest]) -> Calibration | None:
    """Return what scores mean, if that is known or needed."""
    if any(request.confident for request in requests):
        return calibration.available(collection)
    return calibration.stored(collection)


def _tenth(
    collection: Collection, vector: Vectors, similar: Sequence[Scored], request: SearchRequest
) -> float | None:
    """Return the score of the tenth content, with which a hit's distance is compared."""
    tenth = calibration.tenth_score([(each.record.sha256, each.score) for each in similar])
    if tenth is None and not request.collapse and len(similar) >= calibration.NEIGHBORS:
        # Copies fill the results.
        alone = replace(request, collapse=True)
        ranking = by_vector(collection, vector, alone)
        contents = without_copies(collection, ranking, calibration.NEIGHBORS, alone)
        tenth = calibration.tenth_score([(each.record.sha256, each.score) for each in contents])
    return tenth


def _check_shape(collection: Collection, vector: Vectors) -> None:
    dimension = collection.stamp.dimension
    if vector.shape != (dimension,):
        raise UsageError(
            f"the vector has the shape {vector.shape}, but the vectors of collection "
            f"{collection.name} have the shape ({dimension},)"
        )


def search_text(collection: Collection, request: SearchRequest) -> list[Hit]:
    """Return the hits for the words of `request.text` alone.

    Raises UsageError for a `min_score`, as there is no cosine similarity without an image.
    """
    if request.min_score is not None:
        raise UsageError("a minimum score is a similarity to an image, and there is none")
    relevant = without_copies(collection, by_text(collection, request), request.k, request)
    found = [_Found(scored.record, scored.score, scored.score) for scored in relevant]
    return _hits(collection, found[: request.k], request)


@dataclass(frozen=True, slots=True)
class _Found:
    record: ImageRecord
    score: float
    text_score: float | None = None


def search_vectors(
    collection: Collection, vectors: Vectors, requests: Sequence[SearchRequest]
) -> list[list[Hit]]:
    """Return the hits for many vectors, float32 of shape (n, dimension), with a request for each.

    The requests may differ in what they exclude. The result is that of `search_vector` for each,
    in much less time unless they have a text. Memory grows with n and k.
    """
    if any(request.text.strip() for request in requests):
        return [search_vector(collection, *each) for each in zip(vectors, requests, strict=True)]
    known = _calibration(collection, requests)
    nearest = many_without_copies(collection, vectors, requests)
    found = []
    for vector, scoreds, request in zip(vectors, nearest, requests, strict=True):
        chosen = scoreds[: request.k]
        if request.confident and known:
            tenth = _tenth(collection, vector, scoreds, request)
            chosen = [each for each in chosen if known.is_confident(each.score, tenth)]
        if request.min_score is not None:
            chosen = [each for each in chosen if each.score >= request.min_score]
        found.append([_Found(scored.record, scored.score) for scored in chosen])
    collapsed = [
        each.record.sha256
        for several, request in zip(found, requests, strict=True)
        if request.collapse
        for each in several
    ]
    copies = collection.count_by_digest(collapsed, requests[0].conditions) if collapsed else {}
    return [_numbered(each, copies, known) for each in found]


def search_many(collection: Collection, requests: Sequence[SearchRequest]) -> list[list[Hit]]:
    """Return the hits for many requests, each with a vector or with records; see `search_vectors`.

    All must have the same conditions. Raises RecordNotFoundError for an unknown id, UsageError for
    a vector of another shape.
    """
    ids = list(dict.fromkeys(each for request in requests for each in request.records))
    rows = {each: row for row, each in enumerate(ids)}
    stored, digests = np.empty((0, 0), np.float32), list[str]()
    if ids:
        stored, digests = stored_vectors(collection, ids)
    vectors: list[Vectors] = []
    resolved: list[SearchRequest] = []
    for request in requests:
        if request.vector is not None:
            _check_shape(collection, request.vector)
            vectors.append(request.vector)
            resolved.append(request)
            continue
        own = [rows[each] for each in request.records]
        excluded = [digests[row] for row in own] if request.exclude_self else []
        vectors.append(mean(stored[own]))
        resolved.append(replace(request, exclude_digests=[*request.exclude_digests, *excluded]))
    return search_vectors(collection, np.stack(vectors), resolved) if requests else []


def _hits(
    collection: Collection,
    found: Sequence[_Found],
    request: SearchRequest,
    known: Calibration | None = None,
) -> list[Hit]:
    copies: dict[str, int] = {}
    if request.collapse and found:
        digests = [each.record.sha256 for each in found]
        copies = collection.count_by_digest(digests, request.conditions)
    return _numbered(found, copies, known)


def _numbered(
    found: Sequence[_Found], copies: Mapping[str, int], known: Calibration | None
) -> list[Hit]:
    return [
        Hit(
            rank,
            each.score,
            each.record,
            copies.get(each.record.sha256, 1),
            each.text_score,
            known.percentile(each.score) if known else None,
        )
        for rank, each in enumerate(found, start=1)
    ]


def _fused(
    collection: Collection,
    vector: Vectors,
    similar: Sequence[Scored],
    relevant: Sequence[Scored],
    request: SearchRequest,
) -> list[_Found]:
    """Fuse two rankings by reciprocal rank (Cormack, Clarke and Buettcher, 2009).

    Only ranks count, because cosines and BM25 relevances have no common scale. An image that was
    found only by its words gets its cosine too.
    """
    ranks: dict[str, float] = {}
    records: dict[str, ImageRecord] = {}
    for answer in (relevant, similar):
        for rank, scored in enumerate(answer, start=1):
            key = record_key(scored.record, request)
            ranks[key] = ranks.get(key, 0.0) + 1.0 / (_FUSION_CONSTANT + rank)
            records.setdefault(key, scored.record)
    scores = {record_key(scored.record, request): scored.score for scored in similar}
    far = {records[key].id: key for key in records if key not in scores}
    for record_id, other in collection.vectors_by_id(list(far)).items():
        scores[far[record_id]] = min(1.0, max(-1.0, float(other @ vector)))
    texts = {record_key(scored.record, request): scored.score for scored in relevant}
    # A record without a score was removed during the search.
    found = [key for key in ranks if key in scores]
    found.sort(key=lambda key: (-ranks[key], -scores[key], records[key].uri))
    return [_Found(records[key], scores[key], texts.get(key)) for key in found]


def mean(vectors: Vectors) -> Vectors:
    """Return the normalized mean of vectors of shape (n, dimension): shape (dimension,)."""
    return np.asarray(normalized(vectors.mean(axis=0, keepdims=True))[0])


def _digests(sources: Sequence[Source]) -> tuple[list[str], list[Source]]:
    """Return the SHA-256s of images, and the images as read for that."""
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
            raise UsageError("exclude_self needs the image's file, by path or bytes")
    return digests, read
