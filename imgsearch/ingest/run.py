"""Ingest: scan > skip unchanged > read > reuse known > decode > encode > write > sweep.

The stages are generators, each pulling from the one before. Reading and decoding are done by a
pool of threads, a bounded number of pictures ahead; everything up to decoding runs in one thread,
encoding in another (in more, where the encoder has several devices or overlaps its transfers),
writing in the caller's. So they overlap, memory is bounded by the batch size, and a file leaves the
pipeline in the order in which it was found.
"""

import contextlib
import math
import sys
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from imgsearch import config, images
from imgsearch.encoders.base import Encoder, Vectors
from imgsearch.encoders.catalog import AUTO
from imgsearch.encoders.factory import open_encoder
from imgsearch.encoders.request import EncoderRequest, check_device, check_request
from imgsearch.errors import (
    CollectionMismatchError,
    DeviceMemoryError,
    ImageError,
    ImgsearchError,
    MetadataError,
    NothingFoundError,
    StoreError,
)
from imgsearch.events import Counted, Listener, Note, Outcome, Status, ignore
from imgsearch.images import Fingerprint, Picture
from imgsearch.ingest import pruning, resuming
from imgsearch.ingest.pruning import DoubtfulFolder
from imgsearch.ingest.sampling import AMONG, PictureSample, StoppedError
from imgsearch.ingest.stopwatch import Stopwatch
from imgsearch.ingest.verify import Witness
from imgsearch.metadata import origins
from imgsearch.metadata import table as metadata
from imgsearch.metadata.changes import difference, rebased
from imgsearch.metadata.table import MetadataReport, MetadataTable
from imgsearch.sites import HERE, Sites
from imgsearch.sources import Candidate, ScanLog, Sources, Unusable, resolve, scan
from imgsearch.stores import is_server
from imgsearch.stores.base import Collection, VectorStore
from imgsearch.system import memory, scratch
from imgsearch.system.pipeline import FLUSH, Flush, gathered, map_ahead, prefetched
from imgsearch.types import FieldType, ImageRecord, Metadata, Origins, Stamp

T = TypeVar("T")

# Files looked up in the store at once.
_LOOKUP = 512
# Records are written when so many wait, or after so many seconds: what a killed run can lose.
_WRITE_ROWS = 512
_WRITE_SECONDS = 2.0
# How soon a stage notices that another has failed while the sources give nothing new.
_ALERT_SECONDS = 0.5
# What the time is told of; `index` is all that is done after the last picture is in.
_STAGES = ("scan", "read", "decode", "encode", "write", "index")
_POOLED = ("read", "decode")
# Threads are made as they are needed; more batches than these are never in flight.
_MOST_IN_FLIGHT = 64


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """How to ingest. `limit` counts files found; `max_pixels` are width x height of a picture."""

    batch_size: int | None = None
    """Pictures that the model takes at once; None is what suits the device."""
    workers: int = field(default_factory=config.default_workers)
    metadata: str | None = None
    limit: int | None = None
    prune: bool = False
    prune_missing: bool = False
    """Whether to prune folders in doubt, too: those most of whose files are gone."""
    replace: bool = False
    """Whether to embed with another model, into a collection that takes the old one's place."""
    max_pixels: int = config.DEFAULT_MAX_PIXELS
    count_ahead: bool = False
    """Whether to count the pictures in the background and report the total, for a progress bar."""


@dataclass
class IngestReport:
    """What a run did: always found = indexed + reused + skipped + rejected.

    `seconds` are of the whole run, `preparing` those before the model could be used: above all,
    once, its export and calibration. `images_per_second` are those indexed in the rest of it;
    `runtime`, `device` and `compute_type` are None if no picture needed the model.
    """

    collection: str
    store: str
    model: str | None = None
    precision: str | None = None
    """The collection's: `fp32` or `int8`."""
    runtime: str | None = None
    device: str | None = None
    compute_type: str | None = None
    """The numeric format that the device computed in: fp32, fp16, bf16, int8."""
    found: int = 0
    indexed: int = 0
    reused: int = 0
    skipped: int = 0
    rejected: int = 0
    removed: int = 0
    verified: bool = False
    """Whether the store was found to hold what was written: never after an interruption."""
    seconds: float = 0.0
    preparing: float = 0.0
    images_per_second: float = 0.0
    busy: dict[str, float] = field(default_factory=dict)
    """Seconds for which each stage was at work, as the mean of its threads where it has several.
    Stages overlap, so that the sum is more than `seconds`; where they share the cores, a stage's
    time includes its wait for one."""
    interrupted: bool = False
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    unpruned: list[DoubtfulFolder] = field(default_factory=list)
    """Folders whose records were kept, though most of their files are gone."""
    left_out: int = 0
    other_files: int = 0
    metadata: list[MetadataReport] = field(default_factory=list)
    problems: list[Outcome] = field(default_factory=list)
    """The first rejections, for a summary; the listener gets all of them."""

    @property
    def limit(self) -> str | None:
        """The stage that was busy the longest: a faster one would make the run shorter."""
        return max(self.busy, key=lambda stage: self.busy[stage], default=None)

    def to_dict(self) -> dict[str, Any]:
        """The object that `ingest --json` prints."""
        return {
            "collection": self.collection,
            "store": self.store,
            "model": self.model,
            "precision": self.precision,
            "runtime": self.runtime,
            "device": self.device,
            "compute_type": self.compute_type,
            "found": self.found,
            "indexed": self.indexed,
            "reused": self.reused,
            "skipped": self.skipped,
            "rejected": self.rejected,
            "removed": self.removed,
            "seconds": round(self.seconds, 3),
            "preparing": round(self.preparing, 3),
            "images_per_second": round(self.images_per_second, 2),
            "busy": {stage: round(seconds, 3) for stage, seconds in self.busy.items()},
            "limit": self.limit,
            "verified": self.verified,
            "interrupted": self.interrupted,
            "unreadable_folders": [
                {"path": path, "reason": reason} for path, reason in self.unreadable
            ],
            "unpruned_folders": [asdict(folder) for folder in self.unpruned],
            "left_out": self.left_out,
            "other_files": self.other_files,
            "metadata": [table.to_dict() for table in self.metadata],
        }


