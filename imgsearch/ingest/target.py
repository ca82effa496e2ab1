"""The collection that an ingest writes to, and the encoder that fills it."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace

from imgsearch import config
from imgsearch.encoders.base import Encoder
from imgsearch.encoders.catalog import AUTO
from imgsearch.encoders.request import EncoderRequest, check_request
from imgsearch.errors import CollectionMismatchError, Remedy
from imgsearch.events import Listener, Note
from imgsearch.ingest import limits
from imgsearch.ingest.replacement import reconcile
from imgsearch.sites import HERE, Sites
from imgsearch.sources import Sources
from imgsearch.stores.base import (
    Collection,
    StoredVector,
    VectorStore,
    check_dtype,
    check_dtype_of_store,
)
from imgsearch.types import FieldType, ImageRecord, Stamp, VectorDtype


class VectorSource(ABC):
    """Known vectors, and the encoder that makes new ones, opened on first use."""

    def __init__(self, batch_size: int | None) -> None:
        """A `batch_size` of None takes the encoder's."""
        self._batch_size = batch_size
        self._encoder: Encoder | None = None

    @property
    def batch_size(self) -> int:
        """Images per call of the model. Until the encoder is open this may be a default."""
        suggested = self._encoder.batch_size if self._encoder else config.DEFAULT_BATCH_SIZE
        return self._batch_size or suggested

    @property
    def concurrency(self) -> int:
        """Batches to encode at the same time."""
        return min(self._encoder.concurrency, limits.MAX_IN_FLIGHT) if self._encoder else 1

    @abstractmethod
    def encoder(self) -> Encoder:
        """Return the encoder. The first call opens it, and must return before others are made."""

    @abstractmethod
    def vectors_by_digest(self, digests: Sequence[str]) -> dict[str, StoredVector]:
        """Return the stored vectors of content, by SHA-256."""


