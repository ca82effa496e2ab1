"""The open store and collection of an `ImageIndex`, shared by its threads."""

import os
import threading
from collections.abc import Callable
from typing import TypeVar

from imgsearch.errors import StaleCollectionError, StoreError
from imgsearch.events import Listener
from imgsearch.stores import open_store
from imgsearch.stores.base import Collection, VectorStore

T = TypeVar("T")


class Handles:
    """Opens a store and one of its collections on first use.

    `store` is a URL or a folder, None for the default store, or an open store, which the caller
    closes.
    """

    def __init__(
        self,
        name: str,
        store: str | os.PathLike[str] | VectorStore | None,
        timeout: float,
        listener: Listener,
    ) -> None:
        self._name = name
        self._given = store
        self._timeout = timeout
        self._listener = listener
        self._lock = threading.Lock()
        self._store: VectorStore | None = None
        self._collection: Collection | None = None
        self._closed = False

    @property
    def store(self) -> VectorStore:
        """The store. Raises StoreError if it cannot be opened, or after `close`."""
        with self._lock:
            return self._opened_store()

    def _opened_store(self) -> VectorStore:
        if self._closed:
            raise StoreError("the index has been closed")
        if not (self._given is None or isinstance(self._given, str | os.PathLike)):
            return self._given
        if self._store is None:
            url = None if self._given is None else os.fspath(self._given)
            self._store = open_store(url, self._timeout, self._listener)
        return self._store

    @property
    def collection(self) -> Collection:
        """The collection. Raises CollectionNotFoundError."""
        with self._lock:
            store = self._opened_store()
            if self._collection is None:
                self._collection = store.open(self._name)
            return self._collection

    def use(self, action: Callable[[Collection], T]) -> T:
        """Return the result of an action on the collection.

        If another process has replaced the collection, the action is repeated on the new one.
        """
        collection = self.collection
        try:
            return action(collection)
        except StaleCollectionError:
            self._forget(collection)
        return action(self.collection)

    def _forget(self, collection: Collection) -> None:
        with self._lock:
            if self._collection is collection:  # another thread may have opened the new one
                self._collection = None

    def drop(self) -> None:
        """Delete the collection. Raises CollectionNotFoundError."""
        self.store.drop(self._name)
        with self._lock:
            self._collection = None

    def close(self) -> None:
        """Close the store, unless the caller gave an open one."""
        with self._lock:
            self._closed = True
            if self._store:
                self._store.close()
