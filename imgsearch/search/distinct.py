"""Rankings of a collection without copies: as many contents as asked for, by few requests."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from imgsearch import calibration
from imgsearch.encoders.base import Vectors
from imgsearch.search.request import SearchRequest
from imgsearch.stores.base import MAX_EXCLUDED_DIGESTS, Collection, VectorQuery
from imgsearch.text import query_words
from imgsearch.types import ImageRecord, Scored

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
class Ranking:
    """A search of the store for one query.

    `search` returns the best `k` records, without those of some contents, given as SHA-256s, among
    a share of the records. `copies_are_equal` says that records of equal content score equally.
    """

    search: Callable[[int, Sequence[str], float], list[Scored]]
    copies_are_equal: bool


def record_key(record: ImageRecord, request: SearchRequest) -> str:
    return record.sha256 if request.collapse else record.id


def by_vector(collection: Collection, vector: Vectors, request: SearchRequest) -> Ranking:
    def nearest(k: int, excluded: Sequence[str], share: float) -> list[Scored]:
        return collection.search(
            vector, k, request.conditions, exclude_digests=excluded, share=share
        )

    return Ranking(nearest, copies_are_equal=True)


def by_text(collection: Collection, request: SearchRequest) -> Ranking:
    words = query_words(request.text)

    def relevant(k: int, excluded: Sequence[str], _: float) -> list[Scored]:
        return collection.search_text(words, k, request.conditions, exclude_digests=excluded)

    # Copies may have other words in their metadata.
    return Ranking(relevant, copies_are_equal=False)


def depth_of(request: SearchRequest) -> int:
    """Return how many of the most similar records a search needs."""
    return max(request.k, calibration.NEIGHBORS) if request.confident else request.k


def without_copies(
    collection: Collection,
    ranking: Ranking,
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
                found.setdefault(record_key(scored.record, request), scored)
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


def many_without_copies(
    collection: Collection, vectors: Vectors, requests: Sequence[SearchRequest]
) -> list[list[Scored]]:
    """Return the results of `without_copies` for many vectors, by few requests to the store."""
    found: dict[int, list[Scored]] = {}
    waiting = list(range(len(requests)))
    for factor in _FACTORS:
        wanted = [
            factor * depth_of(requests[at]) + len(requests[at].exclude_digests) for at in waiting
        ]
        queries = [
            VectorQuery(vectors[at], k, requests[at].conditions)
            for at, k in zip(waiting, wanted, strict=True)
        ]
        for at, k, answer in zip(waiting, wanted, collection.search_many(queries), strict=True):
            request, distinct = requests[at], dict[str, Scored]()
            for scored in answer:
                if scored.record.sha256 not in request.exclude_digests:
                    distinct.setdefault(record_key(scored.record, request), scored)
            if len(distinct) >= depth_of(request) or len(answer) < k:
                found[at] = list(distinct.values())
        waiting = [at for at in waiting if at not in found]
        if not waiting:
            break
    for at in waiting:  # copies of few contents fill their results
        ranking = by_vector(collection, vectors[at], requests[at])
        found[at] = without_copies(collection, ranking, depth_of(requests[at]), requests[at])
    return [found[at] for at in range(len(requests))]


def _most_common(crowd: Counter[str]) -> list[str]:
    return [each for each, _ in crowd.most_common(MAX_EXCLUDED_DIGESTS)]


def _sample(
    collection: Collection,
    ranking: Ranking,
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
