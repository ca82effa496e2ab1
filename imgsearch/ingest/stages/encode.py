"""Encode batches of images, several at a time where that keeps the encoder busy."""

import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from imgsearch.encoders.base import Vectors
from imgsearch.errors import DeviceMemoryError
from imgsearch.events import Listener, Note
from imgsearch.images import Pixels
from imgsearch.ingest import limits
from imgsearch.ingest.items import Item
from imgsearch.ingest.stopwatch import Stopwatch
from imgsearch.ingest.target import VectorSource
from imgsearch.system.pipeline import FLUSH, Flush, batched


@dataclass(frozen=True, slots=True)
class _InFlight:
    """A batch that is being encoded. `vectors` belong to `digests`; None if there are none."""

    batch: list[Item]
    digests: list[str]
    vectors: Future[Vectors] | None


class Encode:
    """Encodes images; equal content is encoded once per run."""

    def __init__(self, target: VectorSource, stopwatch: Stopwatch, listener: Listener) -> None:
        self._target = target
        self._stopwatch = stopwatch
        self._listener = listener
        # Vectors that the store may not have yet.
        self._recent: OrderedDict[str, Vectors] = OrderedDict()
        # The largest batch that fits into the device's memory, as far as is known.
        self._max_batch = sys.maxsize
        self._lock = threading.Lock()

    def batches(self, items: Iterable[Item | Flush]) -> Iterator[list[Item] | Flush]:
        """Group items so that at most the encoder's batch size of each group need the model."""
        return batched(
            items,
            lambda: self._target.batch_size,
            weight=lambda item: item.image is not None,
            max_length=limits.WRITE_ROWS,
        )

    def __call__(self, batches: Iterable[list[Item] | Flush]) -> Iterator[list[Item] | Flush]:
        """Yield the batches in order, with vectors."""
        in_flight: deque[_InFlight] = deque()
        with ThreadPoolExecutor(limits.MAX_IN_FLIGHT, "imgsearch-encode") as pool:
            for batch in batches:
                if batch is FLUSH:
                    while in_flight:
                        yield self._collect(in_flight.popleft())
                    yield FLUSH
                    continue
                in_flight.append(self._submit(batch, in_flight, pool))
                if len(in_flight) >= self._target.concurrency:
                    yield self._collect(in_flight.popleft())
            while in_flight:
                yield self._collect(in_flight.popleft())

    def _submit(
        self, batch: list[Item], in_flight: Iterable[_InFlight], pool: ThreadPoolExecutor
    ) -> _InFlight:
        """Start to encode the content that is neither known nor being encoded."""
        pixels: dict[str, Pixels] = {}
        for item in batch:
            if item.image:
                pixels.setdefault(item.digest, item.image.pixels)
        digests = [
            digest
            for digest in pixels
            if digest not in self._recent
            and not any(digest in other.digests for other in in_flight)
        ]
        for digest in pixels.keys() & self._recent.keys():
            self._recent.move_to_end(digest)  # must still be there when the batch is collected
        if not digests:
            return _InFlight(batch, [], None)
        stacked = np.stack([pixels[digest] for digest in digests])
        return _InFlight(batch, digests, pool.submit(self._encode, stacked))

    def _collect(self, done: _InFlight) -> list[Item]:
        """Wait for a batch and set its items' vectors."""
        if done.vectors:
            self._recent.update(zip(done.digests, done.vectors.result(), strict=True))
        new = set(done.digests)
        for item in done.batch:
            if item.image:
                item.vector, item.image = self._recent[item.digest], None
                if item.digest in new:
                    new.remove(item.digest)
                    item.status = "indexed"
                else:
                    item.status, item.reason = "reused", "same content as another image"
        while len(self._recent) > self._max_recent:
            self._recent.popitem(last=False)
        return done.batch

    @property
    def _max_recent(self) -> int:
        """More than the number of images that the pipeline can hold."""
        batches = (16 + 2 * self._target.concurrency) * self._target.batch_size
        return batches + limits.REUSE_FILES + limits.WRITE_ROWS

    def _encode(self, pixels: Pixels) -> Vectors:
        """Encode a batch, in parts if it does not fit into the device's memory."""
        vectors: list[Vectors] = []
        start = 0
        while start < len(pixels):
            part = pixels[start : start + self._max_batch]
            try:
                with self._stopwatch("encode"):
                    vectors.append(self._target.encoder().encode(part))
                start += len(part)
            except DeviceMemoryError as error:
                if len(part) == 1:
                    raise
                self._shrink(len(part) // 2, error)
        return np.concatenate(vectors)

    def _shrink(self, length: int, error: DeviceMemoryError) -> None:
        """Lower the batch size. Of several threads that fail together, only the first reports."""
        with self._lock:
            if length < self._max_batch:
                self._max_batch = length
                self._listener(Note(f"{error}: continuing with batches of {length}"))
