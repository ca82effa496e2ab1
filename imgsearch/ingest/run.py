"""Ingest: look up > read > reuse > decode > encode > write, then prune and verify.

The stages are generators, each of which pulls from the one before. A pool of threads reads and
decodes a bounded number of images ahead. Everything up to decoding is driven by one thread,
encoding by another (by several where the encoder has several devices or overlaps its transfers),
and writing by the caller's. So the stages overlap, memory is bounded by the batch size, and files
leave the pipeline in the order in which they were found.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

from imgsearch import config
from imgsearch.calibration import keep_current
from imgsearch.encoders.base import Encoder
from imgsearch.encoders.factory import open_encoder
from imgsearch.encoders.request import EncoderRequest, check_device
from imgsearch.events import Listener, Note, ignore
from imgsearch.ingest import replacement
from imgsearch.ingest.elsewhere import Elsewhere, EncoderInfo
from imgsearch.ingest.items import Item
from imgsearch.ingest.options import IngestOptions
from imgsearch.ingest.progress import Progress
from imgsearch.ingest.prune import Pruner, Survey, is_deleted
from imgsearch.ingest.report import IngestReport
from imgsearch.ingest.sample import MAX_FILES, ImageSample, StoppedError
from imgsearch.ingest.stages.decode import Decode
from imgsearch.ingest.stages.encode import Encode
from imgsearch.ingest.stages.lookup import Lookup
from imgsearch.ingest.stages.read import Read, ReadAhead, ReadPool, reads_ahead
from imgsearch.ingest.stages.reuse import Reuse
from imgsearch.ingest.stages.write import Write
from imgsearch.ingest.stopwatch import Stopwatch
from imgsearch.ingest.tables import open_tables, resolve_fields
from imgsearch.ingest.target import Target, describe
from imgsearch.ingest.verify import WriteVerifier
from imgsearch.metadata.table import MetadataReport, MetadataTable
from imgsearch.sources import (
    ListedObjects,
    ScanLog,
    Sources,
    count_ahead,
    nothing_found,
    resolve,
    scan,
    unread_shards,
)
from imgsearch.stores import is_server
from imgsearch.stores.base import Collection, VectorStore
from imgsearch.system import scratch
from imgsearch.system.pipeline import FLUSH, Flush, map_ahead, prefetch
from imgsearch.types import ImageRecord
from imgsearch.uris import ObjectUrl

# Keys of `IngestReport.busy`. "lookup" are all questions to the store about files and contents,
# "index" is all work after the last image is written.
_STAGES = ("scan", "lookup", "read", "decode", "encode", "write", "index")
_POOLED = ("read", "decode")


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
    elsewhere: Elsewhere | None = None,
) -> IngestReport:
    """Add images to a collection, which is created if it does not exist.

    `names` are folders, files, globs, or `-` for the paths in `stdin`. Setting `stop` ends the run
    early, after the images in flight are written. `elsewhere` reads, decodes and encodes the images
    instead of this process. Raises SourceError (NothingFoundError if there is no image at all),
    MetadataError, EncoderError or StoreError; what was written before stays, and the next run
    continues from there.
    """
    request = request or EncoderRequest()
    check_device(request)
    sources = resolve(names)
    options = options or IngestOptions()
    with store.write_lock(collection, listener), ExitStack() as cleanup:
        stdin, ahead = _look_ahead(stdin, request)
        stop = stop or threading.Event()
        sample = ImageSample(sources, ahead, options.limit, options.max_pixels, stop.is_set)
        request = replace(request, sample=sample, checked=True)
        started = time.monotonic()
        target = Target(
            store,
            collection,
            request,
            encoder_opener,
            listener,
            replace=options.replace,
            vector_dtype=options.vector_dtype,
            batch_size=options.batch_size,
        )
        target.resume(sources)
        places = scratch.places(*(() if is_server(store.url) else [Path(store.url)]))
        for place in places:
            scratch.clean(place)
        stdin, first = _peek(stdin)
        tables = open_tables(sources, first, options.metadata, places, listener, cleanup)
        strict = options.metadata is not None
        target.add_fields(resolve_fields(tables, target.fields, listener, strict=strict))
        run = _Run(target, tables, options, listener, stop, started, elsewhere)
        return run.over(sources, stdin)


def _look_ahead(stdin: Iterable[str], request: EncoderRequest) -> tuple[Iterable[str], list[str]]:
    """Return the paths, and the first of them for a sample, if calibration needs one."""
    lines = iter(stdin)
    ahead = list(islice(lines, MAX_FILES)) if request.precision == "int8" else []
    return chain(ahead, lines), ahead


def _peek(stdin: Iterable[str]) -> tuple[Iterable[str], Iterator[str]]:
    """Return the paths, and an iterator of the first one, which waits only when it is used."""
    lines, seen = iter(stdin), list[str]()

    def first() -> Iterator[str]:
        for line in islice(lines, 1):
            seen.append(line)
            yield line

    return chain(seen, lines), first()


class _Run:
    """Composes the stages, and finishes the collection after the last image."""

    def __init__(
        self,
        target: Target,
        tables: list[MetadataTable],
        options: IngestOptions,
        listener: Listener,
        stop: threading.Event,
        started: float,
        elsewhere: Elsewhere | None,
    ) -> None:
        """`started` is the time (`time.monotonic`) before the encoder could be opened."""
        self._started = started
        self._elsewhere = elsewhere
        self._target = target
        self._tables = tables
        self._options = options
        self._listener = listener
        self._stop = stop
        self._failed = threading.Event()
        self._listed = ListedObjects()
        self._log = ScanLog(objects=self._listed if options.prune else None)
        self._stopwatch = Stopwatch(_STAGES)
        self._progress = Progress(listener)
        self._verifier = WriteVerifier(target.collection)
        self._pruner = Pruner(listener, self._listed, prune_missing=options.prune_missing)
        self._write = Write(target, self._verifier, self._progress, self._stopwatch)

    def over(self, sources: Sources, stdin: Iterable[str]) -> IngestReport:
        if self._options.count_ahead:
            count_ahead(sources, self._listener, self._is_ending, limit=self._options.limit)
        with ExitStack() as cleanup:
            encoded = self._encoded(sources, stdin, cleanup)
            try:
                self._write(encoded)
            except StoppedError:  # while the encoder was opened: nothing has been processed
                self._progress.found = self._progress.counts.total()
            except BaseException:
                self._failed.set()
                raise
        if self._progress.found == 0 and not self._stop.is_set():
            raise nothing_found(sources, self._log)
        self._report_shards()
        removed = self._prune(sources) if self._options.prune else 0
        with self._stopwatch("index"):
            verified = self._finish() if not self._stop.is_set() else False
        return self._report(time.monotonic() - self._started, removed, verified)

    def _report_shards(self) -> None:
        for remark in self._log.remarks:
            self._listener(Note(remark))
        if self._log.shards:
            self._listener(Note(unread_shards(self._log)))

    def _is_ending(self) -> bool:
        return self._stop.is_set() or self._failed.is_set()

    def _encoded(
        self, sources: Sources, stdin: Iterable[str], cleanup: ExitStack
    ) -> Iterator[list[Item] | Flush]:
        """Run the stages before writing, until `cleanup` is closed."""
        if self._elsewhere:
            found = self._looked_up(sources, stdin)
            encoded = self._elsewhere(
                found, self._target, self._progress, self._stopwatch, self._is_ending
            )
            return cleanup.enter_context(closing(prefetch(encoded, depth=2)))
        pool = cleanup.enter_context(ThreadPoolExecutor(self._options.workers, "imgsearch-read"))
        reading = cleanup.enter_context(ReadPool(pool))
        encode = Encode(self._target, self._stopwatch, self._listener)
        decoded = self._decoded(sources, stdin, reading, pool)
        batches = cleanup.enter_context(closing(prefetch(encode.batches(decoded), depth=1)))
        return cleanup.enter_context(closing(prefetch(encode(batches), depth=2)))

    def _looked_up(self, sources: Sources, stdin: Iterable[str]) -> Iterator[Item | Flush]:
        """Find the files, and look them up."""
        look_up = Lookup(
            self._target, self._tables, self._progress, self._stopwatch, self._is_ending
        )
        found = scan(sources, self._log, stdin, self._is_ending)
        return look_up(islice(found, self._options.limit))

    def _decoded(
        self, sources: Sources, stdin: Iterable[str], reading: Executor, decoding: Executor
    ) -> Iterator[Item | Flush]:
        """Run the stages before encoding."""
        target, stopwatch, read_ahead = self._target, self._stopwatch, ReadAhead()
        read = Read(read_ahead, stopwatch)
        reuse = Reuse(target, read_ahead, stopwatch)
        decode = Decode(
            lambda: target.encoder().preprocessing, self._options.max_pixels, read_ahead, stopwatch
        )
        ahead = target.batch_size + self._options.workers
        items = self._looked_up(sources, stdin)
        found = map_ahead(reading, read, items, reads_ahead(sources, ahead))
        for item in map_ahead(decoding, decode, reuse(found), ahead):
            if item is not FLUSH and item.image and self._stop.is_set():
                self._progress.found -= 1  # as if it was not found: the next run processes it
            else:
                yield item

    def _prune(self, sources: Sources) -> int:
        """Remove the records of deleted files below the source folders. Returns their number."""
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
            self._listener(Note("nothing pruned: some folders or shards could not be read"))
            return 0
        if not sources.folders and not self._listed.shards:
            self._listener(Note("nothing pruned: the sources are single files, not folders"))
        # Of a folder of objects that was not listed to the end, nobody knows what is missing.
        folders = [
            folder
            for folder in sources.folders
            if not ObjectUrl.parse(folder) or folder in self._listed.folders
        ]
        removed = sum(self._pruner.prune(collection, folder, self._verifier) for folder in folders)
        return removed + sum(
            self._pruner.prune_shard(collection, shard, self._verifier)
            for shard in self._listed.shards
        )

    def _finish(self) -> bool:
        """Optimize and verify the collection, and complete a replacement.

        Returns whether the collection was verified.
        """
        target = self._target
        if target.collection is None:
            return False
        if self._write.replaced_newer and target.sites.own:
            self._listener(
                Note(
                    f"{self._write.replaced_newer:,} images have replaced newer files of the same "
                    f"paths. If other machines of site {target.sites.own} ingest files of their "
                    f"own at these paths, each needs an {config.ENV_SITE} of its own"
                )
            )
        target.collection.optimize(self._listener)
        self._verifier.check(target.collection, self._listener)
        if target.previous:
            replacement.check_complete(
                target.collection, target.previous, self._may_drop(target.previous)
            )
            target.promote()
            target.collection.optimize(self._listener)
            new = describe(target.collection.stamp, target.collection.vector_dtype)
            self._listener(Note(f"collection {target.name} now has vectors of {new}"))
        keep_current(target.collection, self._listener)
        return True

    def _may_drop(self, previous: Collection) -> Callable[[ImageRecord], bool]:
        """Return whether a record of the previous collection may be missing in the new one."""
        if not self._options.prune:
            return lambda _: False
        found: Survey = self._pruner.survey(previous.uris, previous.sites)
        return lambda record: is_deleted(record) and not found.retains(record.path)

    def _report(self, seconds: float, removed: int, verified: bool) -> IngestReport:
        self._progress.check()
        counts, target = self._progress.counts, self._target
        stamp = target.stamp
        encoder: EncoderInfo | None = target.opened_encoder
        threads = dict.fromkeys(_POOLED, self._options.workers) | {"encode": target.concurrency}
        if self._elsewhere:
            encoder = self._elsewhere.encoder
            threads = dict.fromkeys((*_POOLED, "encode"), max(1, self._elsewhere.workers))
        return IngestReport(
            collection=target.name,
            store=target.store.url,
            model=stamp.model if stamp else None,
            precision=stamp.dtype if stamp else None,
            runtime=encoder.runtime if encoder else None,
            device=encoder.device if encoder else None,
            compute_type=encoder.compute_type if encoder else None,
            found=self._progress.found,
            indexed=counts["indexed"],
            reused=counts["reused"],
            skipped=counts["skipped"],
            rejected=counts["rejected"],
            removed=removed,
            verified=verified,
            seconds=seconds,
            preparing=target.preparing,
            images_per_second=counts["indexed"] / max(seconds - target.preparing, 1e-9),
            busy=self._stopwatch.seconds(threads),
            interrupted=self._stop.is_set(),
            unreadable=self._log.unreadable,
            unpruned=self._pruner.unpruned,
            left_out=self._log.left_out,
            other_files=self._log.other_files,
            metadata=self._table_reports(),
            problems=self._progress.problems,
            cluster=self._elsewhere.report(seconds - target.preparing) if self._elsewhere else None,
        )

    def _table_reports(self) -> list[MetadataReport]:
        reports = [table.report() for table in self._tables]
        for report in reports:
            if report.unmatched and not self._stop.is_set():
                self._listener(Note(f"metadata: {report.unmatched}"))
        return reports
