"""An encoder that distributes batches over several devices."""

import queue
from collections.abc import Sequence

from imgsearch.encoders.base import Encoder, Vectors
from imgsearch.images import Pixels, Preprocessing
from imgsearch.types import Stamp


class EncoderPool:
    """Encoders of the same model, each on its own device.

    A batch goes to the device that has been idle the longest, and runs in the calling thread: there
    are no threads to stop, and errors reach the caller.
    """

    def __init__(self, encoders: Sequence[Encoder]) -> None:
        self._encoders = encoders
        self._free: queue.SimpleQueue[Encoder] = queue.SimpleQueue()
        # In turns, so that no device gets a second batch before all have one.
        for turn in range(max(each.concurrency for each in encoders)):
            for each in encoders:
                if turn < each.concurrency:
                    self._free.put(each)

    @property
    def stamp(self) -> Stamp:
        return self._encoders[0].stamp

    @property
    def preprocessing(self) -> Preprocessing:
        return self._encoders[0].preprocessing

    @property
    def runtime(self) -> str:
        return self._encoders[0].runtime

    @property
    def device(self) -> str:
        return ",".join(each.device for each in self._encoders)

    @property
    def compute_type(self) -> str:
        return ",".join(dict.fromkeys(each.compute_type for each in self._encoders))

    @property
    def batch_size(self) -> int:
        return min(each.batch_size for each in self._encoders)

    @property
    def concurrency(self) -> int:
        return sum(each.concurrency for each in self._encoders)

    def encode(self, pixels: Pixels) -> Vectors:
        encoder = self._free.get()
        try:
            return encoder.encode(pixels)
        finally:
            self._free.put(encoder)
