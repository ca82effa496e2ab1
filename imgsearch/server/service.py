"""The service: questions in, hits out, for many clients at once. HTTP and the page stand on it."""

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np

from imgsearch import config, images
from imgsearch.encoders import Encoder, open_encoder
from imgsearch.encoders.base import Vectors
from imgsearch.errors import (
    CollectionMismatchError,
    CollectionNotFoundError,
    ImgsearchError,
    StaleCollectionError,
    StoreError,
    UsageError,
)
from imgsearch.events import Listener, Note, ignore
from imgsearch.filters import parse_where
from imgsearch.records import CollectionInfo, Hit, ImageRecord, Stamp
from imgsearch.search import SearchOptions, search_vector
from imgsearch.server.batching import Batcher
from imgsearch.server.metrics import Metrics
from imgsearch.server.opened import Opened
from imgsearch.server.pictures import PictureFile, open_picture
from imgsearch.server.problems import RefusedError, no_record
from imgsearch.server.settings import Settings
from imgsearch.stores.base import Collection

T = TypeVar("T")

# A page is cut out of the first so many hits, which are found anew for each page.
MAX_DEPTH = 1000
# Store calls wait for a disk or a server, not for a core.
_STORE_THREADS = 8
# After which a store that is not there at the start is asked again.
_RETRY_SECONDS = 2.0

State = Literal["starting", "ready", "draining"]


@dataclass(frozen=True, slots=True)
class Question:
    """What to search for, and how. `where` are texts such as `year>=2012`; all must hold."""

    picture: bytes
    k: int = 10
    offset: int = 0
    where: Sequence[str] = ()
    min_score: float | None = None
    copies: bool = False
    """Whether to give each of several equal pictures, not one for all."""
    exclude_self: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """Hits `offset` to `offset + k`; `seconds` from the question to the answer."""

    collection: str
    model: str
    seconds: float
    hits: list[Hit] = field(default_factory=list)


