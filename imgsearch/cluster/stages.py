"""The driver's part: hand out chunks, and account for each image once."""

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import replace
from itertools import chain

from imgsearch.cluster import worker
from imgsearch.cluster.chunks import Chunk, Engine, LostError
from imgsearch.cluster.worker import Job, Result, UsedEncoder
from imgsearch.encoders.base import Encoder, Vectors
from imgsearch.encoders.onnx import transfer
from imgsearch.encoders.request import EncoderRequest
from imgsearch.errors import ClusterError, SourceError
from imgsearch.events import Listener, Note
from imgsearch.ingest import limits
from imgsearch.ingest.items import Item
from imgsearch.ingest.progress import Progress
from imgsearch.ingest.report import ClusterReport
from imgsearch.ingest.stopwatch import Stopwatch
from imgsearch.ingest.target import Target
from imgsearch.system.pipeline import FLUSH, Flush, batched

# Chunks per worker: one in progress, and one that is there when it ends.
_PER_SLOT = 2
# More than one image can cause: when so many are lost and none succeeds, it is not the images.
_MAX_LOSSES_IN_A_ROW = 20
_KNOWN_VECTORS = limits.RECENT_VECTORS + 4 * limits.WRITE_ROWS


class ClusterStages:
    """Runs the stages from reading to encoding on the workers of a cluster."""

    def __init__(
        self,
        engine: Engine,
        encoder_opener: Callable[..., Encoder],
        request: EncoderRequest,
        batch_size: int | None,
        max_pixels: int,
        listener: Listener,
    ) -> None:
        self._engine = engine
        self._opener = encoder_opener
        # On a CPU the model comes from the driver, which has read the weights.
        weights = None if engine.device == "cpu" else request.weights
        self.worker_request = replace(
            request, weights=weights, device=engine.device, sample=None, checked=True
        )
        self._batch_size = batch_size
        self._max_pixels = max_pixels
        self._listener = listener
        self._job: Job | None = None
        self._workers: set[str] = set()
        self._nodes: dict[str, int] = {}
        self._encoder: UsedEncoder | None = None
        self._lost = 0
        self._lost_in_a_row = 0
        self._notes: set[str] = set()
        # Vectors that the store may not have yet.
        self._recent: OrderedDict[str, Vectors] = OrderedDict()

    @property
    def workers(self) -> int:
        return len(self._workers)

    @property
    def encoder(self) -> UsedEncoder | None:
        return self._encoder

    def report(self, seconds: float) -> ClusterReport:
        nodes = dict(sorted(self._nodes.items()))
        return ClusterReport(self.workers, nodes, seconds, self._lost)

    def __call__(
        self,
        items: Iterable[Item | Flush],
        target: Target,
        progress: Progress,
        stopwatch: Stopwatch,
        is_ending: Callable[[], bool],
    ) -> Iterator[list[Item] | Flush]:
        waiting: deque[Chunk] = deque()
        in_flight: dict[Hashable, Chunk] = {}
        batches = batched(
            items,
            lambda: self._engine.chunk_size,
            weight=lambda item: not item.finished,
            max_length=limits.WRITE_ROWS,
        )
        try:
            for batch in chain(batches, [None]):
                if batch is not None and batch is not FLUSH:
                    if finished := [item for item in batch if item.finished]:
                        yield finished
                    if unfinished := [item for item in batch if not item.finished]:
                        waiting.append(Chunk(unfinished))
                # With a full window, wait for results; at the end, for all of them.
                seconds = 0.0
                while True:
                    self._hand_out(waiting, in_flight, target, is_ending)
                    busy = bool(waiting) or (batch is None and bool(in_flight))
                    seconds = limits.ALERT_SECONDS if busy else 0.0
                    for done in self._collected(in_flight, waiting, seconds, stopwatch):
                        with stopwatch("lookup"):
                            self._reuse(done, target)
                        yield done
                    if is_ending() or not busy:
                        break
                if batch is FLUSH:
                    yield FLUSH
                if is_ending():
                    break
        finally:
            self._engine.cancel(in_flight)
        for chunk in (*waiting, *in_flight.values()):
            progress.found -= len(chunk.items)  # as if not found: the next run processes them

    def _hand_out(
        self,
        waiting: deque[Chunk],
        in_flight: dict[Hashable, Chunk],
        target: Target,
        is_ending: Callable[[], bool],
    ) -> None:
        if not waiting or is_ending():
            return
        slots = self._engine.slots
        if not slots:
            self._say("waiting: no node of the cluster has room for a worker")
        room = max(1, slots) * _PER_SLOT - len(in_flight)
        job = self._job or self._begin(target)
        while waiting and room > 0:
            chunk = waiting.popleft()
            candidates = [replace(item.candidate, own=None) for item in chunk.items]
            in_flight[self._engine.submit(job, candidates)] = chunk
            room -= 1

    def _begin(self, target: Target) -> Job:
        """Prepare the model, before any worker needs it."""
        stamp = target.encoder().stamp
        if self._engine.device == "cpu" and (model := transfer.pack(stamp)):
            self._engine.offer_model(model)
        self._job = Job(
            self._opener, self.worker_request, stamp, self._batch_size, self._max_pixels
        )
        return self._job

    def _collected(
        self,
        in_flight: dict[Hashable, Chunk],
        waiting: deque[Chunk],
        seconds: float,
        stopwatch: Stopwatch,
    ) -> Iterator[list[Item]]:
        """Yield the items of finished chunks, and put those of lost ones back into `waiting`."""
        for handle in self._engine.finished(list(in_flight), seconds) if in_flight else ():
            chunk = in_flight.pop(handle)
            try:
                result = self._engine.result(handle)
            except LostError as error:
                yield from self._after_loss(chunk, str(error), waiting)
                continue
            self._lost_in_a_row = 0
            self._note(result, stopwatch)
            yield self._completed(chunk, result)

    def _after_loss(self, chunk: Chunk, reason: str, waiting: deque[Chunk]) -> Iterator[list[Item]]:
        self._lost += 1
        self._lost_in_a_row += 1
        if self._lost_in_a_row >= _MAX_LOSSES_IN_A_ROW:
            raise ClusterError(
                f"{self._lost_in_a_row} chunks in a row were lost, whatever their images: {reason}"
            )
        self._say(f"a worker was lost, and its images are processed again: {reason}")
        again = chunk.after_loss(reason)
        waiting.extendleft(reversed(again))
        if not again:
            yield chunk.items

    def _note(self, result: Result, stopwatch: Stopwatch) -> None:
        self._workers.add(result.worker)
        self._nodes[result.node] = self._nodes.get(result.node, 0) + len(result.images)
        self._encoder = self._encoder or result.encoder
        for stage, busy in result.busy.items():
            stopwatch.add(stage, busy)
        for note in result.notes:
            self._say(f"{result.node}: {note}")

    def _say(self, note: str) -> None:
        if note not in self._notes:
            self._notes.add(note)
            self._listener(Note(note))

    def _completed(self, chunk: Chunk, result: Result) -> list[Item]:
        for item, done in zip(chunk.items, result.images, strict=True):
            if done.missing and not worker.missing(item.candidate.path):
                raise SourceError(
                    f"{item.candidate.path}: node {result.node} does not have this file: all nodes "
                    "must see the sources at the same paths, as a shared mount or by URL"
                )
            item.fingerprint, item.size = done.fingerprint, done.size
            if done.status == "rejected":
                item.reject(done.reason)
                continue
            item.status, item.reason = done.status, done.reason
            if done.vector is not None:
                item.vector = result.vectors[done.vector]
        return chunk.items

    def _reuse(self, items: list[Item], target: Target) -> None:
        """Give equal content equal vectors: one that is stored, or the first that arrived."""
        by_digest: dict[str, list[Item]] = {}
        for item in items:
            if item.vector is not None:
                by_digest.setdefault(item.digest, []).append(item)
        unknown = sorted(by_digest.keys() - self._recent.keys())
        stored = target.vectors_by_digest(unknown)
        for digest, same in by_digest.items():
            if known := stored.get(digest):
                vector, reason = known.vector, "same content as a stored image"
            elif digest in self._recent:
                vector, reason = self._recent[digest], "same content as another image"
            else:
                assert same[0].vector is not None
                self._recent[digest] = same[0].vector.copy()
                continue
            for item in same:
                item.vector, item.status, item.reason = vector, "reused", reason
        while len(self._recent) > _KNOWN_VECTORS:
            self._recent.popitem(last=False)
