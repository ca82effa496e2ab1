"""Search with many images: read > reuse > decode > encode > search.

The stages are those of an ingest, but for the last. An image whose content is in the collection is
searched for by its stored vector, and neither decoded nor encoded. Searches go to the store in
blocks. Memory holds the images in progress and the results of one block.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np

from imgsearch import config
from imgsearch.bulk.result import QueryResult
from imgsearch.encoders.base import Encoder
from imgsearch.events import Listener, Outcome, ignore
from imgsearch.ingest import limits
from imgsearch.ingest.items import Item
from imgsearch.ingest.stages.decode import Decode
from imgsearch.ingest.stages.encode import Encode
from imgsearch.ingest.stages.read import Read, ReadAhead, ReadPool, reads_ahead
from imgsearch.ingest.stages.reuse import Reuse
from imgsearch.ingest.stopwatch import Stopwatch
from imgsearch.ingest.target import VectorSource
from imgsearch.search import SearchRequest, search_vectors
from imgsearch.sources import (
    Candidate,
    ScanLog,
    Sources,
    Unusable,
    count_ahead,
    nothing_found,
    scan,
)
from imgsearch.stores.base import Collection, StoredVector
from imgsearch.system.pipeline import (
    FLUSH,
    Flush,
    flush_when_slow,
    map_ahead,
    prefetch,
    timed_batches,
)
from imgsearch.uris import is_shard, path_to_uri

# A search of a block may read all vectors, so that a block is as large as memory and patience
# allow: 4096 vectors of 2048 dimensions are 34 MB, and their products with as many others 67 MB.
_BLOCK = 4096
_BLOCK_HITS = 100_000
_BLOCK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class BulkOptions:
    """Options of one run."""

    batch_size: int | None = None
    """Images per call of the model. None takes the device's default."""
    workers: int = field(default_factory=config.default_workers)
    """Threads that read and decode."""
    max_pixels: int = config.DEFAULT_MAX_PIXELS
    """Maximum width x height of an image."""
    count_ahead: bool = False
    """Count the images in the background and report the total, for a progress bar."""
    skip: Callable[[str], bool] = lambda _: False
    """Whether to leave out the image at a path, because it has a result already."""


def search_images(
    collection: Collection,
    open_encoder: Callable[[], Encoder],
    sources: Sources,
    request: SearchRequest,
    options: BulkOptions,
    *,
    stdin: Iterable[str] = (),
    listener: Listener = ignore,
    stop: threading.Event | None = None,
) -> Iterator[QueryResult]:
    """Yield the result of each image of the sources, in their order.

    Folders that cannot be listed follow, each with the reason.

    `request` says what to do with each: its conditions are parsed, and it has no images. Setting
    `stop` ends the run after the images in progress. Raises NothingFoundError if there is no image
    at all, EncoderError or StoreError.
    """
    run = _Run(collection, open_encoder, request, options, listener, stop or threading.Event())
    yield from run.over(sources, stdin)


class _Vectors(VectorSource):
    """The vectors of a collection, and the encoder that made them."""

    def __init__(
        self, collection: Collection, open_encoder: Callable[[], Encoder], batch_size: int | None
    ) -> None:
        super().__init__(batch_size)
        self._collection = collection
        self._open_encoder = open_encoder

    def encoder(self) -> Encoder:
        if self._encoder is None:
            self._encoder = self._open_encoder()
        return self._encoder

    def vectors_by_digest(self, digests: Sequence[str]) -> dict[str, StoredVector]:
        return self._collection.vectors_by_digest(digests) if digests else {}


