"""The collections that the service has open: one store, and each model once."""

import threading
from collections.abc import Callable

from imgsearch.encoders.base import Encoder
from imgsearch.encoders.factory import open_encoder
from imgsearch.encoders.request import EncoderRequest
from imgsearch.errors import CollectionNotFoundError
from imgsearch.events import Listener, ignore
from imgsearch.index import ImageIndex
from imgsearch.server.models import Models
from imgsearch.server.settings import Settings
from imgsearch.stores import VectorStore, open_store
from imgsearch.types import Stamp


class Indexes:
    """An `ImageIndex` for each collection, opened when it is first asked for.

    For threads of the service's pools: its calls wait for the store, or for a model to load.
    """

    def __init__(
        self,
        settings: Settings,
        listener: Listener = ignore,
        encoder_opener: Callable[..., Encoder] = open_encoder,
    ) -> None:
        self._settings = settings
        self._listener = listener
        self.models = Models(settings, listener, encoder_opener)
        self._opening = threading.Lock()
        self._store: VectorStore | None = None
        self._known: dict[str, ImageIndex] = {}

    @property
    def store(self) -> VectorStore:
        """Raises StoreError if it cannot be reached."""
        settings = self._settings
        with self._opening:
            if self._store is None:
                self._store = open_store(settings.store, settings.store_timeout, self._listener)
            return self._store

    def of(self, name: str) -> ImageIndex:
        """The one of a collection that exists. Raises CollectionNotFoundError, UsageError."""
        if known := self._known.get(name):
            return known
        index = self.new(name)
        index.collection  # noqa: B018 - only what exists is kept
        return self._known.setdefault(name, index)

    def new(self, name: str) -> ImageIndex:
        """One of a collection that may not exist yet. Raises UsageError for an unusable name."""
        settings = self._settings
        return ImageIndex(
            name,
            store=self.store,
            model=settings.model,
            weights=settings.weights,
            device=settings.device,
            max_pixels=settings.limits.pixels,
            listener=self._listener,
            encoder_opener=self.encoder,
        )

    def forget(self, name: str) -> None:
        self._known.pop(name, None)

    def encoder(
        self,
        request: EncoderRequest,
        stamp: Stamp | None = None,
        listener: Listener = ignore,  # noqa: ARG002 - models report to the service's own
    ) -> Encoder:
        """As `open_encoder`, but each model is loaded once. Waits for it."""
        return self.models.load(request, stamp).result()

    def stamp_of(self, name: str) -> Stamp | None:
        """The stamp of a collection; None if there is none yet."""
        try:
            return self.of(name).collection.stamp
        except CollectionNotFoundError:
            return None

    def close(self) -> None:
        if self._store:
            self._store.close()
