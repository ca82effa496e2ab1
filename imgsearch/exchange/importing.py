"""Import vectors and records that `export` or another program wrote.

What imgsearch exported comes back with its stamp, so that the encoder that made it is used again.
Vectors of other programs get a stamp that says so (`Stamp.elsewhere`): they are searched by record
and by vector, as there is no encoder for query images.
"""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from imgsearch.calibration import keep_current
from imgsearch.copying import Batch, open_destination, write_all
from imgsearch.errors import MetadataError, Remedy, UsageError
from imgsearch.events import Counted, Event, Listener, Note, Outcome, both, ignore
from imgsearch.exchange.foreign import ForeignRows, check_model
from imgsearch.exchange.layout import Layout
from imgsearch.exchange.readers import Part, Rows, open_parts
from imgsearch.exchange.vectors import normalize
from imgsearch.ingest.verify import WriteVerifier
from imgsearch.metadata.table import common_types
from imgsearch.sites import HERE, own_site
from imgsearch.stores.base import Collection, Vectors, VectorStore, check_dtype_of_store
from imgsearch.types import FieldType, ImageRecord, Stamp, VectorDtype

_MAX_PROBLEMS = 20
_SAME_COSINE = 0.99999


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """Options of one import."""

    model_name: str | None = None
    """The model that made the vectors, if another program wrote them."""
    table: str | None = None
    """The table of a .npy file; by default the one beside it."""
    images: str | None = None
    """The folder that relative paths are relative to; by default the current one."""
    vector_column: str | None = None
    """The column of vectors, if a Parquet file has several."""
    vector_dtype: VectorDtype | None = None
    """How a new collection keeps the vectors. None takes that of the export, or float32."""


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What was imported, in rows: found = imported + skipped + rejected.

    Rows are skipped if the collection has the same record and vector. `files_read` counts images
    whose file is on this machine, and `normalized` vectors that were not L2-normalized.
    """

    source: str
    collection: str
    store: str
    model: str
    dimension: int
    made_elsewhere: bool
    found: int
    imported: int
    skipped: int
    rejected: int
    normalized: int
    files_read: int
    ignored_columns: tuple[str, ...]
    verified: bool
    seconds: float
    interrupted: bool
    problems: tuple[Outcome, ...] = field(default=(), compare=False)
    """The first rejections, for a summary. The listener receives all of them."""

    def to_dict(self) -> dict[str, Any]:
        """Return the object that `imgsearch import --json` prints."""
        fields = asdict(self)
        return {
            **fields,
            "ignored_columns": list(self.ignored_columns),
            "seconds": round(self.seconds, 3),
            "problems": [{"uri": each.uri, "reason": each.reason} for each in self.problems],
        }


def import_vectors(
    source: str,
    store: VectorStore,
    name: str,
    options: ImportOptions | None = None,
    *,
    listener: Listener = ignore,
    stop: threading.Event | None = None,
) -> ImportReport:
    """Add the vectors and records of a file or folder to a collection of a store.

    The collection is created if necessary. Records that it already has are replaced. Setting `stop`
    ends the import early; it can be run again. Memory holds three batches, and 60 bytes for each
    row, to find rows that occur twice. Raises SourceError, UsageError, MetadataError,
    CollectionMismatchError if the collection has another stamp, or StoreError.
    """
    started = time.monotonic()
    stop = stop or threading.Event()
    options = options or ImportOptions()
    check_dtype_of_store(store, options.vector_dtype)
    parts = open_parts(source, options.table, options.vector_column)
    stamp, preferred = _stamp(parts, options.model_name)
    with store.write_lock(name, listener):
        fields = _fields(parts, options)
        destination = open_destination(
            *(store, name, stamp, fields),
            vector_dtype=options.vector_dtype,
            preferred=preferred,
            remedy=Remedy.USE_OTHER_COLLECTION,
        )
        destination.join_site(listener)
        rejections = _Rejections()
        run = _Import(destination, options, both(listener, rejections), stop)
        verifier = WriteVerifier(destination)
        listener(Counted(sum(part.count for part in parts)))
        counts = write_all(run.batches(parts), destination, verifier, both(listener, rejections))
        run.report()
        if verified := not stop.is_set():
            destination.optimize(listener)
            verifier.check(destination, listener)
            keep_current(destination, listener)
    rejected = rejections.count
    return ImportReport(
        source=source,
        collection=name,
        store=store.url,
        model=stamp.model,
        dimension=stamp.dimension,
        made_elsewhere=stamp.made_elsewhere,
        found=counts["indexed"] + counts["skipped"] + rejected,
        imported=counts["indexed"],
        skipped=counts["skipped"],
        rejected=rejected,
        normalized=run.normalized,
        files_read=run.files_read,
        ignored_columns=tuple(dict.fromkeys(each for part in parts for each in part.ignored)),
        verified=verified,
        seconds=time.monotonic() - started,
        interrupted=stop.is_set(),
        problems=tuple(rejections.first),
    )


def _stamp(parts: Sequence[Part], model: str | None) -> tuple[Stamp, VectorDtype]:
    """Return the stamp of the vectors of all parts, and the number format that they had."""
    stamps: dict[Stamp, str] = {}
    for part in parts:
        if part.layout:
            if model:
                raise UsageError(
                    f"{part.file}: says itself which model made its vectors "
                    f"({part.layout.stamp.model}): leave out the name of the model"
                )
            if part.layout.stamp.dimension != part.dimension:
                raise MetadataError(
                    f"{part.file}: its vectors have {part.dimension} dimensions, and its "
                    f"description says {part.layout.stamp.dimension}"
                )
            stamps[part.layout.stamp] = part.file
        else:
            stamps[Stamp.elsewhere(check_model(model, part.file), part.dimension)] = part.file
    if len(stamps) > 1:
        (first, one), (second, two) = list(stamps.items())[:2]
        raise MetadataError(
            f"{one} and {two} have vectors that are not comparable "
            f"({'; '.join(first.differences(second))}): import them into different collections"
        )
    layout = parts[0].layout
    return next(iter(stamps)), layout.vector_dtype if layout else "float32"


def _fields(parts: Sequence[Part], options: ImportOptions) -> dict[str, FieldType]:
    return common_types(
        part.layout.field_types
        if part.layout
        else ForeignRows(part.file, part.columns, options.images, HERE).fields
        for part in parts
    )


class _Rejections:
    """Counts rejected rows, and keeps the first."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[Outcome] = []
        self._lock = threading.Lock()  # rows are read in one thread and written in another

    def __call__(self, event: Event) -> None:
        if isinstance(event, Outcome) and event.status == "rejected":
            with self._lock:
                self.count += 1
                if len(self.first) < _MAX_PROBLEMS:
                    self.first.append(event)


