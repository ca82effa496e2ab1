"""The collections that the service has open, each with the model that made it."""

import threading
from collections.abc import Callable
from typing import TypeVar

from imgsearch.encoders import Encoder, EncoderRequest, last_used_encoder, open_encoder
from imgsearch.errors import StoreError
from imgsearch.events import Listener, ignore
from imgsearch.records import Stamp
from imgsearch.server.settings import Settings
from imgsearch.stores import open_store
from imgsearch.stores.base import Collection, VectorStore

T = TypeVar("T")


class Opened:
    """Opens the store, collections and models when they are first needed, and keeps them.

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
        self._open_encoder = encoder_opener
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._store: VectorStore | None = None
        self._collections: dict[str, Collection] = {}
        self._encoders: dict[Stamp, Encoder] = {}

    @property
    def store(self) -> VectorStore:
        """Raises StoreError if it cannot be reached."""
        with self._lock:
            if self._store is None:
                self._store = open_store(
                    self._settings.store, self._settings.store_timeout, self._listener
                )
            return self._store

    def collection(self, name: str) -> Collection:
        """Raises CollectionNotFoundError, or another StoreError."""
        if known := self._collections.get(name):
            return known
        collection = self._collections[name] = self.store.open(name)
        return collection

    def use(self, name: str, action: Callable[[Collection], T]) -> T:
        """What `action` makes of a collection. If its handle has aged, it is opened anew.

        That is so after it was dropped, or replaced by one of another model.
        """
        known = self._collections.get(name)
        if known is not None:
            try:
                return action(known)
            except StoreError:
                self.forget(name)
        return action(self.collection(name))

    def forget(self, name: str) -> None:
        """Open the collection anew when it is next needed."""
        self._collections.pop(name, None)

    def encoder(self, stamp: Stamp) -> Encoder:
        """The one for a collection's vectors. Raises EncoderError or CollectionMismatchError."""
        if known := self._encoders.get(stamp):
            return known
        with self._loading:
            if stamp not in self._encoders:
                request = EncoderRequest(
                    weights=self._settings.weights, device=self._settings.device
                )
                self._encoders[stamp] = self._open_encoder(request, stamp, self._listener)
            return self._encoders[stamp]

    def guess(self) -> None:
        """Load the model that was used last, while the collection is opened."""
        if self._settings.weights is None and self._settings.device in ("auto", "cpu"):
            with self._loading:
                if encoder := last_used_encoder():
                    self._encoders.setdefault(encoder.stamp, encoder)

    def close(self) -> None:
        if self._store:
            self._store.close()
