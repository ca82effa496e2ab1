"""Rows of `benchmarks.million`: ingests, pages and folders.

The files are images of a few pixels, and an encoder of random vectors takes no time: what remains
is the work for each file and record.
"""

import contextlib
import io
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.million_data import FILTERS, NAME, Data, record
from benchmarks.million_table import Line, row
from imgsearch.encoders.base import Vectors, normalized
from imgsearch.encoders.request import EncoderRequest
from imgsearch.events import Listener, ignore
from imgsearch.images import Pixels, Preprocessing
from imgsearch.ingest import IngestOptions, IngestReport, ingest
from imgsearch.ingest.limits import LOOKUP_FILES
from imgsearch.stores import open_store
from imgsearch.stores.base import Collection, batched
from imgsearch.types import Stamp
from imgsearch.uris import record_id

_FILES_PER_FOLDER = 1000
# Of each row, so that files take a tenth of the records.
_SHARE = 10
_CONTENTS = 500
_LOOKUP = 512


class RandomEncoder:
    """An encoder that takes no time."""

    runtime = "fake"
    device = "none"
    compute_type = "fp32"
    batch_size = 32
    concurrency = 1
    preprocessing = Preprocessing(
        size=32, resize=32, interpolation="bilinear", mean=(0, 0, 0), std=(1, 1, 1)
    )

    def __init__(self, stamp: Stamp) -> None:
        self.stamp = stamp
        self._random = np.random.default_rng(0)

    def encode(self, pixels: Pixels) -> Vectors:
        size = (len(pixels), self.stamp.dimension)
        return normalized(self._random.standard_normal(size, dtype=np.float32))

    def open(
        self, request: EncoderRequest, stamp: Stamp | None = None, listener: Listener = ignore
    ) -> "RandomEncoder":
        """In the place of `open_encoder`."""
        del request, stamp, listener
        return self


def make_files(folder: Path, count: int, contents: int | None = None) -> None:
    """Make small JPEG files of `contents` different contents, or all different."""
    picture = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 10, 10)).save(picture, "JPEG")
    start, rest = picture.getvalue()[:2], picture.getvalue()[2:]
    for number in range(count):
        comment = b"%020d" % (number % contents if contents else number)
        path = folder / f"{number // _FILES_PER_FOLDER:05d}" / f"{number:08d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(start + b"\xff\xfe\x00\x16" + comment + rest)


def run(store: Path, folder: Path, data: Data, *, prune: bool = False) -> IngestReport:
    encoder = RandomEncoder(Stamp("synthetic", "0" * 64, "none", data.dimension))
    with open_store(str(store)) as opened:
        return ingest(
            [str(folder)],
            opened,
            NAME,
            options=IngestOptions(prune=prune),
            encoder_opener=encoder.open,
        )


@contextlib.contextmanager
def _folder_in(work: Path) -> Iterator[Path]:
    """Make a folder for one row, beside the collections, so that files can be linked."""
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work) as place:
        yield Path(place)


def _per_second(report: IngestReport) -> float:
    """Return files per second without the work after the last file."""
    return report.found / (report.seconds - report.busy["index"])


@row("copies")
def copies(data: Data) -> Iterator[Line]:
    """Ingest files of few contents: first a tenth of them, then all."""
    with _folder_in(data.work) as place:
        files, store = place / "files", place / "store"
        count = data.records // _SHARE
        make_files(files, count // 10, _CONTENTS)
        first = run(store, files, data)
        make_files(files, count, _CONTENTS)
        second = run(store, files, data)
        rate = _per_second(second)
        yield Line("ingest of repeated contents, ms a file", 1000 / rate, 0.5, "ms")
        yield Line("  more copies / few copies", _per_second(first) / rate, 1.2, "x")


@row("new")
def new(data: Data) -> Iterator[Line]:
    """Ingest new files into an empty store, and into the full one."""
    with _folder_in(data.work) as place:
        files, full = place / "files", place / "full"
        make_files(files, data.records // _SHARE)
        empty = _per_second(run(place / "empty", files, data))
        data.copy(full)
        rate = _per_second(run(full, files, data))
        note = f"{empty:.0f} files/s into an empty store"
        yield Line("ingest of new files, empty / full store", empty / rate, 1.2, "x", note=note)


@row("again")
def again(data: Data) -> Iterator[Line]:
    """Ingest unchanged files again, without and with a search for deleted ones."""
    with _folder_in(data.work) as place:
        files, store = place / "files", place / "store"
        count = data.records // _SHARE
        make_files(files, count)
        run(store, files, data)
        seconds = run(store, files, data).seconds
        note = f"{count:,} files"
        yield Line("unchanged files, s a million", seconds * 1e6 / count, 60, note=note)
        looked_up, before = _lookups(store)
        scale = 1e6 / count
        yield Line("  looking them up", looked_up * scale, 30, before=before * scale)
        pruned = run(store, files, data, prune=True).seconds
        yield Line("  with --prune / without", pruned / seconds, 1.3, "x")


def _lookups(store: Path) -> tuple[float, float]:
    """Return the seconds of looking up all files, and those of reading their records by id."""
    collection = open_store(str(store)).open(NAME)
    uris = sorted(uri for batch in collection.uris() for uri in batch)
    started = time.perf_counter()
    for some in batched(uris, LOOKUP_FILES):
        assert len(collection.file_stats(some)) == len(some)
    middle = time.perf_counter()
    for some in batched(uris, _LOOKUP):
        assert len(collection.lookup([record_id(uri) for uri in some])) == len(some)
    return middle - started, time.perf_counter() - middle


def _best_of_three(collection: Collection, **options: object) -> float:
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        collection.page(10, **options)  # type: ignore[arg-type]
        seconds.append(time.perf_counter() - started)
    return min(seconds)


@row("page")
def page(data: Data) -> Iterator[Line]:
    """Read ten records by id: the first, some in the middle, some that pass a filter."""
    collection = data.collection()
    middle = "80000000-0000-0000-0000-000000000000"
    yield Line("the first ten records", _best_of_three(collection), 0.2)
    yield Line("ten records in the middle", _best_of_three(collection, after=middle), 0.2)
    for name in ("1 %", "10 %"):
        took = _best_of_three(collection, where=FILTERS[name])
        yield Line(f"ten records, filter {name}", took, 0.2)


@row("folder")
def folder(data: Data) -> Iterator[Line]:
    """Read the URIs of a thousandth of the records, which are those of a folder."""
    collection = data.collection()
    prefix = "file:///images/007/"
    started = time.perf_counter()
    found = sum(map(len, collection.uris(prefix)))
    took = time.perf_counter() - started
    started = time.perf_counter()
    compared = sum(each.startswith(prefix) for batch in collection.uris() for each in batch)
    before = time.perf_counter() - started
    assert found == compared, (found, compared)
    yield Line("URIs of a folder", took, 0.2, before=before, note=f"{found:,} of them")


@row("lookup")
def lookup(data: Data) -> Iterator[Line]:
    """Look up new files while others are being written."""
    with _folder_in(data.work) as place:
        collection = data.copy(place / "store")
        seconds = []
        for start in range(2 * data.records, 2 * data.records + 40 * _LOOKUP, _LOOKUP):
            records = [record(number) for number in range(start, start + _LOOKUP)]
            started = time.perf_counter()
            collection.lookup([each.id for each in records])
            seconds.append(time.perf_counter() - started)
            collection.upsert(records, data.vectors(start, _LOOKUP))
        median = float(np.median(seconds))
        yield Line(f"lookup of {_LOOKUP} new files during an ingest", median, 0.05)
