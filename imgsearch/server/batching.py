"""Encode the images of all requests in batches."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from imgsearch.encoders.base import Encoder, Vectors
from imgsearch.errors import DeviceMemoryError
from imgsearch.images import Pixels

_Pending = tuple[Pixels, "asyncio.Future[Vectors]"]


class Batcher:
    """Encodes images one by one for its callers, and together on the device.

    It never delays an image to fill a batch: an idle encoder starts immediately, and what arrives
    while it works is its next batch. So a single client does not wait, and batches grow with the
    load. Callers bound the number of waiting images.
    """

    def __init__(self, encoder: Encoder, batch_size: int, observe: Callable[[int], None]) -> None:
        """`observe` is called with the size of each batch."""
        self.encoder = encoder
        self._batch_size = batch_size
        self._observe = observe
        self._queue: deque[_Pending] = deque()
        self._workers: list[asyncio.Task[None]] = []
        self._threads = ThreadPoolExecutor(encoder.concurrency, "imgsearch-batch")

    @property
    def queue_size(self) -> int:
        """The number of images that wait to be encoded."""
        return len(self._queue)

    async def encode(self, pixels: Pixels) -> Vectors:
        """Return the vector, float32 of shape (dimension,), of one preprocessed image.

        `pixels` is uint8 of shape (size, size, 3). Raises what the encoder raises.
        """
        result: asyncio.Future[Vectors] = asyncio.get_running_loop().create_future()
        self._queue.append((pixels, result))
        self._workers = [worker for worker in self._workers if not worker.done()]
        if len(self._workers) < self.encoder.concurrency:
            self._workers.append(asyncio.create_task(self._work()))
        return await result

    async def _work(self) -> None:
        while self._queue:
            batch: list[_Pending] = []
            while self._queue and len(batch) < self._batch_size:
                pixels, result = self._queue.popleft()
                if not result.done():  # else its client has disconnected
                    batch.append((pixels, result))
            if batch:
                await self._encode_batch(batch)

    async def _encode_batch(self, batch: "list[_Pending]") -> None:
        self._observe(len(batch))
        pixels = np.stack([each for each, _ in batch])
        try:
            loop = asyncio.get_running_loop()
            vectors = await loop.run_in_executor(self._threads, self._encode_halving, pixels)
        except Exception as error:  # passed on to every caller
            for _, result in batch:
                if not result.done():
                    result.set_exception(error)
            return
        for (_, result), vector in zip(batch, vectors, strict=True):
            if not result.done():
                result.set_result(vector)

    def _encode_halving(self, pixels: Pixels) -> Vectors:
        """Encode a batch, in halves if it does not fit into the device's memory."""
        try:
            return self.encoder.encode(pixels)
        except DeviceMemoryError:
            if len(pixels) == 1:
                raise
        half = len(pixels) // 2
        halves = (pixels[:half], pixels[half:])
        return np.concatenate([self._encode_halving(each) for each in halves])

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
