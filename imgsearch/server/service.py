"""The service behind the HTTP API and the page."""

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal, TypeVar

import numpy as np
from cachetools import LRUCache

from imgsearch.calibration import describe
from imgsearch.encoders.base import Encoder
from imgsearch.encoders.factory import open_encoder
from imgsearch.errors import (
    CollectionMismatchError,
    CollectionNotFoundError,
    ImageError,
    ImgsearchError,
    MetadataError,
    MissingEncoderError,
    StaleCollectionError,
    StoreError,
    UsageError,
    no_record,
)
from imgsearch.events import Event, Listener, Note, ignore
from imgsearch.filters import is_field
from imgsearch.images import thumbnail_of
from imgsearch.index import ImageIndex
from imgsearch.search import SearchRequest
from imgsearch.server.capacity import MemoryBudget, Pools, RequestLoad, run
from imgsearch.server.errors import ApiError, too_large
from imgsearch.server.indexes import Indexes
from imgsearch.server.jobs.job import Job, SearchOptions
from imgsearch.server.jobs.queue import JobQueue
from imgsearch.server.jobs.run import JobRunner
from imgsearch.server.jobs.search import SearchRunner
from imgsearch.server.media import ImageFile, open_image, read_image
from imgsearch.server.metrics import Metrics
from imgsearch.server.models import Models
from imgsearch.server.redact import Redactor
from imgsearch.server.settings import Settings
from imgsearch.server.storage import SWEEP_SECONDS, Spool, UploadStorage
from imgsearch.server.uploads import Uploads
from imgsearch.types import CollectionInfo, Hit, ImageRecord, Value

T = TypeVar("T")

_THUMBNAIL_CACHE_BYTES = 64 << 20
# Between two attempts to reach the store at the start.
_RETRY_SECONDS = 2.0

# Pages are cut out of the first hits, which every page finds again.
MAX_DEPTH = 1000
MAX_IMAGES = 16
# For each of many searches.
MAX_HITS = 100

State = Literal["starting", "ready", "draining"]
PageState = Literal["off", "starting", "ready", "failed"]


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


