"""Copy a collection from one store to another without encoding its images again."""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from imgsearch.calibration import keep_current
from imgsearch.errors import CollectionMismatchError, Remedy
from imgsearch.events import Counted, Listener, Outcome, Status, ignore
from imgsearch.ingest.verify import WriteVerifier
from imgsearch.sites import Sites
from imgsearch.stores.base import (
    Collection,
    Vectors,
    VectorStore,
    check_dtype,
    check_dtype_of_store,
)
from imgsearch.system.pipeline import prefetch
from imgsearch.types import FieldType, ImageRecord, Stamp, VectorDtype

BATCH = 2048
"""Records per batch. Up to three batches are in memory, of 16 MB each with 2048 dimensions."""


@dataclass(frozen=True, slots=True)
class CopyReport:
    """The result of a copy, in records: found = copied + skipped + rejected."""

    source: str
    target: str
    collection: str
    name: str
    found: int
    copied: int
    skipped: int
    rejected: int
    verified: bool
    seconds: float
    interrupted: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the object that `imgsearch copy --json` prints."""
        fields = asdict(self)
        return {
            "from": fields.pop("source"),
            "to": fields.pop("target"),
            "collection": fields.pop("collection"),
            "as": fields.pop("name"),
            **fields,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of records to write.

    The target already has the `skipped` ones. `vectors` are those of `fresh`, in the same order;
    `known` are the ids in the batch that the target has.
    """

    skipped: list[ImageRecord]
    fresh: list[ImageRecord]
    vectors: Vectors
    known: set[str]


def copy(
    source: VectorStore,
    target: VectorStore,
    collection: str,
    name: str,
    listener: Listener = ignore,
    stop: threading.Event | None = None,
    *,
    vector_dtype: VectorDtype | None = None,
) -> CopyReport:
    """Copy all records of `collection` to the collection `name` of the target.

    The collection is created if necessary. Records that it already has are replaced, or skipped if
    they are equal, so an interrupted copy can be run again. Its other records stay. Setting `stop`
    ends the copy early. A new collection keeps its vectors as `vector_dtype`, by default like the
    source if the target can. Raises CollectionNotFoundError, CollectionMismatchError if the
    target's collection has another stamp or number format, UsageError if the target does not offer
    the number format, or StoreError.
    """
    started = time.monotonic()
    stop = stop or threading.Event()
    check_dtype_of_store(target, vector_dtype)
    origin = source.open(collection)
    with target.write_lock(name, listener):
        destination = _open_destination(target, name, origin, vector_dtype, listener)
        verifier = WriteVerifier(destination)
        listener(Counted(origin.count()))
        counts = write_all(_batches(origin, destination, stop), destination, verifier, listener)
        if verified := not stop.is_set():
            destination.optimize(listener)
            verifier.check(destination, listener)
            keep_current(destination, listener)
    return CopyReport(
        source=source.url,
        target=target.url,
        collection=collection,
        name=name,
        found=counts.total(),
        copied=counts["indexed"],
        skipped=counts["skipped"],
        rejected=counts["rejected"],
        verified=verified,
        seconds=time.monotonic() - started,
        interrupted=stop.is_set(),
    )


def _open_destination(
    target: VectorStore,
    name: str,
    origin: Collection,
    vector_dtype: VectorDtype | None,
    listener: Listener,
) -> Collection:
    destination = open_destination(
        *(target, name, origin.stamp, origin.fields),
        vector_dtype=vector_dtype,
        preferred=origin.vector_dtype,
        remedy=Remedy.COPY_TO_OTHER_NAME,
    )
    destination.join_site(listener)
    return destination


def open_destination(
    target: VectorStore,
    name: str,
    stamp: Stamp,
    fields: Mapping[str, FieldType],
    *,
    vector_dtype: VectorDtype | None,
    preferred: VectorDtype,
    remedy: Remedy,
) -> Collection:
    """Return the collection to write finished vectors to, which is created if necessary.

    A new one keeps its vectors as `vector_dtype`, else as `preferred` if the store can. Raises
    CollectionMismatchError with the remedy if it exists and has another stamp or number format.
    """
    if name not in target.names():
        if vector_dtype is None and preferred in target.vector_dtypes:
            vector_dtype = preferred
        return target.open_or_create(name, stamp, fields, vector_dtype)
    destination = target.open(name)
    if differences := stamp.differences(destination.stamp):
        raise CollectionMismatchError(
            f"{target.url}: collection {name} exists, and its vectors are not comparable with "
            f"the new ones ({'; '.join(differences)})",
            remedy,
        )
    check_dtype(destination, vector_dtype, remedy)
    destination.add_fields(fields)
    return destination


def write_all(
    batches: Iterator[Batch],
    destination: Collection,
    verifier: WriteVerifier,
    listener: Listener,
) -> Counter[Status]:
    """Write batches, of which one is made ahead, and return the number of records by outcome."""
    counts: Counter[Status] = Counter()
    ahead = prefetch(batches, depth=1)
    try:
        for batch in ahead:
            rejected = destination.upsert(batch.fresh, batch.vectors)
            verifier.record_write(batch.fresh, batch.vectors, batch.known, rejected)
            outcomes = [Outcome(record.uri, "skipped") for record in batch.skipped]
            outcomes += [_outcome(record, rejected) for record in batch.fresh]
            for outcome in outcomes:
                counts[outcome.status] += 1
                listener(outcome)
    finally:
        ahead.close()
    return counts


def _outcome(record: ImageRecord, rejected: dict[str, str]) -> Outcome:
    if reason := rejected.get(record.id):
        return Outcome(record.uri, "rejected", reason)
    return Outcome(record.uri, "indexed")


def _relocated(record: ImageRecord, origin: Sites, destination: Sites) -> ImageRecord:
    """Return a record with the URI that its file has in the destination."""
    site, uri = origin.split(record.uri)
    return replace(record, uri=destination.qualified(uri, site))


def _batches(origin: Collection, destination: Collection, stop: threading.Event) -> Iterator[Batch]:
    for scanned in origin.scan():
        for start in range(0, len(scanned), BATCH):
            if stop.is_set():
                return
            originals = scanned[start : start + BATCH]
            records = [_relocated(each, origin.sites, destination.sites) for each in originals]
            known = destination.lookup([record.id for record in records])
            # Ids in the origin by ids in the destination.
            ids = {
                record.id: original.id
                for record, original in zip(records, originals, strict=True)
                if known.get(record.id) != record
            }
            vectors = origin.vectors_by_id(list(ids.values()))
            # Records without a vector have been removed from the origin in between.
            fresh = [record for record in records if ids.get(record.id) in vectors]
            yield Batch(
                skipped=[record for record in records if known.get(record.id) == record],
                fresh=fresh,
                vectors=np.stack([vectors[ids[record.id]] for record in fresh])
                if fresh
                else np.empty((0, origin.stamp.dimension), np.float32),
                known=set(known),
            )
