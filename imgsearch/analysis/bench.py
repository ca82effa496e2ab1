"""What this machine makes of the user's own pictures: the rate of each stage of an ingest.

Each stage is run alone, by the functions that an ingest calls, for a bounded time. What a whole
ingest would come to is reckoned from that (`bench_report.Choice`).
"""

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count, islice, repeat
from typing import TypeVar

import numpy as np

from imgsearch import config, images
from imgsearch.analysis.bench_report import BenchReport, Choice, Rate, StageName, cpu_name
from imgsearch.encoders import devices, weights
from imgsearch.encoders.base import Encoder, Sample, normalised
from imgsearch.encoders.catalog import SPECS
from imgsearch.encoders.factory import open_encoder
from imgsearch.encoders.request import EncoderRequest, Precision, check_device
from imgsearch.errors import (
    EncoderError,
    ImageError,
    NothingFoundError,
    Remedy,
    StoreError,
    UsageError,
)
from imgsearch.events import Listener, Stage, ignore
from imgsearch.images import Pixels, Preprocessing
from imgsearch.ingest.sample import ImageSample, StoppedError
from imgsearch.sources import Candidate, ScanLog, Sources, resolve, scan
from imgsearch.stores import Collection, is_server
from imgsearch.stores.scratch import scratch_collection
from imgsearch.system.pipeline import map_ahead
from imgsearch.types import ImageRecord, Stamp

T = TypeVar("T")

