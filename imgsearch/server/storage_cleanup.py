"""Delete uploaded files that no record names any more, such as after `imgsearch remove`.

The service deletes a file together with its record; other programs remove records alone. A file
without a record is marked at first, and deleted only if it has none a week later: a store that has
lost its data, or that the service was started with by mistake, must not cost the only copies.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from imgsearch.errors import CollectionNotFoundError
from imgsearch.server.storage import KeptFiles
from imgsearch.sites import Sites
from imgsearch.stores import VectorStore
from imgsearch.types import ImageRecord, canonical_path, path_to_uri, record_id

SWEEP_SECONDS = 6 * 3600.0
GRACE_SECONDS = 7 * 24 * 3600.0

_MARK = ".unused"


@dataclass(frozen=True, slots=True)
class UnusedFiles:
    """Looks through the uploaded files now and then. For a thread, as it waits for the store."""

    files: KeptFiles
    store: Callable[[], VectorStore]
    stopped: Callable[[], bool] = bool

    def sweep(self, now: float | None = None) -> int:
        """Mark files that have become unused, and delete those marked a week before `now`.

        `now` is in seconds since 1970. Returns how many files were deleted. Files that another
        store may have records of are left alone. Raises StoreError, and OSError if the files cannot
        be changed.
        """
        store = self.store()
        deleted = 0
        for collection in self.files.collections():
            if self.files.stores_of(collection) == {store.url}:
                for folder in self.files.folders(collection):
                    if self.stopped():
                        return deleted
                    # One folder at a time, so that uploads need not wait for long.
                    with self.files.turn(collection):
                        deleted += _sweep(folder, collection, store, now or time.time())
        return deleted

    def delete_of(self, record: ImageRecord) -> None:
        """Delete the file of a record that has been removed, if it came by an upload.

        Not if another record names it, as a copied collection's does, or another store's may. Call
        it within the turn of the file's collection.
        """
        collection = self.files.collection_of(record)
        if collection is None or self.files.may_be_shared(collection):
            return
        path = Path(record.path)
        if not _used([path], collection, self.store()):
            path.unlink(missing_ok=True)

    def delete_all(self, collection: str) -> None:
        """Delete the files of a collection that has been dropped; the same exceptions hold.

        Call it within the collection's turn.
        """
        if self.files.may_be_shared(collection):
            return
        store = self.store()
        if store.names() and self._kept(collection, store):
            return
        self.files.remove_all(collection)

    def _kept(self, collection: str, store: VectorStore) -> bool:
        """Delete the unused files one by one; returns whether any is still in use."""
        kept = False
        for folder in self.files.folders(collection):
            paths = [path for path in folder.iterdir() if path.suffix != _MARK]
            used = _used(paths, collection, store)
            kept |= bool(used)
            for path in set(paths) - used:
                path.unlink(missing_ok=True)
        return kept


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
    """Those of the files that any collection has a record of: records can be copied."""
    used: set[Path] = set()
    for name in _names(collection, store):
        left = [file for file in files if file not in used]
        if not left:
            break
        try:
            found = store.open(name)
            ids = {each: file for file in left for each in _ids(file, found.sites)}
            used |= {ids[each] for each in found.lookup(list(ids))}
        except CollectionNotFoundError:  # dropped a moment ago
            continue
    return used


def _ids(file: Path, sites: Sites) -> set[str]:
    """Of the records that may be about a file.

    They name it by the path as it is configured, or by its real path; with this machine's site, or
    without one, as before a collection knew its sites.
    """
    uris = [path_to_uri(path) for path in (str(file.absolute()), canonical_path(file))]
    return {record_id(each) for uri in uris for each in (uri, sites.qualified(uri))}


def _names(first: str, store: VectorStore) -> Iterator[str]:
    names = store.names()
    yield from (name for name in names if name == first)
    yield from (name for name in names if name != first)
