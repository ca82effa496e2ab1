"""Measure the stages of an ingest one at a time, with the functions that an ingest calls."""

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice, repeat
from typing import TypeVar

import numpy as np

from imgsearch import images
from imgsearch.analysis.bench.options import BenchOptions
from imgsearch.analysis.bench.report import BenchReport, Rate, StageName
from imgsearch.encoders.base import Encoder, normalized
from imgsearch.errors import ImageError, NothingFoundError, StoreError
from imgsearch.events import Listener, Stage
from imgsearch.images import Pixels, Preprocessing
from imgsearch.ingest.sample import StoppedError
from imgsearch.sources import Candidate, ScanLog, Sources, scan
from imgsearch.stores import Collection, is_server
from imgsearch.stores.scratch import scratch_collection
from imgsearch.system.pipeline import map_ahead
from imgsearch.types import ImageRecord, Stamp

T = TypeVar("T")

# Records per write, as in an ingest.
_WRITE_ROWS = 512


class StageMeter:
    """Measures stages, and adds each rate to the report.

    Call `scan` and `read` first. Methods raise StoppedError if `stop` is set.
    """

    def __init__(
        self,
        options: BenchOptions,
        report: BenchReport,
        pool: ThreadPoolExecutor,
        listener: Listener,
        stop: threading.Event,
    ) -> None:
        self.sample: list[str] = []
        """Paths of the images to measure with."""
        self._options = options
        self._report = report
        self._pool = pool
        self._listener = listener
        self._stop = stop
        # Results that several encoders share.
        self._decoded: dict[Preprocessing, Rate] = {}
        self._written: dict[int, Rate] = {}

    def scan(self, sources: Sources, stdin: Iterable[str]) -> Rate:
        """Measure the search for image files, and select a sample. Raises NothingFoundError."""
        found: list[str] = []

        def walk() -> Iterator[int]:
            for entry in scan(sources, ScanLog(), stdin, self._stop.is_set):
                if isinstance(entry, Candidate):
                    found.append(entry.path)
                    yield 1
            self._report.complete = True

        rate = self._measure("scan", "one thread", walk())
        self._report.found = len(found)
        # Spread evenly, as folders may differ.
        size = min(len(found), self._options.limit)
        self.sample = [found[number * len(found) // size] for number in range(size)]
        return rate

    def read(self) -> Rate:
        """Measure reading and hashing, and reduce the sample to the images that were read."""
        paths: list[str] = []

        def read_one(path: str) -> int:
            try:
                images.fingerprint(path)
            except ImageError as error:
                self._report.unusable[path] = str(error)
                return 0
            paths.append(path)
            return 1

        with contextlib.closing(self._in_pool(read_one, self.sample)) as steps:
            rate = self._measure("read", self._threads, steps)
        # Other files are not cached by the system: decoding would wait for the disk.
        self.sample = paths
        self._report.sample = len(paths)
        return rate

    def decode(self, encoder: Encoder) -> Rate:
        """Measure decoding and preprocessing for an encoder."""
        preprocessing = encoder.preprocessing
        if preprocessing not in self._decoded:

            def decode_one(path: str) -> int:
                return self._pixels(path, preprocessing) is not None

            model = encoder.stamp.model
            if self._options.workers > 1:
                steps = map(decode_one, self._usable())
                self._measure("decode", f"one thread, for {model}", steps)
            with contextlib.closing(self._in_pool(decode_one, self._usable())) as parallel:
                how = f"{self._threads}, for {model}"
                self._decoded[preprocessing] = self._measure("decode", how, parallel)
        return self._decoded[preprocessing]

    def encode(self, encoder: Encoder) -> Rate:
        """Measure an encoder with as many batches in flight as it can use."""
        size = self._options.batch_size or encoder.batch_size
        decoded = (self._pixels(path, encoder.preprocessing) for path in self._usable())
        pixels = (each for each in decoded if each is not None)
        few = np.stack(list(islice(pixels, min(size, len(self.sample)))))
        batch = np.resize(few, (size, *few.shape[1:]))

        def encode_batch(_: None) -> int:
            return len(encoder.encode(batch))

        encode_batch(None)  # the first call loads the model
        how = f"{encoder.stamp.model} by {encoder.runtime} on {encoder.device}"
        how += f" in {encoder.compute_type}, batches of {size}"
        threads = encoder.concurrency
        with (
            ThreadPoolExecutor(threads, "imgsearch-encode") as pool,
            contextlib.closing(_mapped(pool, encode_batch, repeat(None), threads)) as steps,
        ):
            return self._measure("encode", how, steps)

    def write(self, stamp: Stamp) -> Rate:
        """Measure writing to the embedded store and to the server, if there is one.

        Returns the rate of the server. Raises StoreError.
        """
        if stamp.dimension not in self._written:
            url = self._options.store
            for place in [None, url] if url and is_server(url) else [url]:
                self._written[stamp.dimension] = self._write_to(place, stamp)
        return self._written[stamp.dimension]

    def _write_to(self, url: str | None, stamp: Stamp) -> Rate:
        random = np.random.default_rng(0)
        shape = (_WRITE_ROWS, stamp.dimension)

        def write(collection: Collection) -> Iterator[int]:
            for start in count(step=_WRITE_ROWS):
                records = [_record(number) for number in range(start, start + _WRITE_ROWS)]
                # Different vectors, as the index of a server is degenerate with equal ones.
                vectors = normalized(random.standard_normal(shape, dtype=np.float32))
                if rejected := collection.upsert(records, vectors):
                    raise StoreError(f"the store rejects records: {next(iter(rejected.values()))}")
                yield _WRITE_ROWS

        timeout = self._options.store_timeout
        where = url if url and is_server(url) else "embedded store"
        with scratch_collection(stamp, url, timeout, self._listener) as collection:
            how = f"{where}, vectors of {stamp.dimension}"
            return self._measure("write", how, write(collection))

    def _measure(self, stage: StageName, how: str, steps: Iterable[int]) -> Rate:
        """Iterate over numbers of processed images until the time is up, at least to the first.

        Raises NothingFoundError if no image was processed.
        """
        self._listener(Stage(f"{stage}, {how}"))
        processed = 0
        started = time.perf_counter()
        for number in steps:
            processed += number
            time_is_up = time.perf_counter() - started >= self._options.seconds
            if self._stop.is_set() or (time_is_up and processed):
                break
        seconds = time.perf_counter() - started
        if processed:
            rate = Rate(stage, how, processed, seconds)
            self._report.rates.append(rate)
        if self._stop.is_set():
            raise StoppedError("interrupted")
        if not processed:
            raise NothingFoundError(self._no_usable_image())
        return rate

    def _no_usable_image(self) -> str:
        for path, reason in self._report.unusable.items():
            return f"none of the {len(self.sample):,} images tried can be used: {path}: {reason}"
        return "no image found in the sources"

    @property
    def _threads(self) -> str:
        workers = self._options.workers
        return "one thread" if workers == 1 else f"{workers} threads"

    def _in_pool(self, function: Callable[[str], int], paths: Iterable[str]) -> Generator[int]:
        # Just enough ahead to keep all threads busy, as what has begun continues after the time.
        return _mapped(self._pool, function, paths, 2 * self._options.workers)

    def _usable(self) -> Iterator[str]:
        """Repeat the paths of the sample, except the unusable ones."""
        while usable := [path for path in self.sample if path not in self._report.unusable]:
            yield from usable

    def _pixels(self, path: str, preprocessing: Preprocessing) -> Pixels | None:
        try:
            return images.decode(path, preprocessing, self._options.max_pixels).pixels
        except ImageError as error:
            self._report.unusable[path] = str(error)
            return None


def _mapped(
    pool: ThreadPoolExecutor, function: Callable[[T], int], items: Iterable[T], ahead: int
) -> Generator[int]:
    """Return `map_ahead` as a generator, which can be closed."""
    yield from map_ahead(pool, function, items, ahead)


def _record(number: int) -> ImageRecord:
    return ImageRecord(
        uri=f"file:///imgsearch/bench/{number}.jpg",
        sha256=f"{number:064x}",
        size=1,
        mtime_ns=0,
        width=1,
        height=1,
    )
