"""The service's models: each is loaded once, and encodes the images of all requests in batches."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace

from imgsearch import images
from imgsearch.encoders.base import Encoder, Vectors
from imgsearch.encoders.factory import last_used_encoder, open_encoder
from imgsearch.encoders.request import EncoderRequest
from imgsearch.events import Listener, ignore
from imgsearch.images import DecodedImage, Region, Source
from imgsearch.server.batching import Batcher
from imgsearch.server.capacity import Pools, run
from imgsearch.server.errors import not_ready
from imgsearch.server.metrics import Metrics
from imgsearch.server.settings import Settings
from imgsearch.types import Stamp

# The `Retry-After` for clients that need a model which is still loading.
_RETRY_SECONDS = 5


class _Load(Future[Encoder]):
    def __init__(self) -> None:
        super().__init__()
        self.started = time.monotonic()


class Models:
    """Loads each model in a thread of its own; a failed load is retried by the next call.

    Loading can take minutes, as a model may have to be downloaded and exported. Requests that need
    no model do not wait for it.
    """

    def __init__(
        self,
        settings: Settings,
        pools: Pools,
        metrics: Metrics,
        listener: Listener = ignore,
        encoder_opener: Callable[..., Encoder] = open_encoder,
    ) -> None:
        self._settings = settings
        self._pools = pools
        self._metrics = metrics
        self._listener = listener
        self._open_encoder = encoder_opener
        self._lock = threading.Lock()
        # By a collection's stamp, or by the model, weights and precision of a new collection.
        self._loads: dict[Stamp | tuple[str, str | None, str | None], _Load] = {}
        self._encoders: dict[Stamp, Encoder] = {}
        self._batchers: dict[int, Batcher] = {}

    def get(self, stamp: Stamp | None) -> _Load:
        """Return the model of a collection; with None, the model for new collections.

        The future raises what `open_encoder` raises.
        """
        settings = self._settings
        if stamp is None:
            return self.load(EncoderRequest(settings.model, settings.weights), None)
        return self.load(EncoderRequest(weights=settings.weights), stamp)

    def load(self, request: EncoderRequest, stamp: Stamp | None = None) -> _Load:
        """Load a model as `open_encoder` does, on the service's device."""
        key = stamp or (request.model, request.weights, request.precision)
        with self._lock:
            load = self._loads.get(key)
            if load and not (load.done() and load.exception()):
                return load
            load = self._loads[key] = _Load()
            if stamp in self._encoders:
                load.set_result(self._encoders[stamp])
                return load
        request = replace(request, device=self._settings.device)
        # A daemon, so that a download does not delay the end of the process.
        threading.Thread(
            target=self._run, args=(load, request, stamp), name="imgsearch-model", daemon=True
        ).start()
        return load

    def _run(self, load: _Load, request: EncoderRequest, stamp: Stamp | None) -> None:
        try:
            encoder = self._open_encoder(request, stamp, self._listener)
        except BaseException as error:  # passed on to every caller
            load.set_exception(error)
        else:
            load.set_result(self._cache(encoder))

    def _cache(self, encoder: Encoder) -> Encoder:
        with self._lock:
            return self._encoders.setdefault(encoder.stamp, encoder)

    async def wait(self, stamp: Stamp | None) -> Encoder:
        """Return a model, after waiting at most the settings' `model_seconds` for its load.

        Raises ApiError (503) if that is not enough, and what `open_encoder` raises.
        """
        load = self.get(stamp)
        left = load.started + self._settings.model_seconds - time.monotonic()
        if not load.done() and left > 0:
            await asyncio.wait([asyncio.shield(asyncio.wrap_future(load))], timeout=left)
        if not load.done():
            raise not_ready(
                "the model is being prepared; try again later", retry_after=_RETRY_SECONDS
            )
        return load.result()

    def preload(self) -> None:
        """Load the model that was used last, while the collection is still being opened."""
        if self._settings.weights or self._settings.device not in ("auto", "cpu"):
            return
        if self._open_encoder is open_encoder and (encoder := last_used_encoder()):
            self._cache(encoder)

    async def encode(
        self, image: Source, encoder: Encoder, region: Region | None = None
    ) -> tuple[DecodedImage, Vectors]:
        """Return a decoded image, and its vector of shape (dimension,). For one event loop.

        Raises ImageError, UsageError or EncoderError.
        """
        max_pixels = self._settings.limits.pixels
        with self._metrics.stage("decode"):
            decoded = await run(
                self._pools.decode, images.decode, image, encoder.preprocessing, max_pixels, region
            )
        batcher = self._batchers.get(id(encoder))
        if batcher is None:
            batcher = Batcher(encoder, self._settings.batch_size, self._metrics.batch)
            self._batchers[id(encoder)] = batcher
        with self._metrics.stage("encode"):
            return decoded, await batcher.encode(decoded.pixels)

    @property
    def queue_size(self) -> int:
        """The number of images that wait to be encoded."""
        return sum(batcher.queue_size for batcher in self._batchers.values())

    def close(self) -> None:
        for batcher in self._batchers.values():
            batcher.close()
