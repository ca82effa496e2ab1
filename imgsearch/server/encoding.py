"""From pictures' bytes to vectors: decoded by the pool, encoded in batches."""

import asyncio
from collections.abc import Sequence

import numpy as np

from imgsearch import images
from imgsearch.encoders.base import Encoder, Vectors
from imgsearch.images import Picture, Region
from imgsearch.server.batching import Batcher
from imgsearch.server.metrics import Metrics
from imgsearch.server.pools import Pools, run
from imgsearch.server.settings import Settings


class Encoding:
    """The way of every picture, whoever sent it. For one event loop."""

    def __init__(self, settings: Settings, pools: Pools, metrics: Metrics) -> None:
        self._settings = settings
        self._pools = pools
        self._metrics = metrics
        self._batchers: dict[int, Batcher] = {}

    @property
    def waiting(self) -> int:
        """How many pictures wait to be encoded."""
        return sum(batcher.waiting for batcher in self._batchers.values())

    async def vectors(
        self, pictures: Sequence[bytes], encoder: Encoder, region: Region | None = None
    ) -> Vectors:
        """float32 of shape (n, dimension). Raises ImageError, UsageError or EncoderError."""
        each = [self.vector(picture, encoder, region) for picture in pictures]
        return np.stack([vector for _, vector in await asyncio.gather(*each)])

    async def vector(
        self, picture: bytes, encoder: Encoder, region: Region | None = None
    ) -> tuple[Picture, Vectors]:
        """One picture, decoded, and its vector, of shape (dimension,)."""
        with self._metrics.stage("decode"):
            decoded = await run(
                self._pools.decode,
                images.decode,
                picture,
                encoder.preprocessing,
                self._settings.limits.pixels,
                region,
            )
        with self._metrics.stage("encode"):
            return decoded, await self._batcher(encoder).encode(decoded.pixels)

    def _batcher(self, encoder: Encoder) -> Batcher:
        if id(encoder) not in self._batchers:
            size = self._settings.batch_size
            self._batchers[id(encoder)] = Batcher(encoder, size, self._metrics.batch)
        return self._batchers[id(encoder)]

    def close(self) -> None:
        for batcher in self._batchers.values():
            batcher.close()