class Service:
    """Serves all collections of one store. Its methods are for one event loop.

    Without `collection`, a method uses the settings' collection. Methods raise the errors of
    `imgsearch.errors`, such as CollectionNotFoundError and RecordNotFoundError, and ApiError.
    """

    def __init__(
        self,
        settings: Settings,
        listener: Listener = ignore,
        encoder_opener: Callable[..., Encoder] = open_encoder,
    ) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.state: State = "starting"
        self.page: PageState = "off"
        self.in_flight = 0
        self.load = RequestLoad(settings.limits)
        self.memory = MemoryBudget(settings.limits.memory)
        """For files that endpoints read into memory."""
        self._preparing: Future[Encoder] | None = None
        self._listener = listener
        self._pools = Pools()
        self._models = Models(settings, self._pools, self.metrics, listener, encoder_opener)
        self._indexes = Indexes(settings, self._models, listener)
        # By record id, ETag of the file and side in pixels.
        self._thumbnails: LRUCache[tuple[str, str, int], bytes] = LRUCache(
            _THUMBNAIL_CACHE_BYTES, getsizeof=len
        )
        self._spool = Spool(settings.data)
        self.storage = UploadStorage(
            settings.uploads, self._spool, settings.store_timeout, lambda: self._indexes.store
        )
        self.uploads = Uploads(self._pools, self._indexes, self._models, self.storage)
        self._cleaning: asyncio.Task[None] | None = None
        self._watching: threading.Thread | None = None
        self._stop_watching = threading.Event()
        runner = JobRunner(
            self._indexes,
            self._models,
            self.storage,
            self._pools.write,
            settings.archives,
            settings.limits.body,
        )
        redactor = Redactor(settings)
        self.redact, self.redact_text = redactor.redact, redactor.redact_text
        searcher = SearchRunner(
            self._indexes,
            self._models,
            settings.archives,
            settings.limits.body,
            settings.show_paths,
        )

        def run_job(job: Job, folder: Path, stop: threading.Event) -> None:
            (searcher if job.search else runner)(job, folder, stop)

        self.jobs = JobQueue(settings.jobs, run_job, settings.archives, self.redact)
        self.metrics.set_gauges(lambda: self.in_flight, lambda: self._models.queue_size)

    # Life cycle.

    async def start(self) -> None:
        """Load the default collection and its model.

        If the collection does not exist, its model is prepared in the background. An unreachable
        store is retried until it responds. Raises EncoderError, UsageError or
        CollectionMismatchError, which waiting does not solve.
        """
        preload = asyncio.ensure_future(run(self._pools.decode, self._models.preload))
        try:
            await self._load(preload)
        finally:
            preload.cancel()
        await run(self._pools.files, self._open_spool)
        await run(self._pools.files, self.jobs.resume)
        self._cleaning = asyncio.create_task(self._clean())
        if self.settings.watch:
            self._watching = threading.Thread(target=self._watch, name="imgsearch-watch")
            self._watching.start()
        if self.state == "starting":
            self.state = "ready"

    async def _clean(self) -> None:
        """Delete unused uploads, at the start and periodically."""
        while True:
            try:
                await run(
                    self._pools.files, self.storage.sweep, stopped=lambda: self.state == "draining"
                )
            except (StoreError, OSError) as error:
                self._listener(Note(f"cannot look for unused uploads: {error}"))
            await asyncio.sleep(SWEEP_SECONDS)

    def _watch(self) -> None:
        """Keep the default collection equal to folders, until the service ends.

        The store's write lock keeps it and jobs from writing at the same time.
        """
        index = self._indexes.create(self.settings.collection)
        while not self._stop_watching.is_set():
            try:
                index.watch(
                    *self.settings.watch,
                    prune=self.settings.watch_prune,
                    listener=self._listen_to_watch,
                    stop=self._stop_watching,
                )
            except ImgsearchError as error:  # of the first ingest, such as an unreachable store
                self._listener(Note(f"watching: {error}; trying again"))
                self._stop_watching.wait(_RETRY_SECONDS)

    def _listen_to_watch(self, event: Event) -> None:
        if isinstance(event, Note):
            self._listener(event)

    async def _load(self, preload: "asyncio.Future[None]") -> None:
        reported = False
        while True:
            try:
                index = await run(self._pools.store, self._warm_up)
                await preload
                loading = self._models.get(index.collection.stamp)
                await asyncio.wrap_future(loading)
            except CollectionNotFoundError:
                self._preparing = self._models.get(None)
                self._preparing.add_done_callback(self._report_failure)
                return
            except MissingEncoderError as error:
                self._listener(Note(f"no search by image: {error}"))
                return
            except CollectionMismatchError:
                raise
            except StoreError as error:
                if not reported:
                    self._listener(Note(f"{error}; retrying until it responds"))
                reported = True
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return

    def _report_failure(self, preparing: "Future[Encoder]") -> None:
        """Report a model that cannot be prepared; the next upload tries again."""
        if error := preparing.exception():
            self._listener(Note(f"the model for new collections cannot be used: {error}"))

    @property
    def readiness(self) -> str:
        """`ready`, or what the service does before that."""
        if self.state == "ready" and self._preparing and not self._preparing.done():
            return "preparing the model"
        return self.state

    def _warm_up(self) -> ImageIndex:
        """Return the default collection, after a search has loaded what the first one needs."""
        index = self._indexes.get(self.settings.collection)
        dimension = index.collection.stamp.dimension
        index.search_vector(np.full(dimension, dimension**-0.5, dtype=np.float32), k=1)
        return index

    def _open_spool(self) -> None:
        """Remove the spool of a killed service; uploads report errors."""
        with suppress(ApiError):
            self._spool.folder  # noqa: B018 - creates it

    def drain(self) -> None:
        """Accept no new requests, and finish those in progress. The next start resumes jobs."""
        self.state = "draining"
        self._stop_watching.set()
        self.jobs.stop()

    async def close(self) -> None:
        if self._cleaning:
            self._cleaning.cancel()
        self._stop_watching.set()
        if self._watching:
            await asyncio.to_thread(self._watching.join)
        await asyncio.to_thread(self.jobs.close)
        self._models.close()
        await asyncio.to_thread(self._pools.close)
        self._spool.close()
        self._indexes.close()

    # Records and their images.

    async def search(
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
            request = await self._read(
                collection, lambda index: self._with_record_images(index, request)
            )
        try:
            name, model, hits = await self._find(request, collection)
        except StaleCollectionError:  # replaced between the steps of this search
            name, model, hits = await self._find(request, collection)
        return SearchResult(name, model, time.perf_counter() - started, hits[offset:])

    def check_queries(self, number: int) -> None:
        """Raise ApiError for more queries than a request may have, UsageError for none."""
        most = self.settings.limits.queries
        if number > most:
            raise too_large(
                f"a request may have {most:,} queries (--max-queries), and this one has "
                f"{number:,}: send several requests, or submit a job"
            )
        if not number:
            raise UsageError("nothing to search for: provide images or record ids")

    async def search_many(
        self, queries: Sequence[Query], request: SearchRequest, collection: str | None = None
    ) -> ManyResults:
        """Search for each query with the options of `request`, by one search of the store.

        Raises UsageError, StoreError, EncoderError or ApiError.
        """
        self.check_queries(len(queries))
        started = time.perf_counter()
        try:
            name, model, found = await self._find_many(queries, request, collection)
        except StaleCollectionError:  # replaced between the steps of this search
            name, model, found = await self._find_many(queries, request, collection)
        return ManyResults(name, model, time.perf_counter() - started, found)

    async def _find_many(
        self, queries: Sequence[Query], request: SearchRequest, collection: str | None
    ) -> tuple[str, str, list[list[Hit] | ImgsearchError]]:
        stamp = await self._read(collection, lambda index: index.collection.stamp)
        model = None
        if any(each.image is not None for each in queries):
            model = await self._models.wait(stamp)
        # As many as a batch, so that the images of other requests do not wait for all.
        turns = asyncio.Semaphore(self.settings.batch_size)

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
            with self.metrics.stage("search"):
                answers = index.find_many(requests, stamp=stamp)
            if requests and not any(answers):
                _check_loaded(index, request)
            hits = iter(answers)
            return [each if isinstance(each, ImgsearchError) else next(hits) for each in found]

        found = await self._read(collection, find)
        return collection or self.settings.collection, stamp.model, found

    def _with_record_images(self, index: ImageIndex, request: SearchRequest) -> SearchRequest:
        """Replace records by their images: a stored vector is that of the whole image."""
        records = [index.get(each) for each in request.records]
        images = [read_image(each, self.settings.limits.body) for each in records]
        return replace(request, images=[*images, *request.images], records=())

    async def _find(
        self, request: SearchRequest, collection: str | None
    ) -> tuple[str, str, list[Hit]]:
        """Return the names of collection and model, and the hits."""
        stamp = vectors = None
        if request.images:
            stamp = await self._read(collection, lambda index: index.collection.stamp)
            model = await self._models.wait(stamp)
            encoded = await asyncio.gather(
                *(self._models.encode(each, model, request.region) for each in request.images)
            )
            vectors = np.stack([vector for _, vector in encoded])

        def find(index: ImageIndex) -> tuple[str, str, list[Hit]]:
            with self.metrics.stage("search"):
                hits = index.find(request, stamp=stamp, encoded=vectors)
            if not hits:
                _check_loaded(index, request)
            return index.name, index.collection.stamp.model, hits

        return await self._read(collection, find)

    async def record(self, record_id: str, collection: str | None = None) -> ImageRecord:
        return await self._read(collection, lambda index: index.get(record_id))

    async def records(
        self,
        collection: str | None = None,
        *,
        limit: int,
        after: str = "",
        where: Sequence[str] = (),
    ) -> list[ImageRecord]:
        """Return the first `limit` records by id, after the id `after`, that meet all conditions.

        Added or removed records do not shift the other pages.
        """
        return await self._read(
            collection, lambda index: index.page(limit, after=after, where=where)
        )

    async def count(self, where: Sequence[str] = (), collection: str | None = None) -> int:
        """Return the number of records that meet all conditions."""
        return await self._read(collection, lambda index: index.count(where))

    async def open_image(self, record: ImageRecord) -> ImageFile:
        """Open the file of a record. Raises ApiError; see `media.open_image`."""
        return await run(self._pools.files, open_image, record)

    async def read_image(self, record: ImageRecord) -> bytes:
        """Return the content of a record's file. Raises ApiError, also if it is too large."""
        return await run(self._pools.files, read_image, record, self.settings.limits.body)

    async def thumbnail(self, record: ImageRecord, side: int) -> tuple[bytes, ImageFile]:
        """Return a WebP of at most `side` pixels, and its original file, closed."""
        image = await self.open_image(record)
        image.file.close()
        key = (record.id, image.etag, side)
        cached = self._thumbnails.get(key)
        if cached is None:
            max_pixels = self.settings.limits.pixels
            cached = await run(self._pools.decode, thumbnail_of, record, side, max_pixels)
            self._thumbnails[key] = cached
        return cached, image

    async def set_metadata(
        self, record_id: str, changes: Mapping[str, Value | None], collection: str | None = None
    ) -> ImageRecord:
        """Change a record's metadata, and return the record.

        Raises MetadataError for a value of another type than its field's, and for a new field
        whose name no condition could express.
        """

        def change(index: ImageIndex) -> ImageRecord:
            for name in changes.keys() - index.fields.keys():
                if not is_field(name):
                    raise MetadataError(f"no condition can express a field named {name!r}")
            return index.set_metadata(record_id, changes)

        return await self._write(collection, change)

    async def remove(self, record_id: str, collection: str | None = None) -> None:
        """Remove a record. Its file is deleted only if it was uploaded."""
        record = await self.record(record_id, collection)
        storage = self.storage

        def remove(index: ImageIndex) -> None:
            with storage.lock(storage.owner(record) or index.name):
                index.remove([record_id])
                storage.delete_file(record)

        await self._write(collection, remove)

    async def submit(
        self, files: Sequence[tuple[str, BinaryIO]], description: str, collection: str
    ) -> Job:
        """Create a job for files (names and contents), which are images or zips of images."""
        return await run(self._pools.files, self.jobs.submit, files, description, collection)

    async def submit_search(
        self, files: Sequence[tuple[str, BinaryIO]], search: SearchOptions, collection: str
    ) -> Job:
        """Create a job that searches with each of some files (names and contents).

        Raises UsageError for an invalid condition or an unknown field.
        """

        def check(index: ImageIndex) -> None:
            known = index.fields
            index.page(1, where=search.where)
            for name in search.show:
                if name not in known:
                    has = ", ".join(known) or "none"
                    raise UsageError(f"there is no field {name}; the collection has {has}")

        await self._read(collection, check)
        return await run(self._pools.files, self.jobs.submit, files, "", collection, search)

    async def cancel(self, job_id: str) -> Job:
        """Cancel a job. Raises ApiError."""
        return await run(self._pools.files, self.jobs.cancel, job_id)

    # Collections.

    async def info(self, collection: str | None = None) -> CollectionInfo:
        return await self._read(collection, lambda index: index.info())

    async def infos(self) -> list[CollectionInfo]:
        """Return the information of all collections, by name."""

        def read() -> list[CollectionInfo]:
            store = self._indexes.store
            return [describe(store.open(name)) for name in store.names()]

        return await run(self._pools.store, read)

    async def drop(self, collection: str) -> None:
        """Drop a collection, and delete its uploads except those that a copy of it uses.

        Raises ApiError while jobs write to it. Later uploads create a new collection.
        """

        def drop() -> None:
            with self.storage.lock(collection):
                # Here, as a job may have been submitted while this waited for the lock.
                self.jobs.check_idle(collection)
                self._indexes.forget(collection)
                self._indexes.store.drop(collection)
                self.storage.delete_all(collection)

        await run(self._pools.write, drop)

    async def _read(self, collection: str | None, action: Callable[[ImageIndex], T]) -> T:
        name = collection or self.settings.collection
        return await run(self._pools.store, lambda: action(self._indexes.get(name)))

    async def _write(self, collection: str | None, action: Callable[[ImageIndex], T]) -> T:
        name = collection or self.settings.collection
        return await run(self._pools.write, lambda: action(self._indexes.get(name)))


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
