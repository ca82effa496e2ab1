"""Write records and vectors to the collection, and report the outcome of each file."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from imgsearch.encoders.base import Vectors
from imgsearch.errors import ImgsearchError
from imgsearch.ingest import limits
from imgsearch.ingest.items import Item, rejection_reason
from imgsearch.ingest.progress import Progress
from imgsearch.ingest.stopwatch import Stopwatch
from imgsearch.ingest.target import Target
from imgsearch.ingest.verify import WriteVerifier
from imgsearch.metadata.changes import Changes, OriginChanges, difference, rebased
from imgsearch.metadata.own import field_type, fitted, set_own
from imgsearch.stores.base import Collection
from imgsearch.system.pipeline import FLUSH, Flush
from imgsearch.types import FieldType, ImageRecord, Metadata, Origins, Value

_Write = Callable[[Sequence[Item]], dict[str, str]]
"""Writes items and returns the ids that the store rejected, with the reason."""


class Write:
    """Writes finished items, in few large writes and without much delay."""

    def __init__(
        self, target: Target, verifier: WriteVerifier, progress: Progress, stopwatch: Stopwatch
    ) -> None:
        self._target = target
        self._verifier = verifier
        self._progress = progress
        self._stopwatch = stopwatch
        self.replaced_newer = 0
        """Records of newer files that a different, older file of the same path replaced."""
        self._misfits: set[str] = set()

    def __call__(self, batches: Iterable[list[Item] | Flush]) -> None:
        """Write all items; each is reported once it is stored."""
        waiting: list[Item] = []
        # The first batch is written without delay: a store that accepts nothing fails early, and
        # loads what it needs for its first write while the model is busy.
        last_write = -math.inf
        for batch in batches:
            if batch is not FLUSH:
                waiting += batch
            late = batch is FLUSH or time.monotonic() - last_write >= limits.WRITE_SECONDS
            if waiting and (late or len(waiting) >= limits.WRITE_ROWS):
                self._write(waiting)
                waiting, last_write = [], time.monotonic()
        self._write(waiting)

    def _write(self, items: Sequence[Item]) -> None:
        if any(item.vector is not None for item in items):
            self._target.writable()
        if not (sites := self._target.sites).at_home:  # another site may just have created it
            for item in items:
                item.candidate = replace(item.candidate, sites=sites)
        self._fit_own_fields(
            [
                item
                for item in items
                if item.candidate.own
                and item.metadata
                and (item.vector is not None or item.status == "reused")
            ]
        )
        # A file that is listed twice may occur twice; the later item is the newer one.
        new = {item.candidate.id: item for item in items if item.vector is not None}
        changed = {
            item.candidate.id: item
            for item in items
            if item.vector is None and item.status == "reused"
        }
        with self._stopwatch("write"):
            rejected = self._upsert(new) if new else {}
            rejected |= self._change_metadata(changed) if changed else {}
        for item in items:
            if reason := rejected.get(item.candidate.id):
                item.reject(reason)
            self._progress.finish(item.candidate.uri, item.status or "rejected", item.reason)

    def _fit_own_fields(self, items: Sequence[Item]) -> None:
        """Give the fields that sources have the types of the collection, and add new ones."""
        if not items:
            return
        collection = self._target.writable()
        fields = dict(collection.fields)
        known = len(fields)
        for item in items:
            assert item.candidate.own
            own = item.candidate.own
            values = fitted(own, fields, self._note_misfit)
            item.metadata, item.origins = set_own(item.metadata, item.origins, own, values)
            fields |= {name: field_type(name, own, fields) for name in values}
        if len(fields) > known:
            collection.add_fields(fields)

    def _note_misfit(self, name: str, value: Value, want: FieldType) -> None:
        if name not in self._misfits:
            self._misfits.add(name)
            self._progress.note(
                f"the collection has {name!r} as {want}, but a shard has values of another type, "
                f"for example {str(value)[:40]!r}: such values are ignored"
            )

    def _upsert(self, new: Mapping[str, Item]) -> dict[str, str]:
        collection = self._target.writable()
        stored = collection.file_stats([item.candidate.uri for item in new.values()])
        existing = [key for key, item in new.items() if item.candidate.uri in stored]
        known = collection.lookup(existing) if existing else {}
        self.replaced_newer += sum(_is_older(item, known.get(key)) for key, item in new.items())
        records = {key: _record(item, known.get(key)) for key, item in new.items()}

        def upsert(items: Sequence[Item]) -> dict[str, str]:
            return collection.upsert([records[item.candidate.id] for item in items], _stack(items))

        items = list(new.values())
        rejected = isolate_failures(items, upsert)
        self._verifier.record_write(list(records.values()), _stack(items), known, rejected)
        return rejected

    def _change_metadata(self, changed: Mapping[str, Item]) -> dict[str, str]:
        collection = self._target.writable()
        return isolate_failures(
            list(changed.values()), lambda items: _write_metadata(collection, items)
        )


def _write_metadata(collection: Collection, items: Sequence[Item]) -> dict[str, str]:
    changes: dict[str, Changes] = {}
    origin_changes: dict[str, OriginChanges] = {}
    for item in items:
        metadata, origins = _before(item)
        changes[item.candidate.id] = difference(metadata, item.metadata)
        origin_changes[item.candidate.id] = difference(origins or {}, item.origins or {})
    collection.update_metadata(changes, origin_changes)
    return {}


def isolate_failures(items: Sequence[Item], write: _Write) -> dict[str, str]:
    """Write items, and narrow an unexpected failure down to the items that cause it.

    Returns the ids that were not written, with the reason. Raises the store's own errors, and the
    error of `write` if none of several items can be written: then no single item is the cause.
    """
    try:
        return write(items)
    except (ImgsearchError, MemoryError):
        raise
    except Exception as error:
        if len(items) == 1:
            return {items[0].candidate.id: rejection_reason(error)}
        middle = len(items) // 2
        rejected = _isolate_in_half(items[:middle], write) | _isolate_in_half(items[middle:], write)
        if len(rejected) == len(items):
            raise
        return rejected


def _isolate_in_half(items: Sequence[Item], write: _Write) -> dict[str, str]:
    try:
        return isolate_failures(items, write)
    except (ImgsearchError, MemoryError):
        raise
    except Exception as error:
        return {item.candidate.id: rejection_reason(error) for item in items}


def _stack(items: Sequence[Item]) -> Vectors:
    return np.stack([item.vector for item in items if item.vector is not None])


def _before(item: Item) -> tuple[Metadata, Origins | None]:
    """Return metadata and origins as they were at the lookup."""
    return (item.replaces.metadata, item.replaces.origins) if item.replaces else ({}, {})


def _is_older(item: Item, known: ImageRecord | None) -> bool:
    """Return whether a file replaces a different, newer one."""
    return (
        known is not None
        and known.sha256 != item.digest
        and known.mtime_ns > item.candidate.mtime_ns
    )


def _record(item: Item, known: ImageRecord | None) -> ImageRecord:
    """Build an item's record. `known` is the stored one, whose metadata others may have changed."""
    assert item.fingerprint is not None
    metadata, origins = item.metadata, item.origins
    if known:
        current = known.metadata, known.origins
        metadata, origins = rebased(metadata, origins, _before(item), current)
    return ImageRecord(
        uri=item.candidate.uri,
        sha256=item.fingerprint.sha256,
        size=item.fingerprint.size,
        mtime_ns=item.fingerprint.mtime_ns,
        width=item.size[0],
        height=item.size[1],
        metadata=metadata,
        origins=origins,
    )
