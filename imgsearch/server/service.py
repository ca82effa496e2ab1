"""The service: questions in, hits out, for many clients at once. HTTP and the page stand on it."""

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import BinaryIO, Literal, TypeVar

import numpy as np

from imgsearch.encoders.base import Encoder, Vectors
from imgsearch.encoders.factory import open_encoder
from imgsearch.errors import (
    CollectionMismatchError,
    CollectionNotFoundError,
    ImgsearchError,
    MetadataError,
    RecordNotFoundError,
    StaleCollectionError,
    StoreError,
    UsageError,
)
from imgsearch.events import Listener, Note, ignore
from imgsearch.filters import is_field
from imgsearch.images import thumbnail_of
from imgsearch.index import ImageIndex
from imgsearch.search import mean
from imgsearch.server.budget import Budget
from imgsearch.server.encoding import Encoding
from imgsearch.server.errors import RefusedError
from imgsearch.server.indexes import Indexes
from imgsearch.server.jobs.job import Job
from imgsearch.server.jobs.queue import Jobs
from imgsearch.server.jobs.run import JobRunner
from imgsearch.server.media.originals import PictureFile, open_picture, read_picture
from imgsearch.server.media.thumbnails import Thumbnails
from imgsearch.server.metrics import Metrics
from imgsearch.server.middleware.arrivals import Arrivals
from imgsearch.server.pools import Pools, run
from imgsearch.server.redact import Privacy
from imgsearch.server.requests import MAX_DEPTH, MAX_PICTURES, Answer, Question
from imgsearch.server.settings import Settings
from imgsearch.server.spool import Spool
from imgsearch.server.storage_cleanup import SWEEP_SECONDS, UnusedFiles
from imgsearch.server.uploads import Uploads
from imgsearch.types import CollectionInfo, Hit, ImageRecord, Value

T = TypeVar("T")

# After which a store that is not there at the start is asked again.
_RETRY_SECONDS = 2.0

State = Literal["starting", "ready", "draining"]
PageState = Literal["off", "starting", "ready", "failed"]


