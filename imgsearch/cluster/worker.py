"""What a worker of a cluster runs: the stages of an ingest from reading to encoding."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from imgsearch import config
from imgsearch.cluster import cores
from imgsearch.encoders.base import Encoder, Vectors
from imgsearch.encoders.onnx import transfer
from imgsearch.encoders.onnx.transfer import PackedModel
from imgsearch.encoders.request import EncoderRequest
from imgsearch.errors import CollectionMismatchError
from imgsearch.events import Event, Listener, Note, Status
from imgsearch.images import Fingerprint
from imgsearch.ingest.items import Item
from imgsearch.ingest.limits import OBJECT_READS
from imgsearch.ingest.stages.decode import Decode
from imgsearch.ingest.stages.encode import Encode
from imgsearch.ingest.stages.read import Read, ReadAhead, ReadPool
from imgsearch.ingest.stopwatch import Stopwatch
from imgsearch.ingest.target import VectorSource
from imgsearch.sources import Candidate
from imgsearch.stores.base import StoredVector
from imgsearch.system.pipeline import FLUSH, map_ahead, prefetch
from imgsearch.types import Stamp
from imgsearch.uris import MemberUrl, ObjectUrl

Fetch = Callable[[], PackedModel | None]

POOLED = ("read", "decode")
STAGES = (*POOLED, "encode")


@dataclass(frozen=True, slots=True)
class Job:
    """What all chunks of a run have in common. The encoder must have the driver's stamp."""

    encoder_opener: Callable[..., Encoder]
    request: EncoderRequest
    stamp: Stamp
    batch_size: int | None
    max_pixels: int


@dataclass(frozen=True, slots=True)
class Processed:
    """The result for one image: `vector` is its row in the vectors of the chunk."""

    status: Status | None
    reason: str
    fingerprint: Fingerprint | None
    size: tuple[int, int]
    vector: int | None
    missing: bool = False
    """Whether the worker's node has no such file."""


@dataclass(frozen=True, slots=True)
class UsedEncoder:
    """How a worker makes vectors."""

    runtime: str
    device: str
    compute_type: str


@dataclass(frozen=True, slots=True)
class Result:
    """The results of a chunk, in its order; vectors are float32 of shape (n, dimension)."""

    images: list[Processed]
    vectors: Vectors
    busy: dict[str, float]
    encoder: UsedEncoder
    notes: list[str]
    node: str = ""
    """The name of the node, and an identifier of its worker."""
    worker: str = ""


_encoders: dict[tuple[EncoderRequest, Stamp], Encoder] = {}
_pinned = False


class _Source(VectorSource):
    """The encoder of a job, which this process opens once."""

    def __init__(self, job: Job, listener: Listener, fetch: Fetch) -> None:
        super().__init__(job.batch_size)
        self._job = job
        self._listener = listener
        self._fetch = fetch

    def encoder(self) -> Encoder:
        if self._encoder is None:
            job = self._job
            key = (job.request, job.stamp)
            if key not in _encoders:
                _encoders[key] = self._open()
            self._encoder = _encoders[key]
        return self._encoder

    def _open(self) -> Encoder:
        job = self._job
        if not transfer.is_here(job.stamp) and (model := self._fetch()):
            transfer.unpack(job.stamp, model, self._listener)
        encoder = job.encoder_opener(job.request, job.stamp, self._listener)
        if differences := job.stamp.differences(encoder.stamp):
            raise CollectionMismatchError(
                f"a worker would make other vectors than the driver: {'; '.join(differences)}; "
                f"copy the driver's {config.models_dir()} to the nodes"
            )
        return encoder

    def vectors_by_digest(self, digests: Sequence[str]) -> dict[str, StoredVector]:  # noqa: ARG002
        """The driver, which has the store, replaces the vectors of known content."""
        return {}


def process(
    job: Job,
    candidates: Sequence[Candidate],
    core_count: int,
    fetch: Fetch = lambda: None,
    *,
    node: str = "",
    worker: str = "",
) -> Result:
    """Read, decode and encode a chunk with `core_count` cores.

    `fetch` returns the driver's model, for a node that does not have it. The names are for the
    result.

    Raises errors of the model; an unusable image is a result.
    """
    global _pinned
    if not _pinned:
        cores.claim(core_count)
        _pinned = True
    notes: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Note):
            notes.append(event.text)

    source, stopwatch, read_ahead = _Source(job, listen, fetch), Stopwatch(STAGES), ReadAhead()
    source.encoder()  # in this thread, before the decoding threads need it
    decode = Decode(lambda: source.encoder().preprocessing, job.max_pixels, read_ahead, stopwatch)
    encode = Encode(source, stopwatch, listen)
    threads = min(core_count, config.default_workers())
    ahead = source.batch_size + threads
    remote = any(_local_file(each.path) is None for each in candidates)
    with ThreadPoolExecutor(threads, "imgsearch-read") as pool, ReadPool(pool) as reading:
        read = map_ahead(
            reading,
            Read(read_ahead, stopwatch),
            (Item(each) for each in candidates),
            max(ahead, OBJECT_READS) if remote else ahead,
        )
        decoded = map_ahead(pool, decode, read, ahead)
        with (
            closing(prefetch(encode.batches(decoded), depth=1)) as batches,
            closing(prefetch(encode(batches), depth=2)) as encoded,
        ):
            items = [item for batch in encoded if batch is not FLUSH for item in batch]
    images: list[Processed] = []
    rows: list[Vectors] = []
    for item in items:
        images.append(
            Processed(
                item.status,
                item.reason,
                item.fingerprint,
                item.size,
                None if item.vector is None else len(rows),
                item.status == "rejected" and missing(item.candidate.path),
            )
        )
        if item.vector is not None:
            rows.append(item.vector)
    encoder = source.encoder()
    return Result(
        images,
        np.stack(rows) if rows else np.empty((0, job.stamp.dimension), np.float32),
        stopwatch.seconds(dict.fromkeys(POOLED, threads) | {"encode": source.concurrency}),
        UsedEncoder(encoder.runtime, encoder.device, encoder.compute_type),
        notes,
        node,
        worker,
    )


def missing(path: str) -> bool:
    """Return whether this machine has no file at a path; False for objects."""
    file = _local_file(path)
    return file is not None and not os.path.lexists(file)


def _local_file(path: str) -> str | None:
    """Return the file on this machine that holds an image, None for an object."""
    if member := MemberUrl.parse(path):
        return None if member.is_remote else member.shard_path
    return None if ObjectUrl.parse(path) else path
