"""The models of the service: each is loaded once, in a thread of its own, and waited for briefly.

To load one may take minutes: it may have to be downloaded and exported. Nothing that other calls
need waits for that.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace

from imgsearch.encoders.base import Encoder
from imgsearch.encoders.factory import last_used_encoder, open_encoder
from imgsearch.encoders.request import EncoderRequest
from imgsearch.events import Listener, ignore
from imgsearch.server.errors import RefusedError
from imgsearch.server.settings import Settings
from imgsearch.types import Stamp

# Clients are asked to retry after this many seconds.
_RETRY_SECONDS = 5


@dataclass(frozen=True, slots=True)
class _Load:
    started: float
    encoder: "Future[Encoder]"


_Key = Stamp | tuple[str, str | None, str | None]
"""A collection's stamp, or what a request for a new collection names."""


class Models:
    """Loads models, each once; a load that failed is tried again by the next call."""

    def __init__(
        self,
        settings: Settings,
        listener: Listener = ignore,
        encoder_opener: Callable[..., Encoder] = open_encoder,
    ) -> None:
        self._settings = settings
        self._listener = listener
        self._open_encoder = encoder_opener
        self._lock = threading.Lock()
        self._loads: dict[_Key, _Load] = {}
        self._encoders: dict[Stamp, Encoder] = {}

    def of(self, stamp: Stamp | None) -> "Future[Encoder]":
        """The model of a collection, or with None the model that makes a new one.

        Its errors are those of `open_encoder`.
        """
        return self._of(stamp).encoder

    def _of(self, stamp: Stamp | None) -> _Load:
        settings = self._settings
        if stamp is None:
            return self._load(EncoderRequest(settings.model, settings.weights), None)
        return self._load(EncoderRequest(weights=settings.weights), stamp)

    def load(self, request: EncoderRequest, stamp: Stamp | None = None) -> "Future[Encoder]":
        """As `open_encoder`, on the service's own device."""
        return self._load(request, stamp).encoder

    def _load(self, request: EncoderRequest, stamp: Stamp | None) -> _Load:
        key = stamp or (request.model, request.weights, request.precision)
        with self._lock:
            load = self._loads.get(key)
            if load and not (load.encoder.done() and load.encoder.exception()):
                return load
            load = self._loads[key] = _Load(time.monotonic(), Future())
            if stamp in self._encoders:
                load.encoder.set_result(self._encoders[stamp])
                return load
        request = replace(request, device=self._settings.device)
        # A daemon, so that a download does not hold up the end of the service.
        threading.Thread(
            target=self._run, args=(load, request, stamp), name="imgsearch-model", daemon=True
        ).start()
        return load

    def _run(self, load: _Load, request: EncoderRequest, stamp: Stamp | None) -> None:
        try:
            encoder = self._open_encoder(request, stamp, self._listener)
        except BaseException as error:  # passed on to all who wait
            load.encoder.set_exception(error)
        else:
            load.encoder.set_result(self._remembered(encoder))

    def _remembered(self, encoder: Encoder) -> Encoder:
        with self._lock:
            return self._encoders.setdefault(encoder.stamp, encoder)

    async def ready(self, stamp: Stamp | None) -> Encoder:
        """The model, if it is loaded soon.

        Raises RefusedError if loading takes longer than the settings' `model_seconds`, and the
        errors of `open_encoder`.
        """
        load = self._of(stamp)
        left = load.started + self._settings.model_seconds - time.monotonic()
        if not load.encoder.done() and left > 0:
            loaded = asyncio.wrap_future(load.encoder)
            await asyncio.wait([asyncio.shield(loaded)], timeout=left)
        if not load.encoder.done():
            raise RefusedError(
                503, "not-ready", "the model is being prepared; try again later", _RETRY_SECONDS
            )
        return load.encoder.result()

    def guess(self) -> None:
        """Load the model that was used last, while the collection is opened."""
        if self._settings.weights or self._settings.device not in ("auto", "cpu"):
            return
        if self._open_encoder is open_encoder and (encoder := last_used_encoder()):
            self._remembered(encoder)
