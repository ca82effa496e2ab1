"""Search one collection: a request in, hits out."""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypedDict, cast

import numpy as np

from imgsearch import calibration, config, images
from imgsearch.calibration import Calibration
from imgsearch.encoders.base import Encoder, Vectors, normalized
from imgsearch.errors import UsageError, no_record
from imgsearch.events import Listener, Note
from imgsearch.filters import check_condition, comparisons_of_texts, parse_where
from imgsearch.images import Region, Source
from imgsearch.stores.base import MAX_EXCLUDED_DIGESTS, Collection, VectorQuery
from imgsearch.text import query_words
from imgsearch.types import Condition, FieldType, Hit, ImageRecord, Scored

DEFAULT_K = 10

# The paper's constant, and how many hits of either ranking are fused: up to this number, the order
# of hits does not depend on k.
_FUSION_CONSTANT = 60
_FUSION_DEPTH = 200
# Limits of requests to the store for one search, if copies of few contents fill the results.
_MAX_REQUESTS = 50
_FEW_REQUESTS = 5
_FEW_COPIES = 8
# Copies of a content in a sample: with so many expected, hardly a content is missed.
_SAMPLED_COPIES = 8
_MAX_SAMPLE = 8192
# Of many searches, how many records are requested for each hit, until there are enough contents.
_FACTORS = (1, 8, 64)


@dataclass(frozen=True, slots=True)
class _Ranking:
    """A search of the store for one query.

    `search` returns the best `k` records, without those of some contents, given as SHA-256s, among
    a share of the records. `copies_are_equal` says that records of equal content score equally.
    """

    search: Callable[[int, Sequence[str], float], list[Scored]]
    copies_are_equal: bool


