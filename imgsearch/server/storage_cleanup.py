"""Delete uploaded files that no record refers to, for example after `imgsearch remove`.

The service deletes a file together with its record; other programs remove only records. A file
without a record is marked first, and deleted only if it still has none a week later: a store that
has lost its data, or the wrong store at the service's start, must not cost the only copies.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from imgsearch.errors import CollectionNotFoundError
from imgsearch.server.storage import UploadStorage
from imgsearch.sites import Sites
from imgsearch.stores import VectorStore
from imgsearch.types import ImageRecord
from imgsearch.uris import canonical_path, path_to_uri, record_id

SWEEP_SECONDS = 6 * 3600.0
GRACE_SECONDS = 7 * 24 * 3600.0

_MARK = ".unused"


@dataclass(frozen=True, slots=True)
class StorageCleanup:
    """Deletes unused uploads. Call it from a thread, as it waits for the store."""

    storage: UploadStorage
    store: Callable[[], VectorStore]
    stopped: Callable[[], bool] = bool

    def sweep(self, now: float | None = None) -> int:
        """Mark unused files, and delete those marked a week before `now`.

        `now` is in seconds since 1970. Returns the number of deleted files. Skips files that
        another store may have records of. Raises StoreError, and OSError if the files cannot be
        changed.
        """
        store = self.store()
        deleted = 0
        for collection in self.storage.collections():
            if self.storage.stores(collection) == {store.url}:
                for folder in self.storage.folders(collection):
                    if self.stopped():
                        return deleted
                    # One folder per lock, so that uploads do not wait for long.
                    with self.storage.lock(collection):
                        deleted += _sweep(folder, collection, store, now or time.time())
        return deleted

    def delete_file(self, record: ImageRecord) -> None:
        """Delete the uploaded file of a removed record.

        A file stays if it was not uploaded, if another record uses it, such as a copied
        collection's, or if another store may have records of it. Call it within the lock of the
        file's collection.
        """
        collection = self.storage.owner(record)
        if collection is None or self.storage.may_be_shared(collection):
            return
        path = Path(record.path)
        if not _used([path], collection, self.store()):
            path.unlink(missing_ok=True)

    def delete_all(self, collection: str) -> None:
        """Delete the files of a dropped collection, with the exceptions of `delete_file`.

        Call it within the collection's lock.
        """
        if self.storage.may_be_shared(collection):
            return
        store = self.store()
        if store.names() and self._delete_unused(collection, store):
            return
        self.storage.remove_all(collection)

    def _delete_unused(self, collection: str, store: VectorStore) -> bool:
        """Delete unused files one by one, and return whether any file is still in use."""
        in_use = False
        for folder in self.storage.folders(collection):
            paths = [path for path in folder.iterdir() if path.suffix != _MARK]
            used = _used(paths, collection, store)
            in_use |= bool(used)
            for path in set(paths) - used:
                path.unlink(missing_ok=True)
        return in_use


def _sweep(folder: Path, collection: str, store: VectorStore, now: float) -> int:
    paths = [path for path in folder.iterdir() if path.is_file()]
    marks = {path for path in paths if path.suffix == _MARK}
    files = [path for path in paths if path not in marks]
    used = _used(files, collection, store)
    deleted = 0
    for file in files:
        mark = file.with_name(file.name + _MARK)
        if file in used:
            mark.unlink(missing_ok=True)
        elif mark not in marks:
            mark.touch()
        elif mark.stat().st_mtime < now - GRACE_SECONDS:
            file.unlink(missing_ok=True)
            mark.unlink(missing_ok=True)
            deleted += 1
    for mark in marks - {file.with_name(file.name + _MARK) for file in files}:
        mark.unlink(missing_ok=True)
    return deleted


def _used(files: Sequence[Path], collection: str, store: VectorStore) -> set[Path]:
    """Return the files that a record of any collection refers to, as records can be copied."""
    used: set[Path] = set()
    for name in _names(collection, store):
        left = [file for file in files if file not in used]
        if not left:
            break
        try:
            found = store.open(name)
            ids = {each: file for file in left for each in _ids(file, found.sites)}
            used |= {ids[each] for each in found.lookup(list(ids))}
        except CollectionNotFoundError:  # dropped meanwhile
            continue
    return used


def _ids(file: Path, sites: Sites) -> set[str]:
    """Return the ids of the records that a file can have.

    A record's URI has the path as configured or the real path, with this machine's site or, in
    collections older than sites, without.
    """
    uris = [path_to_uri(path) for path in (str(file.absolute()), canonical_path(file))]
    return {record_id(each) for uri in uris for each in (uri, sites.qualified(uri))}


def _names(first: str, store: VectorStore) -> Iterator[str]:
    names = store.names()
    yield from (name for name in names if name == first)
    yield from (name for name in names if name != first)
