"""Pictures that arrive together are encoded in one batch."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from imgsearch.encoders.base import Encoder, Vectors
from imgsearch.errors import DeviceMemoryError
from imgsearch.images import Pixels

Observer = Callable[[int], None]
_Waiting = tuple[Pixels, "asyncio.Future[Vectors]"]


class Batcher:
    """Encodes single pictures, those that wait at the same time as one batch.

    Nothing is held back to fill a batch: an idle encoder takes a picture at once, and what arrives
    while it works is its next batch. So a single client never waits, and the batches grow with the
    load by themselves. As many batches are under way as keep the encoder busy. Who calls it bounds
    how many pictures wait.
    """

    def __init__(self, encoder: Encoder, batch_size: int, observe: Observer) -> None:
        """`observe` is told the size of each batch."""
        self.encoder = encoder
        self._batch_size = batch_size
        self._observe = observe
        self._waiting: deque[_Waiting] = deque()
        self._workers: list[asyncio.Task[None]] = []
        self._threads = ThreadPoolExecutor(encoder.concurrency, "imgsearch-batch")

    @property
    def waiting(self) -> int:
        """How many pictures wait to be encoded."""
        return len(self._waiting)

    async def encode(self, pixels: Pixels) -> Vectors:
        """The vector of one preprocessed picture, uint8 of shape (size, size, 3).

        float32 of shape (dimension,). Raises what the encoder raises.
        """
        answer: asyncio.Future[Vectors] = asyncio.get_running_loop().create_future()
        self._waiting.append((pixels, answer))
        self._workers = [worker for worker in self._workers if not worker.done()]
        if len(self._workers) < self.encoder.concurrency:
            self._workers.append(asyncio.create_task(self._work()))
        return await answer

    async def _work(self) -> None:
        """Until nothing waits any more."""
        while self._waiting:
            batch: list[_Waiting] = []
            while self._waiting and len(batch) < self._batch_size:
                pixels, answer = self._waiting.popleft()
                if not answer.done():  # its client may have gone
                    batch.append((pixels, answer))
            if batch:
                await self._encode(batch)

    async def _encode(self, batch: "list[_Waiting]") -> None:
        self._observe(len(batch))
        pixels = np.stack([each for each, _ in batch])
        try:
            loop = asyncio.get_running_loop()
            vectors = await loop.run_in_executor(self._threads, self._in_parts, pixels)
        except Exception as error:  # each of those who wait is told
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), vector in zip(batch, vectors, strict=True):
            if not answer.done():
                answer.set_result(vector)

    def _in_parts(self, pixels: Pixels) -> Vectors:
        """In halves, where a batch does not fit into the device's memory."""
        try:
            return self.encoder.encode(pixels)
        except DeviceMemoryError:
            if len(pixels) == 1:
                raise
        half = len(pixels) // 2
        return np.concatenate([self._in_parts(pixels[:half]), self._in_parts(pixels[half:])])

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
