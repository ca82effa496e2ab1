"""Search requests: query images are encoded in batches with those of other requests."""

import hashlib
import time
from dataclasses import dataclass, field, replace

import numpy as np

from imgsearch.encoders.base import Vectors
from imgsearch.errors import StaleCollectionError, StoreError, UsageError
from imgsearch.index import ImageIndex
from imgsearch.search import SearchRequest, mean, stored_vectors
from imgsearch.server.encoding import ImageEncoder
from imgsearch.server.indexes import Indexes
from imgsearch.server.media import read_image
from imgsearch.server.metrics import Metrics
from imgsearch.server.pools import Pools, run
from imgsearch.server.settings import Settings
from imgsearch.types import Hit, Stamp

# Pages are cut out of the first hits, which every page finds again.
MAX_DEPTH = 1000
MAX_IMAGES = 16


@dataclass(frozen=True, slots=True)
class SearchResult:
    """`seconds` is the duration of the search."""

    collection: str
    model: str
    seconds: float
    hits: list[Hit] = field(default_factory=list)


class Searcher:
    """Runs search requests. For one event loop."""

    def __init__(
        self,
        settings: Settings,
        indexes: Indexes,
        encoder: ImageEncoder,
        pools: Pools,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._indexes = indexes
        self._encoder = encoder
        self._pools = pools
        self._metrics = metrics

    async def search(
        self, request: SearchRequest, collection: str, offset: int = 0
    ) -> SearchResult:
        """Return the `request.k` hits after the first `offset` ones.

        `request.images` are the contents of files. Raises ImageError, UsageError, StoreError,
        EncoderError or ApiError.
        """
        _check(request, offset)
        started = time.perf_counter()
        request = replace(request, k=offset + request.k)
        index = await run(self._pools.store, self._indexes.get, collection)
        if request.region and request.records:
            request = await run(self._pools.store, self._with_record_images, index, request)
        try:
            model, hits = await self._find(index, request)
        except StaleCollectionError:  # replaced between the steps of this search
            model, hits = await self._find(index, request)
        return SearchResult(index.name, model, time.perf_counter() - started, hits[offset:])

    def _with_record_images(self, index: ImageIndex, request: SearchRequest) -> SearchRequest:
        """Replace records by their images: a stored vector is that of the whole image."""
        records = [index.get(each) for each in request.records]
        images = [read_image(each, self._settings.limits.body) for each in records]
        return replace(request, images=[*images, *request.images], records=())

    async def _find(self, index: ImageIndex, request: SearchRequest) -> tuple[str, list[Hit]]:
        """Return the model's name and the hits."""
        stamp = None
        query = request
        if request.is_visual:
            stamp = await run(self._pools.store, lambda: index.collection.stamp)
            query = await self._encode(index, stamp, request)

        def find() -> tuple[str, list[Hit]]:
            with self._metrics.stage("search"):
                hits = index.find(query, stamp=stamp)
            if not hits:
                _check_loaded(index, request)
            return index.collection.stamp.model, hits

        return await run(self._pools.store, find)

    async def _encode(
        self, index: ImageIndex, stamp: Stamp, request: SearchRequest
    ) -> SearchRequest:
        """Replace images and records by the mean of their vectors."""
        files = [each for each in request.images if isinstance(each, bytes)]
        vectors: list[Vectors] = []
        digests: list[str] = []
        if request.records:
            stored, digests = await run(
                self._pools.store, lambda: stored_vectors(index.collection, request.records)
            )
            vectors.append(stored)
        if files:
            model = await self._indexes.models.wait(stamp)
            vectors.append(await self._encoder.encode_all(files, model, request.region))
            digests += [hashlib.sha256(each).hexdigest() for each in files]
        return replace(
            request,
            images=(),
            records=(),
            region=None,
            vector=mean(np.concatenate(vectors)),
            exclude_self=False,
            exclude_digests=digests if request.exclude_self else (),
        )


def _check(request: SearchRequest, offset: int) -> None:
    if not (request.is_visual or request.text.strip()):
        raise UsageError("nothing to search for: provide an image, a record id, or text")
    if not request.is_visual and (request.region or request.exclude_self):
        raise UsageError("region and exclude_self need an image or a record")
    if len(request.images) + len(request.records) > MAX_IMAGES:
        raise UsageError(f"a search can combine at most {MAX_IMAGES} images")
    if offset + request.k > MAX_DEPTH:
        raise UsageError(f"offset + k: at most {MAX_DEPTH:,} hits can be paged through")


def _check_loaded(index: ImageIndex, request: SearchRequest) -> None:
    """Raise StoreError if the search must have found something.

    A store server that has just restarted finds nothing until its index is loaded.
    """
    narrowed = request.where or request.min_score is not None or request.exclude_self
    if not (narrowed or request.text) and index.count():
        raise StoreError(
            f"collection {index.name} has records, but its index finds none: the store is still "
            "loading it; if that persists, ingest the images again"
        )
