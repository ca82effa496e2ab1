"""Searches of the service: query images are encoded in batches with those of other requests."""

import asyncio
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from imgsearch.errors import (
    ImageError,
    ImgsearchError,
    StaleCollectionError,
    StoreError,
    UsageError,
    no_record,
)
from imgsearch.index import ImageIndex
from imgsearch.search import SearchRequest
from imgsearch.server.errors import too_large
from imgsearch.server.indexes import Indexes
from imgsearch.server.media import read_image
from imgsearch.server.metrics import Metrics
from imgsearch.server.models import Models
from imgsearch.server.settings import Settings
from imgsearch.types import Hit

# Pages are cut out of the first hits, which every page finds again.
MAX_DEPTH = 1000
MAX_IMAGES = 16
# For each of many searches.
MAX_HITS = 100


@dataclass(frozen=True, slots=True)
class SearchResult:
    """`seconds` is the duration of the search."""

    collection: str
    model: str
    seconds: float
    hits: list[Hit]


@dataclass(frozen=True, slots=True)
class Query:
    """One search of many: a client's file or a record's id, by `name`; `image` is its content."""

    name: str
    image: bytes | None = None


@dataclass(frozen=True, slots=True)
class ManyResults:
    """For each query its hits, or why it could not be searched for."""

    collection: str
    model: str
    seconds: float
    found: list[list[Hit] | ImgsearchError]


class Searches:
    """Searches collections, one query or many at once, for one event loop."""

    def __init__(
        self, settings: Settings, indexes: Indexes, models: Models, metrics: Metrics
    ) -> None:
        self._settings = settings
        self._indexes = indexes
        self._models = models
        self._metrics = metrics

    async def find(
        self, request: SearchRequest, collection: str | None = None, *, offset: int = 0
    ) -> SearchResult:
        """Return the `request.k` hits after the first `offset` ones.

        `request.images` are the contents of files, which are encoded in batches with those of other
        requests. Raises ImageError, UsageError, StoreError, EncoderError or ApiError.
        """
        if len(request.images) + len(request.records) > MAX_IMAGES:
            raise UsageError(f"a search can combine at most {MAX_IMAGES} images")
        if offset + request.k > MAX_DEPTH:
            raise UsageError(f"offset + k: at most {MAX_DEPTH:,} hits can be paged through")
        started = time.perf_counter()
        request = replace(request, k=offset + request.k)
        if request.region and request.records:
            request = await self._indexes.read(
                collection, lambda index: self._with_record_images(index, request)
            )
        try:
            name, model, hits = await self._find_hits(request, collection)
        except StaleCollectionError:  # replaced between the steps of this search
            name, model, hits = await self._find_hits(request, collection)
        return SearchResult(name, model, time.perf_counter() - started, hits[offset:])

    def check_number(self, number: int) -> None:
        """Raise ApiError for more queries than a request may have, UsageError for none."""
        most = self._settings.limits.queries
        if number > most:
            raise too_large(
                f"a request may have {most:,} queries (--max-queries), and this one has "
                f"{number:,}: send several requests, or submit a job"
            )
        if not number:
            raise UsageError("nothing to search for: provide images or record ids")

    async def find_many(
        self, queries: Sequence[Query], request: SearchRequest, collection: str | None = None
    ) -> ManyResults:
        """Search for each query with the options of `request`, by one search of the store.

        Raises UsageError, StoreError, EncoderError or ApiError.
        """
        self.check_number(len(queries))
        started = time.perf_counter()
        try:
            name, model, found = await self._find_all(queries, request, collection)
        except StaleCollectionError:  # replaced between the steps of this search
            name, model, found = await self._find_all(queries, request, collection)
        return ManyResults(name, model, time.perf_counter() - started, found)

    async def _find_all(
        self, queries: Sequence[Query], request: SearchRequest, collection: str | None
    ) -> tuple[str, str, list[list[Hit] | ImgsearchError]]:
        stamp = await self._indexes.read(collection, lambda index: index.collection.stamp)
        model = None
        if any(each.image is not None for each in queries):
            model = await self._models.wait(stamp)
        # As many as a batch, so that the images of other requests do not wait for all.
        turns = asyncio.Semaphore(self._settings.batch_size)

        async def prepare(query: Query) -> SearchRequest | ImgsearchError:
            if query.image is None:
                return replace(request, records=[query.name])
            assert model is not None
            async with turns:
                try:
                    _, vector = await self._models.encode(query.image, model)
                except ImageError as error:
                    return error
            excluded = [hashlib.sha256(query.image).hexdigest()] if request.exclude_self else []
            return replace(request, vector=vector, exclude_digests=excluded)

        prepared = await asyncio.gather(*map(prepare, queries))

        def find(index: ImageIndex) -> list[list[Hit] | ImgsearchError]:
            ids = [each.name for each in queries if each.image is None]
            known = index.get_many(ids) if ids else {}
            found: list[list[Hit] | ImgsearchError] = []
            requests: list[SearchRequest] = []
            for query, each in zip(queries, prepared, strict=True):
                if isinstance(each, ImgsearchError):
                    found.append(each)
                elif query.image is None and query.name not in known:
                    found.append(no_record(index.name, query.name))
                else:
                    found.append([])
                    requests.append(each)
            with self._metrics.stage("search"):
                answers = index.find_many(requests, stamp=stamp)
            if requests and not any(answers):
                _check_loaded(index, request)
            hits = iter(answers)
            return [each if isinstance(each, ImgsearchError) else next(hits) for each in found]

        found = await self._indexes.read(collection, find)
        return collection or self._settings.collection, stamp.model, found

    def _with_record_images(self, index: ImageIndex, request: SearchRequest) -> SearchRequest:
        """Replace records by their images: a stored vector is that of the whole image."""
        records = [index.get(each) for each in request.records]
        images = [read_image(each, self._settings.limits.body) for each in records]
        return replace(request, images=[*images, *request.images], records=())

    async def _find_hits(
        self, request: SearchRequest, collection: str | None
    ) -> tuple[str, str, list[Hit]]:
        """Return the names of collection and model, and the hits."""
        stamp = vectors = None
        if request.images:
            stamp = await self._indexes.read(collection, lambda index: index.collection.stamp)
            model = await self._models.wait(stamp)
            encoded = await asyncio.gather(
                *(self._models.encode(each, model, request.region) for each in request.images)
            )
            vectors = np.stack([vector for _, vector in encoded])

        def find(index: ImageIndex) -> tuple[str, str, list[Hit]]:
            with self._metrics.stage("search"):
                hits = index.find(request, stamp=stamp, encoded=vectors)
            if not hits:
                _check_loaded(index, request)
            return index.name, index.collection.stamp.model, hits

        return await self._indexes.read(collection, find)


def _check_loaded(index: ImageIndex, request: SearchRequest) -> None:
    """Raise StoreError if the search must have found something.

    A store server that has just restarted finds nothing until its index is loaded.
    """
    cut = request.min_score is not None or request.confident
    narrowed = request.where or cut or request.exclude_self
    if not (narrowed or request.text) and index.count():
        raise StoreError(
            f"collection {index.name} has records, but its index finds none: the store is still "
            "loading it; if that persists, ingest the images again"
        )