def ingest(
    names: Sequence[str],
    store: VectorStore,
    collection: str,
    request: EncoderRequest | None = None,
    options: IngestOptions | None = None,
    *,
    stdin: Iterable[str] = (),
    listener: Listener = ignore,
    stop: threading.Event | None = None,
    encoder_opener: Callable[..., Encoder] = open_encoder,
) -> IngestReport:
    """Bring the pictures that `names` lead to into a collection, which is made if need be.

    `names` are folders, files, globs, or `-` for the paths in `stdin`. Setting `stop` ends the run
    early, after what is in flight has been written. Raises SourceError (NothingFoundError if there
    is no picture at all), MetadataError, EncoderError or StoreError; what was written until then
    stays, and the next run goes on from there.
    """
    request = request or EncoderRequest()
    check_device(request)
    sources = resolve(names)
    options = options or IngestOptions()
    with store.write_lock(collection, listener), ExitStack() as cleanup:
        stdin, ahead = _looked_ahead(stdin, request)
        stop = stop or threading.Event()
        sample = PictureSample(sources, ahead, options.limit, options.max_pixels, stop.is_set)
        request = replace(request, sample=sample, checked=True)
        started = time.monotonic()
        target = _Target(store, collection, request, encoder_opener, listener, options.replace)
        target.resume(sources)
        places = scratch.places(*(() if is_server(store.url) else [Path(store.url)]))
        for place in places:
            scratch.clean(place)
        stdin, first = _peeked(stdin)
        tables = _open_tables(sources, first, options.metadata, places, listener, cleanup)
        fields = _fields_of(tables, target.fields, listener, strict=options.metadata is not None)
        target.add_fields(fields)
        run = _Run(target, tables, options, listener, stop, started)
        return run.over(sources, stdin)


def _looked_ahead(stdin: Iterable[str], request: EncoderRequest) -> tuple[Iterable[str], list[str]]:
    """Paths, and the first of them: they are waited for only where there is a need of a sample."""
    lines = iter(stdin)
    ahead = list(islice(lines, AMONG)) if request.precision == "int8" else []
    return chain(ahead, lines), ahead


def _peeked(stdin: Iterable[str]) -> tuple[Iterable[str], Iterator[str]]:
    """Paths, and the first of them by itself, for which nobody waits who does not ask for it."""
    lines, seen = iter(stdin), list[str]()

    def first() -> Iterator[str]:
        for line in islice(lines, 1):
            seen.append(line)
            yield line

    return chain(seen, lines), first()