class Service:
    """Answers for every collection of one store. Its methods are for one event loop.

    Where `collection` is left out it is the one that the settings name. Methods raise the errors of
    `imgsearch.errors`, CollectionNotFoundError and RecordNotFoundError among them.
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
        self.arrivals = Arrivals(settings.limits)
        self.reading = Budget(settings.limits.memory)
        """The memory of files that are read whole to be searched with or to be kept."""
        self._preparing: Future[Encoder] | None = None
        self._listener = listener
        self._pools = Pools()
        self._indexes = Indexes(settings, listener, encoder_opener)
        self._encoding = Encoding(settings, self._pools, self.metrics)
        self._thumbnails = Thumbnails()
        self._spool = Spool(settings.data)
        self.uploads = Uploads(settings, self._pools, self._indexes, self._encoding, self._spool)
        self.unused_files = UnusedFiles(
            self.uploads.files, lambda: self._indexes.store, lambda: self.state == "draining"
        )
        self._cleaning: asyncio.Task[None] | None = None
        runner = JobRunner(
            self._indexes,
            self.uploads.files,
            self._pools.write,
            settings.archives,
            settings.limits.body,
        )
        self._privacy = Privacy(settings)
        self.jobs = Jobs(settings.jobs, runner, settings.archives, self._privacy.told)
        self.metrics.watch(lambda: self.in_flight, lambda: self._encoding.waiting)

    # Its life.

    async def start(self) -> None:
        """Load the default collection and its model.

        Where there is none yet, the model for it is prepared in the background. A store that is
        not reached is asked again until it is. Raises EncoderError, UsageError or
        CollectionMismatchError: what waiting does not help.
        """
        guess = asyncio.ensure_future(run(self._pools.decode, self._indexes.models.guess))
        try:
            await self._load(guess)
        finally:
            guess.cancel()
        await run(self._pools.files, self._open_spool)
        await run(self._pools.files, self.jobs.resume)
        self._cleaning = asyncio.create_task(self._clean())
        if self.state == "starting":
            self.state = "ready"

    async def _clean(self) -> None:
        """Delete uploaded files that have become unused, at the start and now and then."""
        while True:
            try:
                await run(self._pools.files, self.unused_files.sweep)
            except (StoreError, OSError) as error:
                self._listener(Note(f"unused uploads are not looked for: {error}"))
            await asyncio.sleep(SWEEP_SECONDS)

    async def _load(self, guess: "asyncio.Future[None]") -> None:
        told = False
        while True:
            try:
                index = await run(self._pools.store, self._warmed_up)
                await guess
                loading = self._indexes.models.of(index.collection.stamp)
                await asyncio.wrap_future(loading)
            except CollectionNotFoundError:
                self._preparing = self._indexes.models.of(None)
                self._preparing.add_done_callback(self._tell_failure)
                return
            except CollectionMismatchError:
                raise
            except StoreError as error:
                if not told:
                    self._listener(Note(f"{error}; trying again until it is there"))
                told = True
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return

    def _tell_failure(self, preparing: "Future[Encoder]") -> None:
        """The next upload tries again."""
        if error := preparing.exception():
            self._listener(Note(f"the model for new collections cannot be used: {error}"))

    @property
    def readiness(self) -> str:
        """`ready`, or what the service is doing before that."""
        if self.state == "ready" and self._preparing and not self._preparing.done():
            return "preparing the model"
        return self.state

    def _warmed_up(self) -> ImageIndex:
        """The default collection, after what the first search needs has been read in."""
        index = self._indexes.of(self.settings.collection)
        dimension = index.collection.stamp.dimension
        index.search_vector(np.full(dimension, dimension**-0.5, dtype=np.float32), k=1)
        return index

    def _open_spool(self) -> None:
        """Remove what a killed service left; uploads tell what goes wrong."""
        with suppress(RefusedError):
            self._spool.folder  # noqa: B018 - it is created

    def drain(self) -> None:
        """Take no new requests; those under way are finished. Jobs stop, and go on next time."""
        self.state = "draining"
        self.jobs.stop()

    async def close(self) -> None:
        if self._cleaning:
            self._cleaning.cancel()
        await asyncio.to_thread(self.jobs.close)
        self._encoding.close()
        await asyncio.to_thread(self._pools.close)
        self._spool.close()
        self._indexes.close()

    # Searching.

    async def search(self, question: Question, collection: str | None = None) -> Answer:
        """Raises ImageError, UsageError, StoreError or EncoderError."""
        _check(question)
        started = time.perf_counter()
        question = await self._with_parts(question, collection)
        index = await self._index(collection)
        try:
            model, hits = await self._find(index, question)
        except StaleCollectionError:  # replaced between the steps of this very search
            model, hits = await self._find(index, question)
        seconds = time.perf_counter() - started
        return Answer(index.name, model, seconds, hits[question.offset :])

    async def _with_parts(self, question: Question, collection: str | None) -> Question:
        """A part of a record's picture has to be encoded: its vector is that of the whole."""
        if not (question.region and question.records):
            return question
        records = [await self.record(each, collection) for each in question.records]
        parts = [await self.read_picture(each) for each in records]
        return replace(question, pictures=[*parts, *question.pictures], records=[])

    async def _find(self, index: ImageIndex, question: Question) -> tuple[str, list[Hit]]:
        if not question.pictures and not question.records:
            return await self._search(index, question, index.search)
        stamp = await run(self._pools.store, lambda: index.collection.stamp)
        vectors: list[Vectors] = []
        digests: list[str] = []
        if question.records:
            known, digests = await run(self._pools.store, _stored, index, question.records)
            vectors.append(known)
        if question.pictures:
            encoder = await self._indexes.models.ready(stamp)
            vectors.append(
                await self._encoding.vectors(question.pictures, encoder, question.region)
            )
            digests += [hashlib.sha256(each).hexdigest() for each in question.pictures]
        by_vector = partial(
            index.search_vector,
            mean(np.concatenate(vectors)),
            stamp=stamp,
            without=digests if question.exclude_self else (),
        )
        return await self._search(index, question, by_vector)

    async def _search(
        self, index: ImageIndex, question: Question, search: Callable[..., list[Hit]]
    ) -> tuple[str, list[Hit]]:
        """The model's name, and hits by what the pictures and words have in common."""

        def find() -> tuple[str, list[Hit]]:
            with self.metrics.stage("search"):
                hits = search(
                    text=question.text,
                    k=question.offset + question.k,
                    where=question.where,
                    min_score=question.min_score,
                    collapse=not question.copies,
                )
            if not hits:
                _check_loaded(index, question)
            return index.collection.stamp.model, hits

        return await run(self._pools.store, find)

    # Records and their pictures.

    async def record(self, record_id: str, collection: str | None = None) -> ImageRecord:
        return await self._on(collection, lambda index: index.get(record_id))

    async def records(
        self,
        collection: str | None = None,
        *,
        limit: int,
        after: str = "",
        where: Sequence[str] = (),
    ) -> list[ImageRecord]:
        """The first `limit` records by id that come after the id `after` and meet all conditions.

        So pages do not shift when records come and go.
        """
        return await self._on(collection, lambda index: index.page(limit, after=after, where=where))

    async def count(self, where: Sequence[str] = (), collection: str | None = None) -> int:
        """How many records meet all conditions."""
        return await self._on(collection, lambda index: index.count(where))

    async def open_picture(self, record: ImageRecord) -> PictureFile:
        """The open file of a record.

        Raises RefusedError if it is gone, or is no longer the image that was indexed.
        """
        return await run(self._pools.files, open_picture, record)

    async def read_picture(self, record: ImageRecord) -> bytes:
        """The file of a record, whole. Raises RefusedError, also if it is too large."""
        return await run(self._pools.files, read_picture, record, self.settings.limits.body)

    async def thumbnail(self, record: ImageRecord, side: int) -> tuple[bytes, PictureFile]:
        """A WebP of at most `side` pixels, and the file (closed) that it is of."""
        picture = await self.open_picture(record)
        picture.file.close()
        key = (record.id, picture.etag, side)

        def make() -> bytes:
            return thumbnail_of(record, side, self.settings.limits.pixels)

        known = self._thumbnails.get(key)
        if known is None:
            known = await run(self._pools.decode, make)
            self._thumbnails.put(key, known)
        return known, picture

    async def set_metadata(
        self, record_id: str, changes: Mapping[str, Value | None], collection: str | None = None
    ) -> ImageRecord:
        """Raises MetadataError for a value that is not of its field's type, and for a new field of
        a name that no condition could have.
        """

        def change(index: ImageIndex) -> ImageRecord:
            for name in changes.keys() - index.fields.keys():
                if not is_field(name):
                    raise MetadataError(f"no condition could be written on a field named {name!r}")
            return index.set_metadata(record_id, changes)

        return await self._write(collection, change)

    async def remove(self, record_id: str, collection: str | None = None) -> None:
        """Forget a record. The file stays, unless it came by an upload."""
        record = await self.record(record_id, collection)

        def forget(index: ImageIndex) -> None:
            with self.uploads.files.turn(self.uploads.files.collection_of(record) or index.name):
                index.remove([record_id])
                self.unused_files.delete_of(record)

        await self._write(collection, forget)

    async def submit(
        self, files: Sequence[tuple[str, BinaryIO]], description: str, collection: str
    ) -> Job:
        """Take files (names and contents), pictures or zips of pictures, in for a job."""
        return await run(self._pools.files, self.jobs.submit, files, description, collection)

    async def cancel(self, job_id: str) -> Job:
        """Let a job end soon. Raises RefusedError."""
        return await run(self._pools.files, self.jobs.cancel, job_id)

    # Collections.

    async def info(self, collection: str | None = None) -> CollectionInfo:
        return await self._on(collection, lambda index: index.info())

    async def infos(self) -> list[CollectionInfo]:
        """Of all collections, by name."""

        def each() -> list[CollectionInfo]:
            store = self._indexes.store
            return [store.open(name).info() for name in store.names()]

        return await run(self._pools.store, each)

    async def drop(self, collection: str) -> None:
        """Remove a whole collection, and what was uploaded into it, except what a copy of it uses.

        Raises RefusedError while jobs bring images into it. What is uploaded from then on makes a
        new collection.
        """

        def forget() -> None:
            with self.uploads.files.turn(collection):
                # Here, as a job may have been submitted while this waited for its turn.
                self.jobs.check_idle(collection)
                self._indexes.forget(collection)
                self._indexes.store.drop(collection)
                self.unused_files.delete_all(collection)

        await run(self._pools.write, forget)

    # How it is done.

    async def _index(self, collection: str | None) -> ImageIndex:
        name = collection or self.settings.collection
        return await run(self._pools.store, self._indexes.of, name)

    async def _on(self, collection: str | None, action: Callable[[ImageIndex], T]) -> T:
        name = collection or self.settings.collection
        return await run(self._pools.store, lambda: action(self._indexes.of(name)))

    async def _write(self, collection: str | None, action: Callable[[ImageIndex], T]) -> T:
        name = collection or self.settings.collection
        return await run(self._pools.write, lambda: action(self._indexes.of(name)))

    def told(self, error: ImgsearchError) -> str:
        """The words of an error for clients, without this machine's places; see `Privacy`."""
        return self._privacy.told(error)

    def public(self, text: str) -> str:
        """The text, as it may be shown to clients."""
        return self._privacy.public(text)