class QueryOptions(TypedDict, total=False):
    """Options of every search of `ImageIndex`, given by name."""

    text: str
    """Words to search for in all text metadata."""
    k: int
    """The maximum number of hits, 10 by default."""
    where: Sequence[str | Condition]
    """Conditions on the metadata, such as `"year >= 2012"`; all must hold."""
    min_score: float | None
    """The minimum cosine similarity."""
    confident: bool
    """Return only hits that are hardly there by chance; often there is none."""
    collapse: bool
    """Return identical images as one hit, with the number of copies, which is the default."""


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What to search for: images, records, a vector, words in the metadata, or all of them.

    `images` are paths, the bytes of files, or Pillow images; `records` are ids. With several, the
    query is the mean of their vectors. `region` searches with a part of each image. `vector` takes
    the place of both.
    """

    images: Sequence[Source] = ()
    records: Sequence[str] = ()
    vector: Vectors | None = field(default=None, compare=False)
    """float32 of shape (dimension,), L2-normalized."""
    text: str = ""
    region: Region | None = None
    k: int = DEFAULT_K
    where: Sequence[str | Condition] = ()
    """Conditions, or texts such as `year >= 2012`; all must hold."""
    min_score: float | None = None
    """A cosine similarity."""
    confident: bool = False
    """Only hits that are hardly there by chance; see `Calibration.is_confident`."""
    exclude_self: bool = False
    """Leave out the content of `images` and `records`, however often it is stored."""
    exclude_digests: Sequence[str] = ()
    """SHA-256s of contents to leave out."""
    collapse: bool = True
    """Whether records of equal content are one hit, with the number of its copies."""

    @property
    def is_visual(self) -> bool:
        """Whether there is anything to compare with besides words."""
        return bool(self.images or self.records) or self.vector is not None

    @property
    def conditions(self) -> Sequence[Condition]:
        """`where`, once its texts have been parsed."""
        assert not any(isinstance(each, str) for each in self.where)
        return cast(Sequence[Condition], self.where)


def check_request(request: SearchRequest) -> None:
    """Raise UsageError for a request that is incomplete or contradicts itself."""
    _check_k(request)
    if request.vector is not None and (request.images or request.records):
        raise UsageError("a vector cannot be combined with images or records")
    if not request.is_visual:
        if not request.text.strip():
            raise UsageError("nothing to search for: provide an image, a record id, or text")
        if request.exclude_self or request.region:
            raise UsageError("region and exclude_self need an image or a record")
        if request.confident:
            raise UsageError("confident needs an image or a record to compare hits with")


def _check_k(request: SearchRequest) -> None:
    if request.k < 1:
        raise UsageError(f"k is {request.k}: it must be at least 1")


def parsed_request(
    collection: Collection, request: SearchRequest, listener: Listener
) -> SearchRequest:
    """Return a request for many queries, which follow, with its conditions parsed.

    Raises UsageError.
    """
    _check_k(request)
    return replace(request, where=parse_conditions(collection, request.where, listener))


def parse_conditions(
    collection: Collection, where: Sequence[str | Condition], listener: Listener
) -> list[Condition]:
    """Return conditions that fit the fields of a collection.

    The listener receives a note for each text that compares numbers as text. Raises UsageError.
    """
    given = [where] if isinstance(where, str) else list(where)
    try:
        conditions = _parsed(given, collection.fields)
    except UsageError:  # another writer may have added the field
        conditions = _parsed(given, collection.refresh_fields())
    texts = [
        condition
        for each, condition in zip(given, conditions, strict=True)
        if isinstance(each, str)
    ]
    for sentence in comparisons_of_texts(texts, collection.fields):
        listener(Note(sentence))
    return conditions


def _parsed(where: Sequence[str | Condition], fields: Mapping[str, FieldType]) -> list[Condition]:
    return [
        parse_where([each], fields)[0] if isinstance(each, str) else check_condition(each, fields)
        for each in where
    ]


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
    similarity = _by_vector(collection, vector, request)
    if request.text.strip():
        depth = max(request.k, _FUSION_DEPTH)
        similar = _distinct(collection, similarity, depth, request, enough=_depth(request))
        relevance = _by_text(collection, request)
        relevant = _distinct(collection, relevance, depth, request, enough=request.k)
        found = _fused(collection, vector, similar, relevant, request)
    else:
        similar = _distinct(collection, similarity, _depth(request), request)
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


def _depth(request: SearchRequest) -> int:
    """Return how many of the most similar records a search needs."""
    return max(request.k, calibration.NEIGHBORS) if request.confident else request.k


def _tenth(
    collection: Collection, vector: Vectors, similar: Sequence[Scored], request: SearchRequest
) -> float | None:
    """Return the score of the tenth content, with which a hit's distance is compared."""
    tenth = calibration.tenth_score([(each.record.sha256, each.score) for each in similar])
    if tenth is None and not request.collapse and len(similar) >= calibration.NEIGHBORS:
        # Copies fill the results.
        alone = replace(request, collapse=True)
        ranking = _by_vector(collection, vector, alone)
        contents = _distinct(collection, ranking, calibration.NEIGHBORS, alone)
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
    relevant = _distinct(collection, _by_text(collection, request), request.k, request)
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
    nearest = _distinct_of_many(collection, vectors, requests)
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
            key = _key(scored.record, request)
            ranks[key] = ranks.get(key, 0.0) + 1.0 / (_FUSION_CONSTANT + rank)
            records.setdefault(key, scored.record)
    scores = {_key(scored.record, request): scored.score for scored in similar}
    far = {records[key].id: key for key in records if key not in scores}
    for record_id, other in collection.vectors_by_id(list(far)).items():
        scores[far[record_id]] = min(1.0, max(-1.0, float(other @ vector)))
    texts = {_key(scored.record, request): scored.score for scored in relevant}
    # A record without a score was removed during the search.
    found = [key for key in ranks if key in scores]
    found.sort(key=lambda key: (-ranks[key], -scores[key], records[key].uri))
    return [_Found(records[key], scores[key], texts.get(key)) for key in found]


def _key(record: ImageRecord, request: SearchRequest) -> str:
    return record.sha256 if request.collapse else record.id


def _by_vector(collection: Collection, vector: Vectors, request: SearchRequest) -> _Ranking:
    def nearest(k: int, excluded: Sequence[str], share: float) -> list[Scored]:
        return collection.search(
            vector, k, request.conditions, exclude_digests=excluded, share=share
        )

    return _Ranking(nearest, copies_are_equal=True)


def _by_text(collection: Collection, request: SearchRequest) -> _Ranking:
    words = query_words(request.text)

    def relevant(k: int, excluded: Sequence[str], _: float) -> list[Scored]:
        return collection.search_text(words, k, request.conditions, exclude_digests=excluded)

    # Copies may have other words in their metadata.
    return _Ranking(relevant, copies_are_equal=False)


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