class _Target:
    """The collection and the encoder that fills it, each opened when it is first needed.

    A run that finds nothing new never loads the model, and leaves no empty collection behind.
    """

    def __init__(
        self,
        store: VectorStore,
        name: str,
        request: EncoderRequest,
        encoder_opener: Callable[..., Encoder],
        listener: Listener,
        replace: bool,
    ) -> None:
        self.store = store
        self.name = name
        self._request = request
        self._open_encoder = encoder_opener
        self._listener = listener
        self._encoder: Encoder | None = None
        self._fields: dict[str, FieldType] = {}
        self.collection: Collection | None = None
        self.previous: Collection | None = None
        """The collection whose place is to be taken."""
        self.claimed = False
        """Whether nobody knows yet whose records the collection holds (see `join_site`)."""
        self.preparing = 0.0
        """Seconds until the model could be used."""
        if name in store.names():
            self.collection = store.open(name)
            self.claimed = self.collection.join_site(listener)
            if replace:
                self._begin_successor(self.collection)
            else:
                check_request(request, self.collection.stamp)

    def _begin_successor(self, current: Collection) -> None:
        if self._request.model == AUTO and self._request.precision:  # that alone is to change
            self._request = replace(self._request, model=current.stamp.model)
        self._encoder = self._opened(None)
        stamp = self._encoder.stamp
        if stamp == current.stamp:
            self._listener(Note(f"collection {self.name} is of {_told(stamp)} already"))
            return
        self.previous = current
        self.collection = self.store.replacement(self.name, stamp, current.fields)
        self.collection.join_site(self._listener)

    def resume(self, sources: Sources) -> None:
        """Bring what an interrupted run put into the new collection up to date."""
        if self.previous is None or self.collection is None:
            return
        if outdated := resuming.reconcile(self.collection, self.previous, sources):
            self._listener(
                Note(
                    f"the interrupted replacement of collection {self.name} is resumed; "
                    f"{outdated:,} of its records were removed or changed since then"
                )
            )

    def promote(self) -> None:
        """Let the new collection take the old one's place."""
        assert self.collection is not None
        self.store.promote(self.name, self.collection.stamp)
        self.previous = None
        self.collection = self.store.open(self.name)

    @property
    def fields(self) -> dict[str, FieldType]:
        return dict(self.collection.fields) if self.collection else {}

    def add_fields(self, fields: dict[str, FieldType]) -> None:
        self._fields = fields
        if self.collection:
            self.collection.add_fields(fields)

    @property
    def stamp(self) -> Stamp | None:
        return self.collection.stamp if self.collection else None

    @property
    def opened_encoder(self) -> Encoder | None:
        return self._encoder

    def encoder(self) -> Encoder:
        """Opened by the feeding thread, before any other asks for it."""
        if self._encoder is None:
            encoder = self._opened(self.stamp)
            if self.stamp and encoder.stamp.precision != self.stamp.precision:
                raise CollectionMismatchError(
                    f"collection {self.name} was made in {self.stamp.precision}, and the model "
                    "calibrated for it is not on this machine, or not for this device: copy it "
                    f"into {config.models_dir()} from the machine that made the collection; or "
                    "calibrate it again by ingesting the same pictures as the first time into "
                    "another --collection with --precision int8; or make the collection anew with "
                    "--replace --precision int8"
                )
            self._encoder = encoder
        return self._encoder

    def _opened(self, stamp: Stamp | None) -> Encoder:
        started = time.monotonic()
        try:
            return self._open_encoder(self._request, stamp, self._listener)
        finally:
            self.preparing += time.monotonic() - started

    def writable(self) -> Collection:
        if self.collection is None:
            stamp = self.encoder().stamp
            self.collection = self.store.open_or_create(self.name, stamp, self._fields)
            self.collection.join_site(self._listener)
        return self.collection

    @property
    def sites(self) -> Sites:
        return self.collection.sites if self.collection else HERE


def _told(stamp: Stamp) -> str:
    return f"{stamp.model} in {stamp.number_format}"


def _open_tables(
    sources: Sources,
    first: Iterable[str],
    named: str | None,
    places: Sequence[Path],
    listener: Listener,
    cleanup: ExitStack,
) -> list[MetadataTable]:
    """The table that is named, else those of the folders. `first` are paths from stdin."""
    if named is not None:
        among = chain(first, _examples(sources))
        return [cleanup.enter_context(MetadataTable(named, None, places, among))]
    tables = []
    for folder in sources.folders:
        if file := metadata.find_for(folder):
            try:
                examples = _examples(Sources((folder,), (), ()))
                table = MetadataTable(file, folder, places, examples)
                tables.append(cleanup.enter_context(table))
                listener(Note(f"metadata: {file}, joined by its column {table.column}"))
            except MetadataError as error:
                # Nobody asked for this file; it may have nothing to do with the pictures.
                listener(Note(f"metadata left out: {error}"))
    return tables


