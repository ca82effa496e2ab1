"""Reuse stored vectors for content that the collection has: renamed, copied or touched files."""

from collections.abc import Iterable, Iterator

from imgsearch.ingest.items import Item
from imgsearch.ingest.stages.read import ReadAhead
from imgsearch.ingest.target import Target
from imgsearch.system.pipeline import FLUSH, Flush, batched


class Reuse:
    """Gives items of known content the vector that the collection has for it."""

    def __init__(self, target: Target, read_ahead: ReadAhead) -> None:
        self._target = target
        self._read_ahead = read_ahead

    def __call__(self, items: Iterable[Item | Flush]) -> Iterator[Item | Flush]:
        for chunk in batched(items, lambda: self._target.batch_size):
            if chunk is FLUSH:
                yield FLUSH
                continue
            digests = {item.fingerprint.sha256 for item in chunk if item.fingerprint}
            stored = self._target.vectors_by_digest(sorted(digests))
            for item in chunk:
                if item.fingerprint and (known := stored.get(item.fingerprint.sha256)):
                    item.vector = known.vector
                    item.size = (known.width, known.height)
                    item.status, item.reason = "reused", "same content as a stored image"
                    self._read_ahead.release(item)
                if not item.finished:
                    # Open the encoder in this one thread, before those that decode need it.
                    self._target.encoder()
                yield item
