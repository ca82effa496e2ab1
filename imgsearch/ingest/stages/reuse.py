"""Reuse stored vectors for content that the collection has: renamed, copied or touched files."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from imgsearch.ingest import limits
from imgsearch.ingest.items import Item
from imgsearch.ingest.stages.read import ReadAhead
from imgsearch.ingest.stopwatch import Stopwatch
from imgsearch.ingest.target import VectorSource
from imgsearch.stores.base import StoredVector
from imgsearch.system.pipeline import FLUSH, Flush, batched


class Reuse:
    """Gives items of known content the vector that the collection has for it."""

    def __init__(self, target: VectorSource, read_ahead: ReadAhead, stopwatch: Stopwatch) -> None:
        self._target = target
        self._read_ahead = read_ahead
        self._stopwatch = stopwatch
        # Copies of an image are often near each other: then the store is asked once.
        self._recent: OrderedDict[str, StoredVector] = OrderedDict()

    def __call__(self, items: Iterable[Item | Flush]) -> Iterator[Item | Flush]:
        # Few large questions, but not so large that files wait long or fill the memory.
        chunks = batched(
            items,
            lambda: limits.REUSE_FILES,
            weight=self._weight,
            seconds=limits.ALERT_SECONDS,
        )
        for chunk in chunks:
            if chunk is FLUSH:
                yield FLUSH
                continue
            with self._stopwatch("lookup"):
                stored = self._stored(chunk)
            for item in chunk:
                if item.fingerprint and (known := stored.get(item.fingerprint.sha256)):
                    item.vector = known.vector
                    item.size = (known.width, known.height)
                    item.status, item.reason = "reused", "same content as a stored image"
                    self._read_ahead.release(item)
                if not item.finished:
                    # Open the encoder in this one thread, before the decoding threads need it.
                    self._target.encoder()
                yield item

    def _weight(self, item: Item) -> int:
        """Return a file's share of a question, so that one has at least a batch for the model."""
        data = item.fingerprint.data if item.fingerprint else None
        share = 1 + len(data or b"") * limits.REUSE_FILES // limits.REUSE_BYTES
        return min(share, max(1, limits.REUSE_FILES // self._target.batch_size))

    def _stored(self, chunk: Sequence[Item]) -> dict[str, StoredVector]:
        """Return the stored vectors of items' content, by SHA-256."""
        digests = {item.fingerprint.sha256 for item in chunk if item.fingerprint}
        recent = {each: self._recent[each] for each in digests & self._recent.keys()}
        read = self._target.vectors_by_digest(sorted(digests - recent.keys()))
        for digest in recent:
            self._recent.move_to_end(digest)
        for digest, each in read.items():
            # Copied, as it may be a view of an array of many.
            self._recent[digest] = replace(each, vector=each.vector.copy())
        while len(self._recent) > limits.RECENT_VECTORS:
            self._recent.popitem(last=False)
        return recent | read
