"""Copy a collection from one store to another, without encoding anything again."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from imgsearch.errors import CollectionMismatchError, Remedy
from imgsearch.events import Counted, Listener, Outcome, Status, ignore
from imgsearch.ingest.verify import WriteVerifier
from imgsearch.sites import Sites
from imgsearch.stores.base import Collection, Vectors, VectorStore
from imgsearch.system.pipeline import prefetch
from imgsearch.types import ImageRecord

# Records read and written at once, with their vectors: 16 MB of 2048 dimensions, three times.
_BATCH = 2048


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What a copy did: always found = copied + skipped + rejected, in records."""

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
        """The object that `copy --json` prints."""
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
class _Batch:
    """Records of the source; `vectors` belong to `fresh`, those that the target lacks."""

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
) -> CopyReport:
    """Bring all records of `collection` into the target's collection `name`, made if need be.

    Records that are there already, equal in everything, are skipped: so a copy that was ended can
    be run again. Others are replaced, and what the source does not have stays. Raises
    CollectionNotFoundError, CollectionMismatchError if the target's collection has another stamp,
    or StoreError.
    """
    started = time.monotonic()
    stop = stop or threading.Event()
    origin = source.open(collection)
    with target.write_lock(name, listener):
        goal = _goal(target, name, origin, listener)
        verifier = WriteVerifier(goal)
        listener(Counted(origin.count()))
        counts = _copy_all(origin, goal, verifier, listener, stop)
        if verified := not stop.is_set():
            goal.optimize(listener)
            verifier.check(goal, listener)
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


def _goal(target: VectorStore, name: str, origin: Collection, listener: Listener) -> Collection:
    if name not in target.names():
        goal = target.open_or_create(name, origin.stamp, origin.fields)
    else:
        goal = target.open(name)
        if differences := origin.stamp.differences(goal.stamp):
            raise CollectionMismatchError(
                f"{target.url}: collection {name} exists, and its vectors cannot be compared with "
                f"those to copy ({'; '.join(differences)})",
                Remedy.COPY_TO_OTHER_NAME,
            )
        goal.add_fields(origin.fields)
    goal.join_site(listener)
    return goal


def _copy_all(
    origin: Collection,
    goal: Collection,
    verifier: WriteVerifier,
    listener: Listener,
    stop: threading.Event,
) -> Counter[Status]:
    counts: Counter[Status] = Counter()
    batches = prefetch(_batches(origin, goal, stop), depth=1)
    try:
        for batch in batches:
            refused = goal.upsert(batch.fresh, batch.vectors)
            verifier.record_write(batch.fresh, batch.vectors, batch.known, refused)
            outcomes = [Outcome(record.uri, "skipped") for record in batch.skipped]
            outcomes += [_outcome(record, refused) for record in batch.fresh]
            for outcome in outcomes:
                counts[outcome.status] += 1
                listener(outcome)
    finally:
        batches.close()
    return counts


def _outcome(record: ImageRecord, refused: dict[str, str]) -> Outcome:
    if reason := refused.get(record.id):
        return Outcome(record.uri, "rejected", reason)
    return Outcome(record.uri, "indexed")


def _moved(record: ImageRecord, origin: Sites, goal: Sites) -> ImageRecord:
    """The record of the same file, as the target names the files of the machines that share it."""
    site, uri = origin.split(record.uri)
    return replace(record, uri=goal.qualified(uri, site))


def _batches(origin: Collection, goal: Collection, stop: threading.Event) -> Iterator[_Batch]:
    for scanned in origin.scan():
        for start in range(0, len(scanned), _BATCH):
            if stop.is_set():
                return
            there = scanned[start : start + _BATCH]
            records = [_moved(record, origin.sites, goal.sites) for record in there]
            known = goal.lookup([record.id for record in records])
            ids = {
                record.id: old.id
                for record, old in zip(records, there, strict=True)
                if known.get(record.id) != record
            }
            vectors = origin.vectors_by_id(list(ids.values()))
            # Without a vector it was removed from the source in between.
            fresh = [record for record in records if ids.get(record.id) in vectors]
            yield _Batch(
                skipped=[record for record in records if known.get(record.id) == record],
                fresh=fresh,
                vectors=np.stack([vectors[ids[record.id]] for record in fresh])
                if fresh
                else np.empty((0, origin.stamp.dimension), np.float32),
                known=set(known),
            )
