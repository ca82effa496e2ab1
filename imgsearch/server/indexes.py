"""The open collections of the service, which share one store and its models."""

import threading
from collections.abc import Callable
from typing import TypeVar

from imgsearch.encoders.base import Encoder
from imgsearch.encoders.request import EncoderRequest
from imgsearch.errors import CollectionNotFoundError
from imgsearch.events import Listener, ignore
from imgsearch.index import ImageIndex
from imgsearch.server.capacity import Pools, run
from imgsearch.server.models import Models
from imgsearch.server.settings import Settings
from imgsearch.stores import VectorStore, open_store
from imgsearch.types import Stamp

T = TypeVar("T")


class Indexes:
    """An `ImageIndex` for each collection, opened on first use.

    `read` and `write` are for the event loop. Call the rest from pool threads, as it waits for the
    store or for a model.
    """

    def __init__(
        self, settings: Settings, models: Models, pools: Pools, listener: Listener = ignore
    ) -> None:
        self._settings = settings
        self._models = models
        self._pools = pools
        self._listener = listener
        self._lock = threading.Lock()
        self._store: VectorStore | None = None
        self._indexes: dict[str, ImageIndex] = {}

    @property
    def store(self) -> VectorStore:
        """The store, opened on first use. Raises StoreError if it cannot be reached."""
        settings = self._settings
        with self._lock:
            if self._store is None:
                self._store = open_store(settings.store, settings.store_timeout, self._listener)
            return self._store

    async def read(self, name: str | None, action: Callable[[ImageIndex], T]) -> T:
        """Return what an action returns for a collection; None is the settings' collection."""
        name = name or self._settings.collection
        return await run(self._pools.store, lambda: action(self.get(name)))

    async def write(self, name: str | None, action: Callable[[ImageIndex], T]) -> T:
        """Return the same for an action that changes the collection, one at a time."""
        name = name or self._settings.collection
        return await run(self._pools.write, lambda: action(self.get(name)))

    def get(self, name: str) -> ImageIndex:
        """Return an existing collection. Raises CollectionNotFoundError or UsageError."""
        if index := self._indexes.get(name):
            return index
        index = self.create(name)
        index.collection  # noqa: B018 - raises for a missing collection, which is not cached
        return self._indexes.setdefault(name, index)

    def create(self, name: str) -> ImageIndex:
        """Return a collection that may not exist yet. Raises UsageError for an invalid name."""
        settings = self._settings
        return ImageIndex(
            name,
            store=self.store,
            model=settings.model,
            weights=settings.weights,
            device=settings.device,
            max_pixels=settings.limits.pixels,
            listener=self._listener,
            encoder_opener=self._open_encoder,
        )

    def _open_encoder(
        self,
        request: EncoderRequest,
        stamp: Stamp | None = None,
        listener: Listener = ignore,  # noqa: ARG002 - models report to the service's own
    ) -> Encoder:
        return self._models.load(request, stamp).result()

    def forget(self, name: str) -> None:
        """Drop a collection from the cache."""
        self._indexes.pop(name, None)

    def stamp(self, name: str) -> Stamp | None:
        """Return the stamp of a collection; None if it does not exist."""
        try:
            return self.get(name).collection.stamp
        except CollectionNotFoundError:
            return None

    def close(self) -> None:
        if self._store:
            self._store.close()