def _examples(sources: Sources) -> Iterator[str]:
    """Paths of some images of every source."""
    each = [Sources((folder,), (), ()) for folder in sources.folders]
    each += [replace(sources, folders=(), stdin=False)]
    for source in each:
        found = islice(scan(source, ScanLog()), metadata.MOST_EXAMPLES // len(each))
        yield from (entry.path for entry in found if isinstance(entry, Candidate))


def _fields_of(
    tables: Sequence[MetadataTable],
    existing: dict[str, FieldType],
    listener: Listener,
    *,
    strict: bool,
) -> dict[str, FieldType]:
    """The fields of all tables; each table reads its columns as the collection has them.

    A field that is new gets the type that holds the values of all tables, whatever their order.
    Raises MetadataError if `strict`, where values are not of the collection's type; else they are
    left out with a note.
    """
    fields = metadata.common_types(table.fields for table in tables) | existing
    for table in tables:
        misfits = table.widen(fields)
        if strict and misfits:
            raise MetadataError(
                f"{table.file}: {misfits[0]}; correct the file, rename the column, or use another "
                "collection"
            )
        for misfit in misfits:
            listener(Note(f"metadata of {table.file}: {misfit}: such values are left out"))
    return {name: fields[name] for table in tables for name in table.fields} | existing


@dataclass(slots=True)
class _Item:
    """One file on its way. It ends with a reason for rejection, or with a record and a vector."""

    candidate: Candidate
    metadata: Metadata = field(default_factory=dict)
    origins: Origins | None = None
    fingerprint: Fingerprint | None = None
    picture: Picture | None = None
    vector: Vectors | None = None
    size: tuple[int, int] = (0, 0)
    status: Status | None = None
    reason: str = ""
    replaces: ImageRecord | None = None

    def reject(self, reason: str) -> None:
        self.status, self.reason = "rejected", reason
        if self.replaces:
            self.reason += " (the record of what the file held before is kept)"

    @property
    def ended(self) -> bool:
        return self.status is not None


@dataclass(frozen=True, slots=True)
class _Flight:
    """A batch, the digests of its new pictures, and their vectors to be; None if there is none."""

    batch: list[_Item]
    new: list[str]
    vectors: Future[Vectors] | None


class _Run:
    def __init__(
        self,
        target: _Target,
        tables: list[MetadataTable],
        options: IngestOptions,
        listener: Listener,
        stop: threading.Event,
        started: float,
    ) -> None:
        """`started` is when the model could first be prepared, by `time.monotonic`."""
        self._started = started
        self._target = target
        self._tables = tables
        self._options = options
        self._listener = listener
        self._stop = stop
        self._log = ScanLog()
        self._found = 0
        self._counts: Counter[Status] = Counter()
        self._witness = Witness(target.collection)
        self._problems: list[Outcome] = []
        self._unpruned: list[DoubtfulFolder] = []
        # What the device was found to hold.
        self._fits = sys.maxsize
        self._fitting = threading.Lock()
        self._busy = Stopwatch(_STAGES)
        self._failed = threading.Event()
        self._older = 0
        self._read_ahead = memory.read_ahead_budget()
        # Vectors that may not be in the store yet, so that copies within a run are encoded once.
        self._recent: OrderedDict[str, Vectors] = OrderedDict()

    @property
    def _batch_size(self) -> int:
        """As the user said, else as it suits the device, once that is known."""
        encoder = self._target.opened_encoder
        suits = encoder.batch_size if encoder else config.DEFAULT_BATCH_SIZE
        return self._options.batch_size or suits

    @property
    def _concurrency(self) -> int:
        """Batches in flight at once."""
        encoder = self._target.opened_encoder
        return min(encoder.concurrency, _MOST_IN_FLIGHT) if encoder else 1

    @property
    def _recent_size(self) -> int:
        """More than the pipeline can hold pictures."""
        return (16 + 2 * self._concurrency) * self._batch_size + _WRITE_ROWS

    def over(self, sources: Sources, stdin: Iterable[str]) -> IngestReport:
        if self._options.count_ahead and not sources.stdin:
            self._count_ahead(sources)
        with ThreadPoolExecutor(self._options.workers, "imgsearch-read") as pool:
            items = prefetched(self._prepared(sources, stdin, pool), depth=1)
            encoded = prefetched(self._encoded(items), depth=2)
            try:
                self._write_all(encoded)
            except StoppedError:  # while the model was being prepared: nothing has been taken yet
                self._found = sum(self._counts.values())
            except BaseException:
                self._failed.set()
                raise
            finally:
                encoded.close()
                items.close()
        if self._found == 0 and not self._stop.is_set():
            raise NothingFoundError(self._nothing_found(sources))
        removed = self._sweep(sources) if self._options.prune else 0
        with self._busy("index"):
            verified = self._finish() if not self._stop.is_set() else False
        return self._report(time.monotonic() - self._started, removed, verified)

    def _finish(self) -> bool:
        """Bring the collection into order, and prove that it holds what was written."""
        target = self._target
        if target.collection is None:
            return False
        if self._older and target.sites.own:
            self._listener(
                Note(
                    f"{self._older:,} images have replaced newer files of the same paths. If other "
                    f"machines of site {target.sites.own} ingest files of their own at these "
                    f"paths, each needs an {config.ENV_SITE} of its own"
                )
            )
        target.collection.optimize(self._listener)
        self._witness.check(target.collection, self._listener)
        if target.previous:
            self._check_nothing_is_left_behind(target.previous, target.collection)
            target.promote()
            target.collection.optimize(self._listener)
            stamp = target.collection.stamp
            self._listener(Note(f"collection {target.name} is of {_told(stamp)}"))
        return True

    def _check_nothing_is_left_behind(self, old: Collection, new: Collection) -> None:
        left, elsewhere, example = 0, 0, ""
        found = self._survey(old.scan, None) if self._options.prune else pruning.Survey(0)
        for records in old.scan():
            there = new.lookup([record.id for record in records])
            missing = [record for record in records if record.id not in there]
            if self._options.prune:
                missing = [
                    record
                    for record in missing
                    if found.covers(record.path) or not pruning.is_gone(record)
                ]
            elsewhere += sum(record.site is not None for record in missing)
            left += len(missing)
            example = example or next((record.path for record in missing), "")
        if left:
            raise StoreError(
                f"collection {self._target.name} stays as it was: {left:,} of its pictures are "
                f"not among the new ones, for example {example}. Name all their folders, "
                "let go of files that are gone with --prune, or take pictures out with `imgsearch "
                "remove`; what has been done is kept for the next run"
                + (f". {elsewhere:,} are of other machines: do the same there" if elsewhere else "")
            )

    def _is_ending(self) -> bool:
        return self._stop.is_set() or self._failed.is_set()

    def _count_ahead(self, sources: Sources) -> None:
        """Count the pictures in the background, so that progress can be shown against a total."""

        def count() -> None:
            total = sum(1 for _ in scan(sources, ScanLog(), stopped=self._is_ending))
            self._listener(Counted(min(total, self._options.limit or total)))

        threading.Thread(target=count, name="imgsearch-count", daemon=True).start()

    # Stages, in the order in which a file passes them. Ended items pass the later ones untouched.

    def _prepared(
        self, sources: Sources, stdin: Iterable[str], pool: Executor
    ) -> Iterator[list[_Item]]:
        """Batches of which at most `batch_size` images need the model.

        An empty one says that those behind it may be long in coming.
        """
        ahead = self._batch_size + self._options.workers
        fresh = self._fresh(sources, stdin)
        read = map_ahead(pool, self._read, fresh, ahead)
        known = self._reused(read)
        decoded = map_ahead(pool, self._decode, known, ahead)
        batch: list[_Item] = []
        pictures = 0
        for item in decoded:
            if item is FLUSH:
                if batch:
                    yield batch
                yield []
                batch, pictures = [], 0
                continue
            if self._stop.is_set() and item.picture:
                self._found -= 1  # as if it had not been met: the next run takes it
                continue
            batch.append(item)
            pictures += item.picture is not None
            if pictures >= self._batch_size or len(batch) >= _LOOKUP:
                yield batch
                batch, pictures = [], 0
        if batch:
            yield batch

    def _fresh(self, sources: Sources, stdin: Iterable[str]) -> Iterator[_Item | Flush]:
        """Files that are new or changed, or whose metadata has changed; others are skipped.

        With `FLUSH` among them where the search for the next has taken long.
        """
        found = scan(sources, self._log, stdin, self._is_ending)
        chunks = gathered(
            islice(found, self._options.limit),
            _LOOKUP,
            _ALERT_SECONDS,
            lambda seconds: self._busy.add("scan", seconds),
        )
        with contextlib.closing(chunks):
            yield from self._with_flushes(self._fresh_of(chunks))

    def _with_flushes(self, items: Iterable[_Item | None]) -> Iterator[_Item | Flush]:
        """The items, and a `FLUSH` in place of None once the waits for items add up.

        Time that the later stages take is no wait: they are busy, and hold back nothing for long.
        """
        waited, since = 0.0, time.monotonic()
        for item in items:
            waited += time.monotonic() - since
            if item is not None:
                yield item
            if waited >= _WRITE_SECONDS:
                yield FLUSH
                waited = 0.0
            since = time.monotonic()

    def _fresh_of(self, chunks: Iterable[list[Candidate | Unusable]]) -> Iterator[_Item | None]:
        """Fresh files, with None after each chunk, even if none of its files is fresh."""
        for chunk in chunks:
            if self._is_ending():
                return
            if not (sites := self._target.sites).at_home:
                chunk = [replace(entry, sites=sites) for entry in chunk]
            candidates = [entry for entry in chunk if isinstance(entry, Candidate)]
            ids = [entry.id for entry in candidates]
            collection, previous = self._target.collection, self._target.previous
            with self._busy("scan"):
                known = collection.lookup(ids) if collection and ids else {}
                before = previous.lookup(ids) if previous and ids else known
            for entry in chunk:
                if self._is_ending():
                    return
                self._found += 1
                if isinstance(entry, Unusable):
                    item = _Item(Candidate(entry.path, 0, 0))
                    item.reject(entry.reason)
                    yield item
                else:
                    yield from self._if_fresh(entry, known.get(entry.id), before.get(entry.id))
            yield None

    def _if_fresh(
        self, candidate: Candidate, known: ImageRecord | None, before: ImageRecord | None
    ) -> Iterator[_Item]:
        """`before` is the record in the collection whose place is to be taken, else the known."""
        path = candidate.path
        rows = ((each, each.lookup(path)) for each in self._tables if each.covers(path))
        values, owners = origins.joined(known or before, rows)
        item = _Item(candidate, metadata=values, origins=owners, replaces=known)
        if known is None or (known.size, known.mtime_ns) != (candidate.size, candidate.mtime_ns):
            yield item
        elif values != known.metadata or (
            # Collections of earlier versions are not rewritten for it.
            known.origins is not None and owners != known.origins
        ):
            item.status, item.reason = "reused", "metadata changed"
            yield item
        else:
            self._end(candidate.uri, "skipped")

    def _reused(self, items: Iterable[_Item | Flush]) -> Iterator[_Item | Flush]:
        """Give files whose content is known (renamed, copied, touched) the stored vector."""
        for chunk in self._chunks(items):
            if chunk is FLUSH:
                yield FLUSH
                continue
            digests = {item.fingerprint.sha256 for item in chunk if item.fingerprint}
            collection = self._target.collection
            stored = collection.vectors_by_digest(sorted(digests)) if collection and digests else {}
            for item in chunk:
                if item.fingerprint and (known := stored.get(item.fingerprint.sha256)):
                    item.vector = known.vector
                    item.size = (known.width, known.height)
                    item.status, item.reason = "reused", "same content as a known picture"
                    self._drop_data(item)
                if not item.ended:
                    # Here, in one thread, before the pool's threads ask for it.
                    self._target.encoder()
                yield item

    def _chunks(self, items: Iterable[_Item | Flush]) -> Iterator[list[_Item] | Flush]:
        """Lists of `batch_size` items, and shorter ones before a flush and at the end."""
        chunk: list[_Item] = []
        for item in items:
            if item is not FLUSH:
                chunk.append(item)
            if chunk and (item is FLUSH or len(chunk) >= self._batch_size):
                yield chunk
                chunk = []
            if item is FLUSH:
                yield FLUSH
        if chunk:
            yield chunk

    def _read(self, item: _Item) -> _Item:
        if not item.ended:
            with self._busy("read"):
                try:
                    item.fingerprint = self._affordable(images.fingerprint(item.candidate.path))
                except Exception as error:
                    item.reject(_reason(error))
        return item

    def _affordable(self, fingerprint: Fingerprint) -> Fingerprint:
        """Without the file's bytes if those read ahead are too many: it is read again then."""
        if fingerprint.data is None or self._read_ahead.take(len(fingerprint.data)):
            return fingerprint
        return replace(fingerprint, data=None)

    def _drop_data(self, item: _Item) -> None:
        if item.fingerprint and item.fingerprint.data is not None:
            self._read_ahead.give_back(len(item.fingerprint.data))
            item.fingerprint = replace(item.fingerprint, data=None)

    def _decode(self, item: _Item) -> _Item:
        with self._busy("decode"):
            return self._decoded(item)

    def _decoded(self, item: _Item) -> _Item:
        if not item.ended and item.fingerprint:
            source = item.fingerprint.data or item.candidate.path
            preprocessing = self._target.encoder().preprocessing
            try:
                item.picture = images.decode(source, preprocessing, self._options.max_pixels)
                item.size = (item.picture.width, item.picture.height)
                if item.fingerprint.data is None:  # a large file, which was opened again
                    images.check_unchanged(item.candidate.path, item.fingerprint)
            except Exception as error:
                item.picture = None
                item.reject(_reason(error))
            finally:
                self._drop_data(item)
        return item

    def _encoded(self, batches: Iterable[list[_Item]]) -> Iterator[list[_Item]]:
        """The same batches, in order, with vectors; so many at once as keep the encoder busy."""
        flying: deque[_Flight] = deque()
        with ThreadPoolExecutor(_MOST_IN_FLIGHT, "imgsearch-encode") as pool:
            for batch in batches:
                if not batch:
                    while flying:
                        yield self._land(flying.popleft())
                    yield []
                    continue
                flying.append(self._take_off(batch, flying, pool))
                if len(flying) >= self._concurrency:
                    yield self._land(flying.popleft())
            while flying:
                yield self._land(flying.popleft())

    def _take_off(self, batch: list[_Item], flying: Iterable[_Flight], pool: Executor) -> _Flight:
        """Encode what is neither known nor about to be."""
        waiting: dict[str, _Item] = {}
        for item in batch:
            if item.picture and item.fingerprint:
                waiting.setdefault(item.fingerprint.sha256, item)
        new = [
            digest
            for digest in waiting
            if digest not in self._recent and not any(digest in other.new for other in flying)
        ]
        for digest in waiting.keys() & self._recent.keys():
            self._recent.move_to_end(digest)  # it must still be there when the batch lands
        if not new:
            return _Flight(batch, [], None)
        pixels = np.stack([_pixels(waiting[digest]) for digest in new])
        return _Flight(batch, new, pool.submit(self._encode, pixels))

    def _land(self, flight: _Flight) -> list[_Item]:
        if flight.vectors:
            self._recent.update(zip(flight.new, flight.vectors.result(), strict=True))
        fresh = list(flight.new)
        for item in flight.batch:
            if item.picture and item.fingerprint:
                self._take_vector(item, fresh)
        while len(self._recent) > self._recent_size:
            self._recent.popitem(last=False)
        return flight.batch

    def _take_vector(self, item: _Item, fresh: list[str]) -> None:
        digest = item.fingerprint.sha256 if item.fingerprint else ""
        item.vector, item.picture = self._recent[digest], None
        if digest in fresh:
            fresh.remove(digest)
            item.status = "indexed"
        else:
            item.status, item.reason = "reused", "same content as another picture"

    def _encode(self, pixels: images.Pixels) -> Vectors:
        """In parts, where a batch does not fit into the device's memory."""
        vectors: list[Vectors] = []
        start = 0
        while start < len(pixels):
            part = pixels[start : start + self._fits]
            try:
                with self._busy("encode"):
                    vectors.append(self._target.encoder().encode(part))
                start += len(part)
            except DeviceMemoryError as error:
                if len(part) == 1:
                    raise
                self._take_less(len(part) // 2, error)
        return np.concatenate(vectors)

    def _take_less(self, length: int, error: DeviceMemoryError) -> None:
        """Several threads may come here at once, of which those behind have nothing to say."""
        with self._fitting:
            if length < self._fits:
                self._fits = length
                self._listener(Note(f"{error}: going on with batches of {length}"))

    def _write_all(self, batches: Iterable[list[_Item]]) -> None:
        waiting: list[_Item] = []
        # The first at once: a store that takes nothing is told of before the work is done, and
        # what it loads for its first write is loaded while the model works.
        since = -math.inf
        for batch in batches:
            waiting += batch
            late = not batch or time.monotonic() - since >= _WRITE_SECONDS
            if waiting and (late or len(waiting) >= _WRITE_ROWS):
                self._write(waiting)
                waiting, since = [], time.monotonic()
        self._write(waiting)

    def _write(self, items: Sequence[_Item]) -> None:
        if any(item.vector is not None for item in items):
            self._target.writable()
        if not (sites := self._target.sites).at_home:  # another site may just have made it
            for item in items:
                item.candidate = replace(item.candidate, sites=sites)
        # A file named twice in one list may be here twice; the later one is the newer.
        written = {item.candidate.id: item for item in items if item.vector is not None}
        changed = {
            item.candidate.id: item
            for item in items
            if item.vector is None and item.status == "reused"
        }
        with self._busy("write"):
            refused = self._store(written, changed)
        for item in items:
            if reason := refused.get(item.candidate.id):
                item.reject(reason)
            self._end(item.candidate.uri, item.status or "rejected", item.reason)

    def _store(self, written: dict[str, _Item], changed: dict[str, _Item]) -> dict[str, str]:
        """Returns the ids of what the store refused, with the reason."""
        refused: dict[str, str] = {}
        if written:
            collection = self._target.writable()
            known = collection.lookup(list(written))
            self._older += sum(_is_older(item, known.get(key)) for key, item in written.items())

            records = {key: _record(item, known) for key, item in written.items()}

            def upsert(items: Sequence[_Item]) -> dict[str, str]:
                vectors = np.stack([_vector(item) for item in items])
                return collection.upsert([records[item.candidate.id] for item in items], vectors)

            items = list(written.values())
            refused = _sparing(items, upsert)
            vectors = np.stack([_vector(item) for item in items])
            self._witness.wrote(list(records.values()), vectors, known, refused)
        if changed:
            collection = self._target.writable()

            def update_metadata(items: Sequence[_Item]) -> dict[str, str]:
                before = {item.candidate.id: _before(item) for item in items}
                collection.update_metadata(
                    {
                        item.candidate.id: difference(before[item.candidate.id][0], item.metadata)
                        for item in items
                    },
                    {
                        item.candidate.id: difference(
                            before[item.candidate.id][1] or {}, item.origins or {}
                        )
                        for item in items
                    },
                )
                return {}

            refused |= _sparing(list(changed.values()), update_metadata)
        return refused

    def _end(self, uri: str, status: Status, reason: str = "") -> None:
        """A file's end is told only after it is in the store."""
        outcome = Outcome(uri, status, reason)
        self._counts[status] += 1
        if status == "rejected" and len(self._problems) < 20:
            self._problems.append(outcome)
        self._listener(outcome)

    def _sweep(self, sources: Sources) -> int:
        """Remove the records of files that are gone, folder by folder, where that is sure."""
        collection = self._target.collection
        if collection is None or self._stop.is_set():
            return 0
        if self._target.claimed:
            self._listener(
                Note(
                    "nothing pruned: other machines may have written some of the records, and had "
                    "no chance yet to say so; the next run prunes"
                )
            )
            return 0
        if self._log.unreadable:
            self._listener(Note("nothing pruned: some folders could not be read"))
            return 0
        if not sources.folders:
            self._listener(Note("nothing pruned: only folders are, not single files"))
        return sum(self._sweep_folder(collection, folder) for folder in sources.folders)

    def _sweep_folder(self, collection: Collection, folder: str) -> int:
        prefix = collection.sites.uri(folder).removesuffix("/") + "/"
        found = self._survey(lambda: collection.scan(prefix), folder)
        removed = 0
        for records in collection.scan(prefix) if found.missing else ():
            missing = [
                record
                for record in records
                if pruning.is_gone(record) and not found.covers(record.path)
            ]
            ids = [record.id for record in missing]
            deleted = collection.delete(ids)
            self._witness.removed(ids, deleted)
            removed += deleted
            for record in missing:
                self._listener(Outcome(record.uri, "removed", "the file is gone"))
        return removed

    def _survey(
        self, records: Callable[[], Iterable[list[ImageRecord]]], folder: str | None
    ) -> pruning.Survey:
        """Survey missing files; folders whose records are kept go into the report."""
        found = pruning.survey(records, folder)
        if self._options.prune_missing:
            return pruning.Survey(found.missing)
        for doubtful in found.doubtful:
            self._unpruned.append(doubtful)
            total = doubtful.missing + doubtful.present
            self._listener(
                Note(
                    f"nothing pruned under {doubtful.path}: {doubtful.missing:,} of its {total:,} "
                    "images are gone; is a drive not mounted, or a sync incomplete?"
                )
            )
        return found

    def _nothing_found(self, sources: Sources) -> str:
        places = ", ".join(sources.folders + sources.files + sources.matches) or "the list"
        others = f" ({self._log.other_files:,} other files)" if self._log.other_files else ""
        unreadable = "".join(f"; {path}: {reason}" for path, reason in self._log.unreadable[:3])
        return f"no picture found in {places}{others}{unreadable}"

    def _report(self, seconds: float, removed: int, verified: bool) -> IngestReport:
        counts = self._counts
        if self._found != sum(counts.values()):
            raise StoreError(
                f"internal error: {self._found} files were found, but {sum(counts.values())} are "
                "accounted for; please report this"
            )
        target = self._target
        stamp, encoder = target.stamp, target.opened_encoder
        return IngestReport(
            collection=target.name,
            store=target.store.url,
            model=stamp.model if stamp else None,
            precision=stamp.number_format if stamp else None,
            runtime=encoder.runtime if encoder else None,
            device=encoder.device if encoder else None,
            compute_type=encoder.compute_type if encoder else None,
            found=self._found,
            indexed=counts["indexed"],
            reused=counts["reused"],
            skipped=counts["skipped"],
            rejected=counts["rejected"],
            removed=removed,
            verified=verified,
            seconds=seconds,
            preparing=target.preparing,
            images_per_second=counts["indexed"] / max(seconds - target.preparing, 1e-9),
            busy=self._busy.seconds(
                dict.fromkeys(_POOLED, self._options.workers) | {"encode": self._concurrency}
            ),
            interrupted=self._stop.is_set(),
            unreadable=self._log.unreadable,
            unpruned=self._unpruned,
            left_out=self._log.left_out,
            other_files=self._log.other_files,
            metadata=self._table_reports(),
            problems=self._problems,
        )

    def _table_reports(self) -> list[MetadataReport]:
        reports = [table.report() for table in self._tables]
        for report in reports:
            if report.unmatched and not self._stop.is_set():
                self._listener(Note(f"metadata: {report.unmatched}"))
        return reports


def _reason(error: Exception) -> str:
    """Why a file is rejected. Raises the error again if it is no fault of the file."""
    if isinstance(error, ImageError):
        return str(error)
    if isinstance(error, ImgsearchError):
        raise error
    if isinstance(error, MemoryError):
        return "not enough memory"
    return f"unexpected {type(error).__name__}: {error}; please report it"


def _sparing(
    items: Sequence[_Item], write: Callable[[Sequence[_Item]], dict[str, str]]
) -> dict[str, str]:
    """Write the items, or all but those at which the store stumbles, so that none ends the run.

    Returns the ids that were not written, with the reason. Raises the store's own errors, and what
    `write` raises if none of several items can be written: that is no fault of one of them.
    """
    try:
        return write(items)
    except (ImgsearchError, MemoryError):
        raise
    except Exception as error:
        if len(items) == 1:
            return {items[0].candidate.id: _reason(error)}
        middle = len(items) // 2
        refused = _halved(items[:middle], write) | _halved(items[middle:], write)
        if len(refused) == len(items):
            raise
        return refused


def _halved(
    items: Sequence[_Item], write: Callable[[Sequence[_Item]], dict[str, str]]
) -> dict[str, str]:
    try:
        return _sparing(items, write)
    except (ImgsearchError, MemoryError):
        raise
    except Exception as error:
        return {item.candidate.id: _reason(error) for item in items}


def _pixels(item: _Item) -> images.Pixels:
    assert item.picture is not None
    return item.picture.pixels


def _vector(item: _Item) -> Vectors:
    assert item.vector is not None
    return item.vector


def _before(item: _Item) -> tuple[Metadata, Origins | None]:
    """Metadata and origins as they were when the file was found."""
    return (item.replaces.metadata, item.replaces.origins) if item.replaces else ({}, {})


def _is_older(item: _Item, known: ImageRecord | None) -> bool:
    """Whether a file takes the place of another one that was newer."""
    assert item.fingerprint is not None
    return (
        known is not None
        and known.sha256 != item.fingerprint.sha256
        and known.mtime_ns > item.candidate.mtime_ns
    )


def _record(item: _Item, known: Mapping[str, ImageRecord]) -> ImageRecord:
    """`known` are records by id at this moment: others may have changed metadata since."""
    assert item.fingerprint is not None
    metadata, origins = item.metadata, item.origins
    if now := known.get(item.candidate.id):
        there = now.metadata, now.origins
        metadata, origins = rebased(metadata, origins, _before(item), there)
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