def _check(question: Question) -> None:
    if not (question.pictures or question.records or question.text.strip()):
        raise UsageError("nothing to search for: give a picture, the id of a record, or words")
    alone = not (question.pictures or question.records)
    if alone and (question.region or question.exclude_self):
        raise UsageError("region and exclude_self need a picture or a record")
    if len(question.pictures) + len(question.records) > MAX_PICTURES:
        raise UsageError(f"at most {MAX_PICTURES} pictures can be searched for together")
    if question.offset + question.k > MAX_DEPTH:
        raise UsageError(f"offset + k: at most {MAX_DEPTH:,} hits can be paged through")


def _check_loaded(index: ImageIndex, question: Question) -> None:
    """A server that has just come back finds nothing until its index is loaded: that is no answer.

    Raises StoreError where something must have been found.
    """
    narrowed = question.where or question.min_score is not None or question.exclude_self
    if not (narrowed or question.text) and index.count():
        raise StoreError(
            f"collection {index.name} has records, but its index finds none: the store is still "
            "loading it; if that lasts, ingest the pictures anew"
        )


def _stored(index: ImageIndex, ids: Sequence[str]) -> tuple[Vectors, list[str]]:
    """The vectors of records, of shape (n, dimension), and the SHA-256s of their contents."""
    digests = [index.get(each).sha256 for each in ids]
    vectors = index.collection.vectors_by_id(ids)
    for each in ids:
        if each not in vectors:  # removed between the two
            raise RecordNotFoundError(f"collection {index.name} has no record {each}")
    return np.stack([vectors[each] for each in ids]), digests
