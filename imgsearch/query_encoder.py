"""The encoder for query images, and a start on the first one before its collection is open."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from imgsearch import config
from imgsearch.encoders.base import Encoder, Vectors
from imgsearch.encoders.factory import last_used_encoder, open_encoder
from imgsearch.encoders.request import EncoderRequest
from imgsearch.errors import ImageError
from imgsearch.events import Listener
from imgsearch.images import Source, decode
from imgsearch.search import SearchRequest
from imgsearch.types import Stamp


@dataclass(frozen=True, slots=True)
class _EarlyQuery:
    """An image that is encoded before it is searched for. `version` is its `_file_version`."""

    source: Source
    version: tuple[int, ...] | None
    stamp: Stamp
    vectors: Future[Vectors]


class QueryEncoder:
    """Opens the encoder for a collection on first use, and caches one."""

    def __init__(
        self,
        request: EncoderRequest,
        max_pixels: int,
        listener: Listener,
        encoder_opener: Callable[..., Encoder],
    ) -> None:
        # A single image is encoded on the CPU before the libraries of a GPU are loaded.
        device = "cpu" if request.device == config.DEFAULT_DEVICE else request.device
        self._request = EncoderRequest(weights=request.weights, device=device)
        self._max_pixels = max_pixels
        self._listener = listener
        self._open_encoder = encoder_opener
        self._lock = threading.Lock()
        self._encoder: Encoder | None = None
        self._early: _EarlyQuery | None = None

    def get(self, stamp: Stamp) -> Encoder:
        """Return the encoder that makes vectors of this stamp. Raises EncoderError."""
        with self._lock:
            if self._encoder is None or self._encoder.stamp != stamp:
                self._encoder = self._open_encoder(self._request, stamp, self._listener)
            return self._encoder

    def warm_up(self, source: Source) -> None:
        """Start to encode an image with the encoder that ran last on this machine.

        Most likely, it is the right one; otherwise, and for an unusable image, the search
        starts over. Does nothing if a device, weights or an encoder was chosen explicitly.
        """
        if (
            self._request.device != "cpu"
            or self._request.weights is not None
            or self._open_encoder is not open_encoder
            or (encoder := last_used_encoder()) is None
        ):
            return
        with suppress(ImageError):
            version = _file_version(source)
            decoded = decode(source, encoder.preprocessing, self._max_pixels)
            thread = ThreadPoolExecutor(1, "imgsearch-warm-up")
            vectors = thread.submit(encoder.encode, decoded.pixels[np.newaxis])
            thread.shutdown(wait=False)
            self._encoder = encoder
            self._early = _EarlyQuery(source, version, encoder.stamp, vectors)

    def take_early(self, request: SearchRequest, stamp: Stamp) -> Vectors | None:
        """Return the vector of the image that `warm_up` has encoded, of shape (1, dimension).

        Returns None unless the request is for exactly this image, unchanged since. The vector is
        dropped in any case, so only the first request can get it.
        """
        early, self._early = self._early, None
        if (
            early is None
            or request.region
            or request.records
            or [early.source] != request.images
            or early.stamp != stamp
        ):
            return None
        return early.vectors.result() if early.version == _file_version(early.source) else None


def _file_version(source: Source) -> tuple[int, ...] | None:
    """Return a value that changes when a file is replaced or modified; None if it is no file."""
    if not isinstance(source, str):
        return None
    with suppress(OSError, ValueError):
        status = os.stat(source)
        return (status.st_ino, status.st_size, status.st_mtime_ns)
    return ()