# As many as an ingest writes at once.
_WRITE_ROWS = 512


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What to measure. `seconds` bounds each measurement, `limit` the pictures that are read.

    No `models` means those whose weights are on this machine; others, once named, are fetched.
    `store` is a URL; a server is measured beside the embedded store.
    """

    models: Sequence[str] = ()
    weights: str | None = None
    device: str = config.DEFAULT_DEVICE
    precisions: Sequence[Precision] = ("fp32",)
    """int8 is calibrated first, and measured on the CPU alone."""
    store: str | None = None
    seconds: float = 2.0
    limit: int = 500
    batch_size: int | None = None
    """None is what suits the encoder."""
    workers: int = field(default_factory=config.default_workers)
    max_pixels: int = config.DEFAULT_MAX_PIXELS
    store_timeout: float = config.READER_STORE_TIMEOUT


def bench(
    names: Sequence[str],
    options: BenchOptions | None = None,
    *,
    stdin: Iterable[str] = (),
    listener: Listener = ignore,
    stop: threading.Event | None = None,
    encoder_opener: Callable[..., Encoder] = open_encoder,
) -> BenchReport:
    """Measure each stage of an ingest on the pictures that `names` lead to.

    What is left behind is what an ingest would leave too: a model made ready for the CPU. Setting
    `stop` ends the run early, with what it has. Raises SourceError (NothingFoundError if there is
    no picture that can be used), UsageError, StoreError, or EncoderError for a model or a device
    that was named.
    """
    options = options or BenchOptions()
    for precision in options.precisions:
        check_device(EncoderRequest(device=options.device, precision=precision))
    if options.weights is not None and len(options.models) != 1:
        raise UsageError("weights need the name of their model", Remedy.NAME_ONE_MODEL)
    sources = resolve(names)
    with ThreadPoolExecutor(options.workers, "imgsearch-bench") as pool:
        run = _Run(options, pool, listener, stop or threading.Event(), encoder_opener)
        return run.over(sources, stdin)


def _requests(options: BenchOptions, sample: Sample, report: BenchReport) -> list[EncoderRequest]:
    """All that is to be measured; the one place that knows the ways to run a model."""
    models = options.models or _models_here(report)
    return [
        EncoderRequest(model, options.weights, device, precision, sample)
        for model in dict.fromkeys(models)
        for device in _devices(options.device)
        for precision in dict.fromkeys(options.precisions)
        if device == "cpu" or precision == "fp32"
    ]


def _models_here(report: BenchReport) -> list[str]:
    here = [name for name, spec in SPECS.items() if weights.find_local(spec)]
    for name, spec in SPECS.items():
        if name not in here:
            report.not_measured[name] = (
                f"its weights ({spec.megabytes:.0f} MB) are not on this machine, and are "
                "downloaded only for a model that is named"
            )
    return here


def _devices(wanted: str) -> list[str]:
    """The one that was asked for, else each kind that is there, once."""
    if wanted != config.DEFAULT_DEVICE:
        return [wanted]
    if not devices.may_have_gpu():
        return ["cpu"]
    from imgsearch.encoders.torch.encoder import available_devices

    return list({name.partition(":")[0]: name for name in reversed(available_devices())}.values())


def _named(request: EncoderRequest) -> str:
    return f"{request.model} on {request.device} in {request.precision}"


class _Run:
    def __init__(
        self,
        options: BenchOptions,
        pool: ThreadPoolExecutor,
        listener: Listener,
        stop: threading.Event,
        encoder_opener: Callable[..., Encoder],
    ) -> None:
        self._options = options
        self._pool = pool
        self._listener = listener
        self._stop = stop
        self._open_encoder = encoder_opener
        self._report = BenchReport(cpu_name(), config.cpu_cores())
        self._sample: list[str] = []
        # By what a stage's time depends on, so that it is measured once.
        self._decoded: dict[Preprocessing, Rate] = {}
        self._written: dict[int, Rate] = {}

    def over(self, sources: Sources, stdin: Iterable[str]) -> BenchReport:
        report = self._report
        with contextlib.suppress(StoppedError):
            found = self._scan(sources, stdin)
            costs: dict[StageName, float] = {"scan": found.cost, "read": self._read().cost}
            sample = ImageSample(
                resolve(self._sample),
                max_pixels=self._options.max_pixels,
                stopped=self._stop.is_set,
            )
            for request in _requests(self._options, sample, report):
                try:
                    report.choices.append(self._choose(request, costs))
                except EncoderError as error:
                    if self._options.models or self._options.device != config.DEFAULT_DEVICE:
                        raise
                    report.not_measured[_named(request)] = str(error)
        report.interrupted = self._stop.is_set()
        return report

    def _choose(self, request: EncoderRequest, costs: Mapping[StageName, float]) -> Choice:
        self._listener(Stage(f"opening {_named(request)}"))
        encoder = self._open_encoder(request, None, self._listener)
        own: dict[StageName, float] = {
            "decode": self._decode(encoder).cost,
            "encode": self._encode(encoder).cost,
            "write": self._write(encoder.stamp).cost,
        }
        return Choice(
            encoder.stamp.model,
            encoder.compute_type,
            encoder.device,
            encoder.runtime,
            {**costs, **own},
        )

    def _measure(self, stage: StageName, how: str, steps: Iterable[int]) -> Rate:
        """Take steps, each of so many pictures, until the time is up; at least one."""
        self._listener(Stage(f"{stage}, {how}"))
        pictures = 0
        started = time.perf_counter()
        for pictures_of_step in steps:
            pictures += pictures_of_step
            over = time.perf_counter() - started >= self._options.seconds
            if self._stop.is_set() or (over and pictures):
                break
        seconds = time.perf_counter() - started
        if pictures:
            rate = Rate(stage, how, pictures, seconds)
            self._report.rates.append(rate)
        if self._stop.is_set():
            raise StoppedError("interrupted")
        if not pictures:
            raise NothingFoundError(self._nothing())
        return rate

    def _nothing(self) -> str:
        for path, reason in self._report.unusable.items():
            return f"none of the {len(self._sample):,} pictures tried can be used: {path}: {reason}"
        return "no image found in the sources"

    # Stages, in the order in which a picture passes them.

    def _scan(self, sources: Sources, stdin: Iterable[str]) -> Rate:
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
        taken = min(len(found), self._options.limit)
        self._sample = [found[number * len(found) // taken] for number in range(taken)]
        return rate

    def _read(self) -> Rate:
        read: list[str] = []

        def take(path: str) -> int:
            try:
                images.fingerprint(path)
            except ImageError as error:
                self._report.unusable[path] = str(error)
                return 0
            read.append(path)
            return 1

        with contextlib.closing(self._in_pool(take, self._sample)) as steps:
            rate = self._measure("read", self._threads, steps)
        # What there was no time for would have to come from the disk while it is decoded.
        self._sample = read
        self._report.sample = len(read)
        return rate

    def _decode(self, encoder: Encoder) -> Rate:
        preprocessing = encoder.preprocessing
        if preprocessing not in self._decoded:

            def take(path: str) -> int:
                return self._pixels(path, preprocessing) is not None

            model = encoder.stamp.model
            if self._options.workers > 1:
                self._measure("decode", f"one thread, for {model}", map(take, self._rounds()))
            with contextlib.closing(self._in_pool(take, self._rounds())) as steps:
                how = f"{self._threads}, for {model}"
                self._decoded[preprocessing] = self._measure("decode", how, steps)
        return self._decoded[preprocessing]

    def _encode(self, encoder: Encoder) -> Rate:
        size = self._options.batch_size or encoder.batch_size
        decoded = (self._pixels(path, encoder.preprocessing) for path in self._rounds())
        usable = (each for each in decoded if each is not None)
        pictures = np.stack(list(islice(usable, min(size, len(self._sample)))))
        batch = np.resize(pictures, (size, *pictures.shape[1:]))

        def take(_: None) -> int:
            return len(encoder.encode(batch))

        take(None)  # the first opens the model
        how = f"{encoder.stamp.model} by {encoder.runtime} on {encoder.device}"
        how += f" in {encoder.compute_type}, batches of {size}"
        at_once = encoder.concurrency
        with (
            ThreadPoolExecutor(at_once, "imgsearch-encode") as pool,
            contextlib.closing(_mapped(pool, take, repeat(None), at_once)) as steps,
        ):
            return self._measure("encode", how, steps)

    def _write(self, stamp: Stamp) -> Rate:
        """An ingest's rate is that of the last place: of the server, if one was named."""
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
                # Of equal vectors the index of a server would make something unlike any other's.
                vectors = normalised(random.standard_normal(shape, dtype=np.float32))
                if refused := collection.upsert(records, vectors):
                    raise StoreError(f"the store refuses records: {next(iter(refused.values()))}")
                yield _WRITE_ROWS

        timeout = self._options.store_timeout
        where = url if url and is_server(url) else "embedded store"
        with scratch_collection(stamp, url, timeout, self._listener) as collection:
            how = f"{where}, vectors of {stamp.dimension}"
            return self._measure("write", how, write(collection))

    # What they have in common.

    @property
    def _threads(self) -> str:
        workers = self._options.workers
        return "one thread" if workers == 1 else f"{workers} threads"

    def _in_pool(self, take: Callable[[str], int], paths: Iterable[str]) -> Generator[int]:
        # Not more ahead than needed to keep all threads at work: they finish after the time is up.
        return _mapped(self._pool, take, paths, 2 * self._options.workers)

    def _rounds(self) -> Iterator[str]:
        """The sample's pictures over and over, without those that turned out to be unusable."""
        while usable := [path for path in self._sample if path not in self._report.unusable]:
            yield from usable

    def _pixels(self, path: str, preprocessing: Preprocessing) -> Pixels | None:
        try:
            return images.decode(path, preprocessing, self._options.max_pixels).pixels
        except ImageError as error:
            self._report.unusable[path] = str(error)
            return None


def _mapped(
    pool: ThreadPoolExecutor, take: Callable[[T], int], items: Iterable[T], ahead: int
) -> Generator[int]:
    """`map_ahead`, to be closed when the time is up."""
    yield from map_ahead(pool, take, items, ahead)


def _record(number: int) -> ImageRecord:
    return ImageRecord(
        uri=f"file:///imgsearch/bench/{number}.jpg",
        sha256=f"{number:064x}",
        size=1,
        mtime_ns=0,
        width=1,
        height=1,
    )