class Service:
    """Answers for every collection of one store. Its methods are for one event loop."""

    def __init__(
        self,
        settings: Settings,
        listener: Listener = ignore,
        encoder_opener: Callable[..., Encoder] = open_encoder,
    ) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.state: State = "starting"
        self.in_flight = 0
        self._listener = listener
        self._opened = Opened(settings, listener, encoder_opener)
        self._batchers: dict[int, Batcher] = {}
        # Decoding holds whole pictures in memory: so many at once as there are cores, no more.
        self._decoders = ThreadPoolExecutor(config.default_workers(), "imgsearch-decode")
        self._stores = ThreadPoolExecutor(_STORE_THREADS, "imgsearch-store")
        self.metrics.watch(lambda: self.in_flight, lambda: self._queued)

    @property
    def _queued(self) -> int:
        return sum(batcher.waiting for batcher in self._batchers.values())

    async def start(self) -> None:
        """Load the default collection and its model; ready also where there is none yet.

        A store that is not reached is asked again until it is. Raises EncoderError, UsageError or
        CollectionMismatchError: what waiting does not help.
        """
        guess = asyncio.ensure_future(self._in(self._decoders, self._opened.guess))
        try:
            await self._load(guess)
        finally:
            guess.cancel()
        if self.state == "starting":
            self.state = "ready"

    async def _load(self, guess: asyncio.Future[None]) -> None:
        told = False
        while True:
            try:
                collection = await self._in(self._stores, self._warmed_up)
                await guess
                await self._batcher(collection)
            except CollectionNotFoundError:
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

    def _warmed_up(self) -> Collection:
        """The default collection, after what the first search needs has been read in."""
        collection = self._opened.collection(self.settings.collection)
        dimension = collection.stamp.dimension
        collection.search(np.full(dimension, dimension**-0.5, dtype=np.float32), 1)
        return collection

    def drain(self) -> None:
        """Take no new requests; those under way are finished."""
        self.state = "draining"

    async def close(self) -> None:
        for batcher in self._batchers.values():
            batcher.close()
        self._decoders.shutdown(cancel_futures=True)
        self._stores.shutdown(cancel_futures=True)
        self._opened.close()

    # Searching.

    async def search(self, question: Question, collection: str | None = None) -> Answer:
        """Raises ImageError, UsageError, StoreError (CollectionNotFoundError) or EncoderError."""
        started = time.perf_counter()
        name = collection or self.settings.collection
        if question.offset + question.k > MAX_DEPTH:
            raise UsageError(f"offset + k: at most {MAX_DEPTH:,} hits can be paged through")
        target = await self._in(self._stores, self._opened.collection, name)
        vector = await self._vector(question.picture, target)
        hits = await self._use(
            name, lambda found: self._find(found, target.stamp, vector, question)
        )
        seconds = time.perf_counter() - started
        return Answer(name, target.stamp.model, seconds, hits[question.offset :])

    async def _vector(self, picture: bytes, collection: Collection) -> Vectors:
        batcher = await self._batcher(collection)
        with self.metrics.stage("decode"):
            decoded = await self._in(
                self._decoders,
                images.decode,
                picture,
                batcher.encoder.preprocessing,
                self.settings.limits.pixels,
            )
        with self.metrics.stage("encode"):
            return await batcher.encode(decoded.pixels)

    async def _batcher(self, collection: Collection) -> Batcher:
        encoder = await self._in(self._stores, self._opened.encoder, collection.stamp)
        if id(encoder) not in self._batchers:
            self._batchers[id(encoder)] = Batcher(
                encoder, self.settings.batch_size, self.metrics.batch
            )
        return self._batchers[id(encoder)]

    def _find(
        self, target: Collection, stamp: Stamp, vector: Vectors, question: Question
    ) -> list[Hit]:
        if target.stamp != stamp:  # between the two steps of this very search
            raise StaleCollectionError(
                f"collection {target.name} has just been replaced: ask again"
            )
        options = SearchOptions(
            k=question.offset + question.k,
            where=parse_where(question.where, target.fields),
            min_score=question.min_score,
            collapse=not question.copies,
        )
        itself = hashlib.sha256(question.picture).hexdigest() if question.exclude_self else None
        with self.metrics.stage("search"):
            return search_vector(target, vector, options, [itself] if itself else ())

    # Records and collections.

    async def record(self, record_id: str, collection: str | None = None) -> ImageRecord:
        """Raises RefusedError where there is none of this id."""
        name = collection or self.settings.collection
        found = await self._use(name, lambda target: target.lookup([record_id]))
        if record_id not in found:
            raise no_record(record_id)
        return found[record_id]

    async def open_picture(self, record: ImageRecord) -> PictureFile:
        """The open file of a record. Raises RefusedError if it is gone, or no picture any more."""
        return await self._in(self._stores, open_picture, record)

    async def read_picture(self, record: ImageRecord) -> bytes:
        """The file of a record, whole. Raises RefusedError, also if it is too large."""
        return await self._in(self._stores, self._read_picture, record)

    def _read_picture(self, record: ImageRecord) -> bytes:
        picture = open_picture(record)
        with picture.file:
            if picture.size > self.settings.limits.body:
                raise RefusedError(
                    413, "too-large", f"the picture of record {record.id} is too large"
                )
            return picture.file.read(picture.size)

    async def info(self, collection: str | None = None) -> CollectionInfo:
        """Raises CollectionNotFoundError where there is none of this name."""
        return await self._use(collection or self.settings.collection, lambda target: target.info())

    async def names(self) -> list[str]:
        """Of the store's collections, sorted."""
        return await self._in(self._stores, lambda: self._opened.store.names())

    # How it is done.

    async def _use(self, name: str, action: Callable[[Collection], T]) -> T:
        return await self._in(self._stores, self._opened.use, name, action)

    async def _in(self, pool: Executor, function: Callable[..., T], *arguments: object) -> T:
        """What a function returns that would hold up the event loop."""
        return await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)

    def told(self, error: ImgsearchError) -> str:
        """The words of an error, without the names of this machine's folders."""
        text = str(error)
        if self.settings.show_paths:
            return text
        store = self.settings.store or config.default_store()
        home = str(config.home())
        for private, public in ((store, "the store"), (home, "the data directory")):
            text = text.replace(private, public)
        return text