class _Import:
    """Turns the rows of all parts into batches to write."""

    def __init__(
        self,
        destination: Collection,
        options: ImportOptions,
        listener: Listener,
        stop: threading.Event,
    ) -> None:
        self._destination = destination
        self._options = options
        self._listener = listener
        self._stop = stop
        self._seen: set[int] = set()
        self.normalized = 0
        self.files_read = 0
        self._unstored = 0

    def batches(self, parts: Sequence[Part]) -> Iterator[Batch]:
        with ThreadPoolExecutor(8, "imgsearch-read") as pool:
            for part in parts:
                start = 0
                for rows in part.batches():
                    if self._stop.is_set():
                        return
                    yield self._batch(part, rows, start, self._records(part, rows, pool))
                    start += len(rows.rows)

    def _records(
        self, part: Part, rows: Rows, pool: ThreadPoolExecutor
    ) -> Sequence[ImageRecord | str]:
        if part.layout:
            return [self._own_record(part.layout, row) for row in rows.rows]
        foreign = ForeignRows(
            part.file, part.columns, self._options.images, self._destination.sites
        )
        records = foreign.records(rows.rows, pool)
        self.files_read += foreign.read
        self._unstored += foreign.unstored
        return _of_types(records, foreign.fields, self._destination.fields)

    def _own_record(self, layout: Layout, row: Mapping[str, Any]) -> ImageRecord | str:
        site = row.get("site")
        if site and site == own_site():
            site = None
        try:
            return layout.to_record(row, self._destination.sites.qualified(row["uri"], site))
        except (KeyError, TypeError, ValueError, AttributeError):
            return "the row is damaged: a column of the record is missing or empty"

    def _batch(
        self, part: Part, rows: Rows, start: int, records: Sequence[ImageRecord | str]
    ) -> Batch:
        vectors, unusable, changed = normalize(rows.vectors)
        unusable |= rows.unusable
        fresh: list[ImageRecord] = []
        places: list[int] = []
        for place, record in enumerate(records):
            where = f"{part.file}#{start + place}"
            if isinstance(record, str):
                self._listener(Outcome(where, "rejected", record))
            elif place in unusable:
                self._listener(Outcome(record.uri, "rejected", unusable[place]))
            elif (key := int(record.id[:8] + record.id[-8:], 16)) in self._seen:
                reason = "another row is of the same image"
                self._listener(Outcome(record.uri, "rejected", reason))
            else:
                self._seen.add(key)
                self.normalized += bool(changed[place])
                fresh.append(record)
                places.append(place)
        return self._compared(fresh, vectors[places])

    def _compared(self, records: list[ImageRecord], vectors: Vectors) -> Batch:
        """Return a batch without what the collection already has."""
        known = self._destination.lookup([record.id for record in records])
        equal = [record.id for record in records if known.get(record.id) == record]
        stored = self._destination.vectors_by_id(equal) if equal else {}
        new = [
            place
            for place, record in enumerate(records)
            if record.id not in stored or stored[record.id] @ vectors[place] < _SAME_COSINE
        ]
        fresh = [records[place] for place in new]
        written = {record.id for record in fresh}
        return Batch(
            skipped=[record for record in records if record.id not in written],
            fresh=fresh,
            vectors=vectors[new],
            known=set(known),
        )

    def report(self) -> None:
        """Tell what was changed on the way."""
        if self.normalized:
            self._listener(
                Note(f"{self.normalized:,} vectors were not L2-normalized, and have been")
            )
        if self._unstored:
            self._listener(
                Note(
                    f"{self._unstored:,} values were left out, as no store can hold them (not "
                    "finite, more than 64 bits, or a NUL in a text)"
                )
            )


def _of_types(
    records: Sequence[ImageRecord | str],
    mine: Mapping[str, FieldType],
    theirs: Mapping[str, FieldType],
) -> Sequence[ImageRecord | str]:
    """Return records whose values are of the types that the collection has for them."""
    other = {name for name, kind in mine.items() if theirs.get(name, kind) != kind}
    if not other:
        return records
    convert = {"float": float, "str": str}

    def converted(record: ImageRecord) -> ImageRecord:
        metadata = {
            name: convert[theirs[name]](value) if name in other else value
            for name, value in record.metadata.items()
        }
        return replace(record, metadata=metadata)

    return [each if isinstance(each, str) else converted(each) for each in records]
