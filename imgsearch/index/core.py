"""What every method of an index stands on: its settings, open store, collection and model."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Self

from imgsearch import config
from imgsearch.encoders.base import Encoder
from imgsearch.encoders.factory import open_encoder
from imgsearch.encoders.request import EncoderRequest, Precision, precision_setting
from imgsearch.events import Listener, both, ignore
from imgsearch.handles import Handles
from imgsearch.query_encoder import QueryEncoder
from imgsearch.stores import check_name
from imgsearch.stores.base import Collection, VectorStore
from imgsearch.types import (
    Condition,
    VectorDtype,
)

Where = Sequence[str | Condition]
"""Conditions, or texts such as `"year >= 2012"`; all must hold."""


class IndexCore:
    """A collection, opened on first use."""

    def __init__(
        self,
        collection: str | None = None,
        *,
        store: str | os.PathLike[str] | VectorStore | None = None,
        model: str | None = None,
        weights: str | None = None,
        device: str | None = None,
        precision: Precision | None = None,
        vector_dtype: VectorDtype | None = None,
        max_pixels: int = config.DEFAULT_MAX_PIXELS,
        timeout: float = config.DEFAULT_STORE_TIMEOUT,
        listener: Listener = ignore,
        encoder_opener: Callable[..., Encoder] = open_encoder,
    ) -> None:
        """Configure an index. Nothing is opened yet.

        Omitted arguments are taken from the `IMGSEARCH_*` environment variables, else from the
        defaults. `model`, `precision` and `vector_dtype` matter only for a new collection; an
        existing one determines its own.

        Args:
            collection: The name of the collection.
            store: The URL or folder of a store, or an open store, which the caller closes.
            model: The name of the model.
            weights: A file or URL of weights, instead of the model's own.
            device: The device that runs the model: `cpu`, `cuda`, `cuda:1`, `cuda:all`, `mps` or
                `auto`, which is the CPU for searches.
            precision: `fp32` or `int8`.
            vector_dtype: How the embedded store keeps the vectors: `float32`, or `float16`, which
                takes half the space.
            max_pixels: The largest width x height of an image; larger ones raise ImageError.
            timeout: Seconds to wait for an unreachable store, or for another writer.
            listener: Receives the events of `imgsearch.events`.
            encoder_opener: Replaces `open_encoder`, for example in tests.

        Raises:
            UsageError: The name of the collection or a setting is invalid.
        """
        name = config.setting(collection, config.ENV_COLLECTION, config.DEFAULT_COLLECTION)
        self._name = check_name(name)
        self._request = EncoderRequest(
            config.setting(model, config.ENV_MODEL, config.DEFAULT_MODEL),
            weights,
            config.setting(device, config.ENV_DEVICE, config.DEFAULT_DEVICE),
            precision_setting(precision),
        )
        self._vector_dtype = vector_dtype
        self._max_pixels = max_pixels
        self._listener = listener
        self._encoder_opener = encoder_opener
        if store is None or isinstance(store, str | os.PathLike):
            url = None if store is None else os.fspath(store)
            store = config.setting(url, config.ENV_STORE, "") or None
        self._handles = Handles(self._name, store, timeout, listener)
        self._encoder = QueryEncoder(self._request, max_pixels, listener, encoder_opener)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the store. All other methods raise StoreError afterwards."""
        self._handles.close()

    @property
    def name(self) -> str:
        """The name of the collection."""
        return self._name

    @property
    def store(self) -> VectorStore:
        """The open store."""
        return self._handles.store

    @property
    def collection(self) -> Collection:
        """The collection in the store.

        The object becomes stale when another process replaces the collection; the methods of the
        index then open a new one.
        """
        return self._handles.collection

    @property
    def encoder(self) -> Encoder:
        """The encoder that made the collection."""
        return self._encoder.get(self.collection.stamp)

    @contextmanager
    def _reporting(self, listener: Listener | None, progress: bool = False) -> Iterator[Listener]:
        """Yield the listener of one call, which shows progress bars as well if wanted."""
        listener = listener or self._listener
        if not progress:
            yield listener
            return
        from tqdm.auto import tqdm  # not needed by searches

        from imgsearch.progress import ProgressBars

        with ProgressBars(tqdm) as bars:
            yield both(listener, bars)