class Target(VectorSource):
    """Opens the collection and the encoder when they are first needed.

    A run that finds nothing new neither loads the model nor leaves an empty collection.
    """

    def __init__(
        self,
        store: VectorStore,
        name: str,
        request: EncoderRequest,
        encoder_opener: Callable[..., Encoder],
        listener: Listener,
        *,
        replace: bool = False,
        vector_dtype: VectorDtype | None = None,
        batch_size: int | None = None,
    ) -> None:
        """`replace`, `vector_dtype` and `batch_size` are those of `IngestOptions`."""
        check_dtype_of_store(store, vector_dtype)
        super().__init__(batch_size)
        self.store = store
        self.name = name
        self._request = request
        self._open_encoder = encoder_opener
        self._listener = listener
        self._vector_dtype = vector_dtype
        self._fields: dict[str, FieldType] = {}
        self.collection: Collection | None = None
        self.previous: Collection | None = None
        """The collection that `collection` is going to replace."""
        self.claimed = False
        """Whether this machine has just become the home of records of unknown sites."""
        self.preparing = 0.0
        """Seconds spent on opening the encoder."""
        if name in store.names():
            self.collection = store.open(name)
            self.claimed = self.collection.join_site(listener)
            if replace:
                self._begin_replacement(self.collection)
            else:
                check_request(request, self.collection.stamp)
                conversions = Remedy.REPLACE_VECTORS, Remedy.COPY_VECTORS
                check_dtype(self.collection, vector_dtype, *conversions)

    def _begin_replacement(self, current: Collection) -> None:
        stamp = self._stamp_of_replacement(current.stamp)
        vector_dtype = self._vector_dtype or current.vector_dtype
        if (stamp, vector_dtype) == (current.stamp, current.vector_dtype):
            made = describe(stamp, vector_dtype)
            self._listener(Note(f"collection {self.name} already has vectors of {made}"))
            return
        self.previous = current
        self.collection = self.store.replacement(self.name, stamp, current.fields, vector_dtype)
        self.collection.join_site(self._listener)

    def _stamp_of_replacement(self, current: Stamp) -> Stamp:
        request = self._request
        if request.model == AUTO and (request.precision or self._vector_dtype):
            if not request.precision and not request.weights:  # only the number format changes
                return current
            self._request = replace(request, model=current.model)
        self._encoder = self._opened(None)
        return self._encoder.stamp

    def resume(self, sources: Sources) -> None:
        """Update what an interrupted run put into the new collection."""
        if self.previous is None or self.collection is None:
            return
        if outdated := reconcile(self.collection, self.previous, sources):
            self._listener(
                Note(
                    f"resuming the interrupted replacement of collection {self.name}; "
                    f"{outdated:,} of its records were removed or changed since then"
                )
            )

    def promote(self) -> None:
        """Replace the previous collection by the new one."""
        assert self.collection is not None
        self.store.promote(self.name, self.collection.stamp)
        self.previous = None
        self.collection = self.store.open(self.name)

    @property
    def fields(self) -> dict[str, FieldType]:
        return dict(self.collection.fields) if self.collection else {}

    def add_fields(self, fields: dict[str, FieldType]) -> None:
        """Add metadata fields, once the collection exists."""
        self._fields = fields
        if self.collection:
            self.collection.add_fields(fields)

    @property
    def stamp(self) -> Stamp | None:
        return self.collection.stamp if self.collection else None

    @property
    def sites(self) -> Sites:
        return self.collection.sites if self.collection else HERE

    def file_stats(self, uris: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Return size and mtime_ns by URI, without the URIs that have no record."""
        return self.collection.file_stats(uris) if self.collection and uris else {}

    def lookup(self, ids: Sequence[str]) -> tuple[dict[str, ImageRecord], dict[str, ImageRecord]]:
        """Return the records with these ids: the collection's, and the previous one's if any."""
        known = self.collection.lookup(ids) if self.collection and ids else {}
        return known, self.previous.lookup(ids) if self.previous and ids else known

    def vectors_by_digest(self, digests: Sequence[str]) -> dict[str, StoredVector]:
        """Return the stored vectors of content, by SHA-256."""
        found = self.collection.vectors_by_digest(digests) if self.collection and digests else {}
        if self.previous and self.previous.stamp == self.stamp:
            missing = [digest for digest in digests if digest not in found]
            found |= self.previous.vectors_by_digest(missing) if missing else {}
        return found

    def writable(self) -> Collection:
        """Return the collection, which is created if it does not exist."""
        if self.collection is None:
            stamp = self.encoder().stamp
            self.collection = self.store.open_or_create(
                self.name, stamp, self._fields, self._vector_dtype
            )
            self.collection.join_site(self._listener)
        return self.collection

    @property
    def opened_encoder(self) -> Encoder | None:
        """The encoder, or None if it is not open."""
        return self._encoder

    def encoder(self) -> Encoder:
        """Return the encoder. The first call opens it, and must return before others are made."""
        if self._encoder is None:
            encoder = self._opened(self.stamp)
            if self.stamp and encoder.stamp.variant != self.stamp.variant:
                raise CollectionMismatchError(
                    f"collection {self.name} was made in {self.stamp.variant}, and the model "
                    "calibrated for it is not on this machine, or not for this device: copy it "
                    f"into {config.models_dir()} from the machine that made the collection",
                    Remedy.CALIBRATE_OTHER_COLLECTION,
                    Remedy.REPLACE_IN_INT8,
                )
            self._encoder = encoder
        return self._encoder

    def _opened(self, stamp: Stamp | None) -> Encoder:
        started = time.monotonic()
        try:
            return self._open_encoder(self._request, stamp, self._listener)
        finally:
            self.preparing += time.monotonic() - started


def describe(stamp: Stamp, vector_dtype: VectorDtype) -> str:
    """Name a model, its precision, and the number format of its vectors for a message."""
    stored = f", stored as {vector_dtype}" * (vector_dtype != "float32")
    return f"{stamp.model} in {stamp.dtype}{stored}"
