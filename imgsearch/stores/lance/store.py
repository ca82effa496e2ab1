"""The embedded store: a folder with one Lance dataset a collection.

Every write is a new version that appears whole or not at all, so that a killed writer leaves a
store that opens, and readers never wait. Only one process writes at a time, under a lock of the
operating system that ends with the process.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from imgsearch import config
from imgsearch.errors import CollectionNotFoundError, Remedy, StoreBusyError, StoreError
from imgsearch.events import Listener, Note, ignore
from imgsearch.stores.base import NO_FIELDS, check_dtype, check_stamp
from imgsearch.stores.lance.arrow import lance, pa
from imgsearch.stores.lance.collection import LanceCollection, attachment_file
from imgsearch.stores.lance.errors import translate_errors
from imgsearch.stores.lance.schema import collection_schema
from imgsearch.system import scratch
from imgsearch.types import VECTOR_DTYPES, FieldType, Stamp, VectorDtype

_SUFFIX = ".lance"
# No collection's name has a "~".
_REPLACEMENT = "~next"


class LanceStore:
    """A folder of collections, created by the first write."""

    def __init__(
        self, folder: str | os.PathLike[str], lock_timeout: float = config.DEFAULT_STORE_TIMEOUT
    ) -> None:
        self._folder = Path(folder).expanduser().absolute()
        self._lock_timeout = lock_timeout

    @property
    def url(self) -> str:
        return str(self._folder)

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
        with translate_errors(f"{self._folder}: cannot be listed"):
            if not self._folder.is_dir():
                return []
            found = (entry for entry in self._folder.iterdir() if entry.suffix == _SUFFIX)
            stems = (entry.stem for entry in found if _is_dataset(entry))
            return sorted(stem for stem in stems if not stem.endswith(_REPLACEMENT))

    def create(
        self,
        name: str,
        stamp: Stamp,
        fields: Mapping[str, FieldType] = NO_FIELDS,
        vector_dtype: VectorDtype = "float32",
    ) -> LanceCollection:
        if name in self.names():
            raise StoreError(f"{self.url}: there is a collection {name} already")
        path = self._path(name)
        with translate_errors(f"{path}: cannot be created"):
            # Left of a collection that another program, or an earlier version, deleted.
            _remove(self._path(name + _REPLACEMENT))
        self._create(path, stamp, fields, vector_dtype)
        return self.open(name)

    def open_or_create(
        self,
        name: str,
        stamp: Stamp,
        fields: Mapping[str, FieldType] = NO_FIELDS,
        vector_dtype: VectorDtype | None = None,
    ) -> LanceCollection:
        """Open or create a collection; the write lock keeps others from doing so meanwhile."""
        if name not in self.names():
            return self.create(name, stamp, fields, vector_dtype or "float32")
        collection = self.open(name)
        check_stamp(collection, stamp)
        check_dtype(collection, vector_dtype)
        collection.add_fields(fields)
        return collection

    def _create(
        self,
        path: Path,
        stamp: Stamp,
        fields: Mapping[str, FieldType],
        vector_dtype: VectorDtype,
    ) -> None:
        schema = collection_schema(stamp, fields, vector_dtype)
        with translate_errors(f"{path}: cannot be created"):
            self._folder.mkdir(parents=True, exist_ok=True)
            lance.write_dataset(schema.empty_table(), str(path), mode="create")

    def open(self, name: str) -> LanceCollection:
        if name not in self.names():
            known = ", ".join(self.names()) or "none"
            raise CollectionNotFoundError(
                f"{self.url}: no collection {name} here (there is {known})", Remedy.INGEST
            )
        return LanceCollection(name, self._path(name))

    def drop(self, name: str) -> None:
        path = self.open(name).path
        replacement = self._path(name + _REPLACEMENT)
        # Renamed first, so that a reader sees all of it or nothing.
        with (
            self.write_lock(name),
            scratch.folder([self._folder]) as doomed,
            translate_errors(f"{path}: cannot be deleted"),
        ):
            # First: a later collection of this name would resume it.
            if replacement.exists():
                replacement.rename(doomed / replacement.name)
            path.rename(doomed / path.name)

    def replacement(
        self,
        name: str,
        stamp: Stamp,
        fields: Mapping[str, FieldType] = NO_FIELDS,
        vector_dtype: VectorDtype | None = None,
    ) -> LanceCollection:
        path = self._path(name + _REPLACEMENT)
        if _is_dataset(path):
            begun = LanceCollection(name, path)
            if begun.stamp == stamp and vector_dtype in (None, begun.vector_dtype):
                begun.add_fields(fields)
                return begun
        with translate_errors(f"{path}: cannot be replaced"):
            _remove(path)
        self._create(path, stamp, fields, vector_dtype or "float32")
        return LanceCollection(name, path)

    def promote(self, name: str, stamp: Stamp) -> None:
        """Write it as a new version of the same dataset: the only step that is atomic everywhere.

        This copies the data once more, at the speed of the disk; `optimize` builds the indexes
        again. Readers at work keep the files of the older version.
        """
        new = self.replacement(name, stamp)
        with translate_errors(f"{new.path}: cannot take the place of collection {name}"):
            dataset = lance.dataset(str(new.path))
            reader = pa.RecordBatchReader.from_batches(
                dataset.schema, dataset.scanner().to_batches()
            )
            lance.write_dataset(reader, str(self._path(name)), mode="overwrite")
            every = attachment_file(self._path(name), "*")
            for outdated in every.parent.glob(every.name):
                outdated.unlink(missing_ok=True)
            shutil.rmtree(new.path)

    @contextlib.contextmanager
    def write_lock(self, name: str, listener: Listener = ignore) -> Iterator[None]:
        from filelock import FileLock, Timeout  # here, as readers need not wait for it to load

        with translate_errors(f"{self._folder}: cannot be written to"):
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._folder / f".{name}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                listener(Note(f"another process is writing to collection {name}: waiting for it"))
                try:
                    lock.acquire(timeout=self._lock_timeout)
                except Timeout:
                    raise StoreBusyError(
                        f"{self.url}: another process has been writing to collection {name} for "
                        f"{self._lock_timeout:.0f} s; try again when it has finished"
                    ) from None
        try:
            self._clean(name)
            yield
        finally:
            lock.release()

    def _clean(self, name: str) -> None:
        """Remove what killed processes left; under the lock no other one drops this collection."""
        scratch.clean(self._folder)
        for left in self._folder.glob(f".{name}-dropped-*"):  # of earlier versions
            if left.name.rpartition("-")[2].isdigit():
                shutil.rmtree(left, ignore_errors=True)

    def _path(self, name: str) -> Path:
        return self._folder / (name + _SUFFIX)


def _is_dataset(path: Path) -> bool:
    """Return whether a version was written: a process killed earlier leaves empty folders."""
    try:
        with os.scandir(path / "_versions") as entries:
            return any(entry.name.endswith(".manifest") for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _remove(path: Path) -> None:
    """Delete a folder if it exists."""
    if path.exists():
        shutil.rmtree(path)
