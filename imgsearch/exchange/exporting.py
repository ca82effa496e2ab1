"""Export the records of a collection with their vectors to files that other programs read."""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from imgsearch.copying import BATCH
from imgsearch.events import Counted, Listener, Outcome, ignore
from imgsearch.exchange.layout import Layout
from imgsearch.exchange.writers import open_writer
from imgsearch.stores.base import Collection, Vectors, batched
from imgsearch.system.pipeline import prefetch
from imgsearch.types import Condition, ImageRecord


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was exported. `files` are absolute paths, `bytes` their total size."""

    collection: str
    store: str
    model: str
    dimension: int
    images: int
    files: tuple[str, ...]
    bytes: int
    seconds: float
    interrupted: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the object that `imgsearch export --json` prints."""
        return {**asdict(self), "files": list(self.files), "seconds": round(self.seconds, 3)}


class _StoppedError(Exception):
    """Leaves the writer without publishing its files."""


def export(
    collection: Collection,
    store: str,
    file: str,
    where: Sequence[Condition] = (),
    *,
    listener: Listener = ignore,
    stop: threading.Event | None = None,
) -> ExportReport:
    """Write the records that meet all conditions, with their vectors, to a .parquet or .npy file.

    A .npy file gets a .csv file with the records and a .json file with the description of the
    collection beside it. The files appear when they are complete; setting `stop` ends the export
    without them. Memory holds three batches. `store` is a URL for the report. Raises UsageError,
    SourceError or StoreError.
    """
    started = time.monotonic()
    stop = stop or threading.Event()
    layout = Layout.of(collection)
    images = 0
    files: Sequence[os.PathLike[str]] = ()
    try:
        with open_writer(file, layout) as writer:
            listener(Counted(collection.count(where)))
            batches = prefetch(_batches(collection, where, stop), depth=1)
            try:
                for records, vectors in batches:
                    writer.add(
                        [layout.to_row(record, collection.sites) for record in records], vectors
                    )
                    images += len(records)
                    for record in records:
                        listener(Outcome(record.uri, "exported"))
            finally:
                batches.close()
            if stop.is_set():
                raise _StoppedError
            files = writer.files
    except _StoppedError:
        pass
    return ExportReport(
        collection=collection.name,
        store=store,
        model=layout.stamp.model,
        dimension=layout.stamp.dimension,
        images=images,
        files=tuple(os.fspath(each) for each in files),
        bytes=sum(os.path.getsize(each) for each in files),
        seconds=time.monotonic() - started,
        interrupted=stop.is_set(),
    )


def _batches(
    collection: Collection, where: Sequence[Condition], stop: threading.Event
) -> Iterator[tuple[list[ImageRecord], Vectors]]:
    """Yield records with their vectors, of shape (n, dimension)."""
    for batch in collection.scan(where=where):
        for records in batched(batch, BATCH):
            if stop.is_set():
                return
            vectors = collection.vectors_by_id([record.id for record in records])
            # Records without a vector have been removed in between.
            present = [record for record in records if record.id in vectors]
            if present:
                yield present, np.stack([vectors[record.id] for record in present])
