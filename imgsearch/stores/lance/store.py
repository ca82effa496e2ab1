"""The embedded store: one Lance dataset a collection, in a folder or in object storage.

Every write is a new version that appears whole or not at all, so that a killed writer leaves a
store that opens, and readers never wait. Only one process writes at a time: in a folder under a
lock of the operating system that ends with the process, in object storage under a lease.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence

from imgsearch import config
from imgsearch.errors import CollectionNotFoundError, Remedy, StoreBusyError, StoreError
from imgsearch.events import Listener, Note, ignore
from imgsearch.stores.base import NO_FIELDS, check_dtype, check_stamp
from imgsearch.stores.lance.arrow import lance, pa
from imgsearch.stores.lance.collection import LanceCollection
from imgsearch.stores.lance.errors import translate_errors
from imgsearch.stores.lance.folders import REPLACEMENT, DatasetFolder, open_folder
from imgsearch.stores.lance.schema import collection_schema
from imgsearch.types import VECTOR_DTYPES, FieldType, Stamp, VectorDtype


class LanceStore:
    """A folder of collections, created by the first write; or all objects below a URL."""

    def __init__(
        self, place: str | os.PathLike[str], lock_timeout: float = config.DEFAULT_STORE_TIMEOUT
    ) -> None:
        self._folder = open_folder(place)
        self._lock_timeout = lock_timeout

    @property
    def url(self) -> str:
        return self._folder.url

    @property
    def vector_dtypes(self) -> Sequence[VectorDtype]:
        return VECTOR_DTYPES

    def __enter__(self) -> "LanceStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Do nothing: no file stays open between calls."""

    def names(self) -> list[str]:
        with translate_errors(f"{self.url}: cannot be listed"):
            return sorted(n for n in self._folder.names() if not n.endswith(REPLACEMENT))

    def create(
        self,
        name: str,
        stamp: Stamp,
        fields: Mapping[str, FieldType] = NO_FIELDS,
        vector_dtype: VectorDtype = "float32",
    ) -> LanceCollection:
        if self._has(name):
            raise StoreError(f"{self.url}: there is a collection {name} already")
        folder = self._folder.dataset(name)
        with translate_errors(f"{folder.url}: cannot be created"):
            # Left of a collection that another program, or an earlier version, deleted.
            self._folder.dataset(name + REPLACEMENT).remove()
        self._create(folder, stamp, fields, vector_dtype)
        return self.open(name)

    def open_or_create(
        self,
        name: str,
        stamp: Stamp,
        fields: Mapping[str, FieldType] = NO_FIELDS,
        vector_dtype: VectorDtype | None = None,
    ) -> LanceCollection:
        """Open or create a collection; the write lock keeps others from doing so meanwhile."""
        if not self._has(name):
            return self.create(name, stamp, fields, vector_dtype or "float32")
        collection = self.open(name)
        check_stamp(collection, stamp)
        check_dtype(collection, vector_dtype)
        collection.add_fields(fields)
        return collection

    def _has(self, name: str) -> bool:
        with translate_errors(f"{self.url}: cannot be listed"):
            return self._folder.dataset(name).has_versions()

    def _create(
        self,
        folder: DatasetFolder,
        stamp: Stamp,
        fields: Mapping[str, FieldType],
        vector_dtype: VectorDtype,
    ) -> None:
        schema = collection_schema(
            stamp, fields, vector_dtype, primary_key=folder.writers_may_overlap
        )
        with translate_errors(f"{folder.url}: cannot be created"):
            self._folder.make()
            folder.check_lock()
            lance.write_dataset(
                schema.empty_table(), folder.url, mode="create", storage_options=folder.options
            )

    def open(self, name: str) -> LanceCollection:
        if not self._has(name):
            known = ", ".join(self.names()) or "none"
            raise CollectionNotFoundError(
                f"{self.url}: no collection {name} here (there is {known})", Remedy.INGEST
            )
        return LanceCollection(name, self._folder.dataset(name))

    def drop(self, name: str) -> None:
        folder = self.open(name).folder
        with self.write_lock(name), translate_errors(f"{folder.url}: cannot be deleted"):
            # The replacement first: a later collection of this name would resume it.
            self._folder.drop([name + REPLACEMENT, name])

    def replacement(
        self,
        name: str,
        stamp: Stamp,
        fields: Mapping[str, FieldType] = NO_FIELDS,
        vector_dtype: VectorDtype | None = None,
    ) -> LanceCollection:
        folder = self._folder.dataset(name + REPLACEMENT)
        if self._has(name + REPLACEMENT):
            begun = LanceCollection(name, folder)
            if begun.stamp == stamp and vector_dtype in (None, begun.vector_dtype):
                begun.add_fields(fields)
                return begun
        with translate_errors(f"{folder.url}: cannot be replaced"):
            folder.remove()
        self._create(folder, stamp, fields, vector_dtype or "float32")
        return LanceCollection(name, folder)

    def promote(self, name: str, stamp: Stamp) -> None:
        """Write it as a new version of the same dataset: the only step that is atomic everywhere.

        This copies the data once more, at the speed of the disk; `optimize` builds the indexes
        again. Readers at work keep the files of the older version.
        """
        new, old = self.replacement(name, stamp).folder, self._folder.dataset(name)
        with translate_errors(f"{new.url}: cannot take the place of collection {name}"):
            dataset = lance.dataset(new.url, storage_options=new.options)
            reader = pa.RecordBatchReader.from_batches(
                dataset.schema, dataset.scanner().to_batches()
            )
            old.check_lock()
            lance.write_dataset(reader, old.url, mode="overwrite", storage_options=old.options)
            old.remove_attachments()
            new.remove()

    @contextlib.contextmanager
    def write_lock(self, name: str, listener: Listener = ignore) -> Iterator[None]:
        with translate_errors(f"{self.url}: cannot be written to"):
            self._folder.make()
            lock = self._folder.lock(name)
            try:
                lock.acquire(timeout=0)
            except TimeoutError:
                listener(Note(f"another process is writing to collection {name}: waiting for it"))
                try:
                    lock.acquire(timeout=self._lock_timeout)
                except TimeoutError:
                    raise StoreBusyError(
                        f"{self.url}: another process has been writing to collection {name} for "
                        f"{self._lock_timeout:.0f} s; try again when it has finished"
                    ) from None
        try:
            with translate_errors(f"{self.url}: cannot be written to"):
                self._folder.clean(name)
            yield
        finally:
            lock.release()