def _distinct(
    collection: Collection,
    ranking: _Ranking,
    k: int,
    request: SearchRequest,
    enough: int | None = None,
) -> list[Scored]:
    """Return at least k records, if they exist, without copies and excluded contents.

    The first request to the store excludes nothing, because searches without a filter are the
    fastest. Further requests exclude the contents with the most copies in earlier results. So the
    size of results does not depend on the number of copies. Where copies fill the results again,
    a sample of the records shows which contents have many. The number of requests is limited to
    `_MAX_REQUESTS`, or to `_FEW_REQUESTS` once `enough` records are found.
    """
    without = request.exclude_digests
    found: dict[str, Scored] = {}
    # Keys that only a sample has shown: contents with fewer copies may come before them.
    sampled: set[str] = set()
    # By content: the maximum number of its records in a result, which a further request must add.
    crowd = Counter(dict.fromkeys(without, 1))
    excluded: list[str] = []
    more = k
    for attempt in range(1, _MAX_REQUESTS + 1):
        wanted = more + crowd.total() - sum(crowd[each] for each in excluded)
        answer = ranking.search(wanted, excluded, 1.0)
        contents = Counter(scored.record.sha256 for scored in answer)
        crowd |= Counter(contents if request.collapse else {d: contents[d] for d in without})
        for scored in answer:
            if scored.record.sha256 not in without:
                found.setdefault(_key(scored.record, request), scored)
        least = answer[-1].score if answer else 0.0
        certain = sum(key not in sampled or found[key].score >= least for key in found)
        before, excluded = excluded, _most_common(crowd)
        if certain >= k or len(answer) < wanted or before == excluded:
            break
        if enough is not None and certain >= enough and attempt >= _FEW_REQUESTS:
            break
        copies = len(answer) / len(contents)
        # Larger requests pay only if copies are few; otherwise, copies fill them too.
        if request.collapse and copies <= _FEW_COPIES:
            more = min(math.ceil((k - certain) * copies), 2 * k)
        else:
            more = k
        if request.collapse and copies > _FEW_COPIES and attempt > 1 and ranking.copies_are_equal:
            for scored in _sample(collection, ranking, contents, excluded, k, request):
                if len(crowd) >= MAX_EXCLUDED_DIGESTS:
                    break
                if (digest := scored.record.sha256) not in crowd:
                    found[digest] = scored
                    sampled.add(digest)
                    crowd[digest] = 1
            excluded = _most_common(crowd)
    return sorted(found.values(), key=lambda scored: (-scored.score, scored.record.uri))


def _distinct_of_many(
    collection: Collection, vectors: Vectors, requests: Sequence[SearchRequest]
) -> list[list[Scored]]:
    """Return the results of `_distinct` for many vectors, by few requests to the store for all."""
    found: dict[int, list[Scored]] = {}
    waiting = list(range(len(requests)))
    for factor in _FACTORS:
        wanted = [
            factor * _depth(requests[at]) + len(requests[at].exclude_digests) for at in waiting
        ]
        queries = [
            VectorQuery(vectors[at], k, requests[at].conditions)
            for at, k in zip(waiting, wanted, strict=True)
        ]
        for at, k, answer in zip(waiting, wanted, collection.search_many(queries), strict=True):
            request, distinct = requests[at], dict[str, Scored]()
            for scored in answer:
                if scored.record.sha256 not in request.exclude_digests:
                    distinct.setdefault(_key(scored.record, request), scored)
            if len(distinct) >= _depth(request) or len(answer) < k:
                found[at] = list(distinct.values())
        waiting = [at for at in waiting if at not in found]
        if not waiting:
            break
    for at in waiting:  # copies of few contents fill their results
        ranking = _by_vector(collection, vectors[at], requests[at])
        found[at] = _distinct(collection, ranking, _depth(requests[at]), requests[at])
    return [found[at] for at in range(len(requests))]


def _most_common(crowd: Counter[str]) -> list[str]:
    return [each for each, _ in crowd.most_common(MAX_EXCLUDED_DIGESTS)]


def _sample(
    collection: Collection,
    ranking: _Ranking,
    contents: Counter[str],
    excluded: Sequence[str],
    k: int,
    request: SearchRequest,
) -> list[Scored]:
    """Return records of contents that have about as many copies as the most common of `contents`.

    Of such a content a few copies are in the sample, and of one with few copies mostly none.
    """
    (digest, _), *_ = contents.most_common(1)
    copies = collection.count_by_digest([digest], request.conditions).get(digest, 1)
    share = min(1.0, _SAMPLED_COPIES / copies)
    return ranking.search(min(2 * _SAMPLED_COPIES * k, _MAX_SAMPLE), excluded, share)
