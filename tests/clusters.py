"""For tests of clusters: an engine in this process, and encoders that workers can open."""

import os
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from imgsearch.cluster.chunks import LostError
from imgsearch.cluster.worker import Job, Result, process
from imgsearch.encoders.base import Vectors
from imgsearch.encoders.onnx.transfer import PackedModel
from imgsearch.encoders.request import EncoderRequest
from imgsearch.events import Listener, ignore
from imgsearch.images import Pixels
from imgsearch.sources import Candidate
from imgsearch.types import Stamp
from tests.fakes import ColorEncoder

MANY_CORES = 1024
"""More than there are, so that no test is pinned."""


@dataclass
class EngineHere:
    """Runs chunks in this process when they are asked for; `loses` says which are lost."""

    loses: Callable[[Sequence[Candidate]], bool] = lambda _: False
    chunk_size: int = 4
    slots: int = 2
    device: str = "cpu"
    submitted: list[list[str]] = field(default_factory=list)
    cancelled: list[Hashable] = field(default_factory=list)
    _waiting: dict[Hashable, tuple[Job, Sequence[Candidate]]] = field(default_factory=dict)

    def offer_model(self, model: PackedModel) -> None:
        raise AssertionError("the encoder of these tests has no files")

    def submit(self, job: Job, candidates: Sequence[Candidate]) -> Hashable:
        self.submitted.append([os.path.basename(each.path) for each in candidates])
        handle = len(self.submitted)
        self._waiting[handle] = (job, candidates)
        return handle

    def finished(self, handles: Sequence[Hashable], seconds: float) -> Sequence[Hashable]:
        return list(handles)[-1:] if seconds else []

    def result(self, handle: Hashable) -> Result:
        job, candidates = self._waiting.pop(handle)
        if self.loses(candidates):
            raise LostError("it was unplugged")
        return process(job, candidates, MANY_CORES, node="node", worker="node/1")

    def cancel(self, handles: Iterable[Hashable]) -> None:
        self.cancelled += handles


class _Deadly(ColorEncoder):
    """Takes `seconds` for each image, and ends the process at one that is nearly white."""

    seconds = 0.0

    def encode(self, pixels: Pixels) -> Vectors:
        if (pixels.reshape(len(pixels), -1).mean(1, dtype=np.float32) > 250).any():
            os._exit(1)
        time.sleep(self.seconds * len(pixels))
        return super().encode(pixels)


@dataclass(frozen=True)
class Opener:
    """Opens an encoder in a worker; can be pickled."""

    seconds: float = 0.0

    def __call__(
        self, request: EncoderRequest, stamp: Stamp | None = None, listener: Listener = ignore
    ) -> ColorEncoder:
        encoder = _Deadly()
        encoder.seconds = self.seconds
        return encoder