class _Run:
    def __init__(
        self,
        collection: Collection,
        open_encoder: Callable[[], Encoder],
        request: SearchRequest,
        options: BulkOptions,
        listener: Listener,
        stop: threading.Event,
    ) -> None:
        self._collection = collection
        self._vectors = _Vectors(collection, open_encoder, options.batch_size)
        self._request = request
        self._options = options
        self._listener = listener
        self._stop = stop
        self._ended = threading.Event()
        self._log = ScanLog()
        self._stopwatch = Stopwatch(("read", "decode", "encode", "lookup"))
        self._found = 0

    def over(self, sources: Sources, stdin: Iterable[str]) -> Iterator[QueryResult]:
        if self._options.count_ahead:
            count_ahead(sources, self._listener, self._is_ending, skip=self._options.skip)
        encode = Encode(self._vectors, self._stopwatch, self._listener)
        try:
            with (
                ThreadPoolExecutor(self._options.workers, "imgsearch-read") as pool,
                ReadPool(pool) as reading,
                closing(
                    prefetch(encode.batches(self._decoded(sources, stdin, reading, pool)), depth=1)
                ) as batches,
                closing(prefetch(encode(batches), depth=2)) as encoded,
            ):
                yield from self._searched(encoded)
        finally:
            self._ended.set()
        if self._found == 0 and not self._stop.is_set():
            raise nothing_found(sources, self._log)
        for path, reason in self._log.unreadable:
            if not self._options.skip(path):
                kind = "shard" if is_shard(path) else "folder"
                yield self._rejected(path, path_to_uri(path), f"unreadable {kind}: {reason}")

    def _rejected(self, path: str, uri: str, reason: str) -> QueryResult:
        self._listener(Outcome(uri, "rejected", reason))
        return QueryResult(path, error=reason)

    def _is_ending(self) -> bool:
        return self._stop.is_set() or self._ended.is_set()

    def _items(self, sources: Sources, stdin: Iterable[str]) -> Iterator[Item | None]:
        """Yield the items of each chunk, then None, also for a chunk without any."""
        entries = scan(sources, self._log, stdin, self._is_ending)
        chunks = timed_batches(entries, limits.LOOKUP_FILES, limits.ALERT_SECONDS)
        with closing(chunks):
            for chunk in chunks:
                for entry in chunk:
                    if self._is_ending():
                        return
                    self._found += 1
                    if not self._options.skip(entry.path):
                        yield _item(entry)
                yield None

    def _decoded(
        self, sources: Sources, stdin: Iterable[str], reading: Executor, decoding: Executor
    ) -> Iterator[Item | Flush]:
        vectors, stopwatch, read_ahead = self._vectors, self._stopwatch, ReadAhead()
        read = Read(read_ahead, stopwatch)
        reuse = Reuse(vectors, read_ahead, stopwatch)
        decode = Decode(
            lambda: vectors.encoder().preprocessing,
            self._options.max_pixels,
            read_ahead,
            stopwatch,
        )
        ahead = vectors.batch_size + self._options.workers
        found = flush_when_slow(self._items(sources, stdin), limits.WRITE_SECONDS)
        items = reuse(map_ahead(reading, read, found, reads_ahead(sources, ahead)))
        for item in map_ahead(decoding, decode, items, ahead):
            # After a stop, what is not at the model yet is left to the next run.
            if item is FLUSH or not (item.image and self._stop.is_set()):
                yield item

    def _searched(self, batches: Iterable[list[Item] | Flush]) -> Iterator[QueryResult]:
        """Search for the images of some batches at a time."""
        size = max(1, min(_BLOCK, _BLOCK_HITS // self._request.k))
        waiting: list[Item] = []
        last_search = time.monotonic()
        for batch in batches:
            if batch is not FLUSH:
                waiting += batch
            late = batch is FLUSH or time.monotonic() - last_search >= _BLOCK_SECONDS
            while waiting and (late or len(waiting) >= size):
                block, waiting = waiting[:size], waiting[size:]
                yield from self._results(block)
                last_search = time.monotonic()
        while waiting:
            block, waiting = waiting[:size], waiting[size:]
            yield from self._results(block)

    def _results(self, items: Sequence[Item]) -> Iterator[QueryResult]:
        with_vector = [item for item in items if item.vector is not None]
        hits = iter(
            search_vectors(
                self._collection,
                np.stack([item.vector for item in with_vector if item.vector is not None]),
                [self._request_for(item) for item in with_vector],
            )
            if with_vector
            else ()
        )
        for item in items:
            path, uri = item.candidate.path, item.candidate.uri
            if item.vector is None:
                yield self._rejected(path, uri, item.reason)
            else:
                self._listener(Outcome(uri, "answered"))
                yield QueryResult(path, item.digest, tuple(next(hits)))

    def _request_for(self, item: Item) -> SearchRequest:
        if not self._request.exclude_self:
            return self._request
        excluded = [*self._request.exclude_digests, item.digest]
        return replace(self._request, exclude_digests=excluded)


def _item(entry: Candidate | Unusable) -> Item:
    if isinstance(entry, Candidate):
        return Item(entry)
    item = Item(Candidate(entry.path, 0, 0, entry.sites))
    item.reject(entry.reason)
    return item
