"""The service behind the HTTP API and the page."""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
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
    MetadataError,
    MissingEncoderError,
    StoreError,
    UsageError,
)
from imgsearch.events import Listener, Note, ignore
from imgsearch.filters import is_field
from imgsearch.images import thumbnail_of
from imgsearch.index import ImageIndex
from imgsearch.server.capacity import MemoryBudget, Pools, RequestLoad, run
from imgsearch.server.errors import ApiError
from imgsearch.server.indexes import Indexes
from imgsearch.server.jobs.job import Job, Kind, SearchOptions
from imgsearch.server.jobs.map import MapRunner
from imgsearch.server.jobs.queue import JobQueue
from imgsearch.server.jobs.run import JobRunner
from imgsearch.server.jobs.search import SearchRunner
from imgsearch.server.maps import Maps
from imgsearch.server.media import ImageFile, open_image, read_image
from imgsearch.server.metrics import Metrics
from imgsearch.server.models import Models
from imgsearch.server.redact import Redactor
from imgsearch.server.searches import Searches
from imgsearch.server.settings import Settings
from imgsearch.server.storage import SWEEP_SECONDS, Spool, UploadStorage
from imgsearch.server.uploads import Uploads
from imgsearch.server.watcher import FolderWatcher
from imgsearch.types import CollectionInfo, ImageRecord, Value

T = TypeVar("T")

_THUMBNAIL_CACHE_BYTES = 64 << 20
# Between two attempts to reach the store at the start.
_RETRY_SECONDS = 2.0

State = Literal["starting", "ready", "draining"]
PageState = Literal["off", "starting", "ready", "failed"]


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
        self._indexes = Indexes(settings, self._models, self._pools, listener)
        self.searches = Searches(settings, self._indexes, self._models, self.metrics)
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
        self._watcher = FolderWatcher(settings, self._indexes, listener)
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

        runners: Mapping[Kind, Callable[[Job, Path, threading.Event], None]] = {
            "ingest": runner,
            "search": searcher,
            "map": MapRunner(self._indexes, settings),
        }

        def run_job(job: Job, folder: Path, stop: threading.Event) -> None:
            runners[job.kind](job, folder, stop)

        self.jobs = JobQueue(settings.jobs, run_job, settings.archives, self.redact)
        self.maps = Maps(settings, self._indexes, self.jobs, self._pools)
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
        self._watcher.start()
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
        self._watcher.stop()
        self.jobs.stop()

    async def close(self) -> None:
        if self._cleaning:
            self._cleaning.cancel()
        await asyncio.to_thread(self._watcher.close)
        await asyncio.to_thread(self.jobs.close)
        self._models.close()
        await asyncio.to_thread(self._pools.close)
        self._spool.close()
        self._indexes.close()

    # Records and their images.

    async def record(self, record_id: str, collection: str | None = None) -> ImageRecord:
        return await self._indexes.read(collection, lambda index: index.get(record_id))

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
        return await self._indexes.read(
            collection, lambda index: index.page(limit, after=after, where=where)
        )

    async def count(self, where: Sequence[str] = (), collection: str | None = None) -> int:
        """Return the number of records that meet all conditions."""
        return await self._indexes.read(collection, lambda index: index.count(where))

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

        return await self._indexes.write(collection, change)

    async def remove(self, record_id: str, collection: str | None = None) -> None:
        """Remove a record. Its file is deleted only if it was uploaded."""
        record = await self.record(record_id, collection)
        storage = self.storage

        def remove(index: ImageIndex) -> None:
            with storage.lock(storage.owner(record) or index.name):
                index.remove([record_id])
                storage.delete_file(record)

        await self._indexes.write(collection, remove)

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

        await self._indexes.read(collection, check)
        return await run(self._pools.files, self.jobs.submit, files, "", collection, search)

    async def cancel(self, job_id: str) -> Job:
        """Cancel a job. Raises ApiError."""
        return await run(self._pools.files, self.jobs.cancel, job_id)

    # Collections.

    async def info(self, collection: str | None = None) -> CollectionInfo:
        return await self._indexes.read(collection, lambda index: index.info())

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
                self.maps.delete(collection)

        await run(self._pools.write, drop)
