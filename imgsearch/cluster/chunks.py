"""Chunks of images: handed out, done again where a worker is lost, and narrowed down.

A chunk whose worker died is handed out again. After `MAX_LOSSES` it is divided into `PARTS`, so
that an image that kills its worker each time is alone in the end, and rejected.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from imgsearch.cluster.worker import Job, Result
from imgsearch.encoders.onnx.transfer import PackedModel
from imgsearch.ingest.items import Item
from imgsearch.sources import Candidate

CHUNK = 128
"""Images per chunk on CPUs: some seconds of work, which is what a lost worker costs."""
GPU_CHUNK = 1024
MAX_LOSSES = 2
MAX_LOSSES_OF_ONE = 3
PARTS = 8
"""A chunk of 128 images is down to one after three divisions."""


class LostError(Exception):
    """A chunk is lost with its worker or node. The message is the reason."""


class Engine(Protocol):
    """Runs chunks on the workers of a cluster."""

    chunk_size: int
    device: str
    """The device of the workers, as in `EncoderRequest`."""

    @property
    def slots(self) -> int:
        """The number of chunks that the nodes, as far as they live, can run at the same time."""
        ...

    def offer_model(self, model: PackedModel) -> None:
        """Send the model to nodes that do not have it."""
        ...

    def submit(self, job: Job, candidates: Sequence[Candidate]) -> Hashable:
        """Run a chunk as soon as a worker is free. Returns a handle."""
        ...

    def finished(self, handles: Sequence[Hashable], seconds: float) -> Sequence[Hashable]:
        """Wait until a chunk has finished or is lost, at most for `seconds`; return those."""
        ...

    def result(self, handle: Hashable) -> Result:
        """Return the result of a finished chunk. Raises LostError, or an error of the worker."""
        ...

    def cancel(self, handles: Iterable[Hashable]) -> None:
        """Give up chunks whose results nobody waits for."""
        ...


@dataclass(slots=True)
class Chunk:
    """Images that a worker processes together."""

    items: list[Item]
    losses: int = 0

    def after_loss(self, reason: str) -> "list[Chunk]":
        """Return what to hand out after the chunk was lost; nothing if its image is rejected."""
        self.losses += 1
        if len(self.items) > 1 and self.losses >= MAX_LOSSES:
            size = -(-len(self.items) // PARTS)
            return [
                Chunk(self.items[start : start + size]) for start in range(0, len(self.items), size)
            ]
        if self.losses >= MAX_LOSSES_OF_ONE:
            self.items[0].reject(f"its worker died each of {self.losses} times: {reason}")
            return []
        return [self]
