"""Files uploaded by clients, stored by content digest under the data directory.

The service deletes a file together with its record; other programs remove only records, for example
`imgsearch remove`. A file without a record is marked first, and deleted only if it still has none a
week later: a store that has lost its data, or the wrong store at the service's start, must not cost
the only copies.
"""

import contextlib
import errno
import hashlib
import io
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from filelock import FileLock, Timeout

from imgsearch import images
from imgsearch.errors import (
    CollectionNotFoundError,
    ImageError,
    ScratchError,
    StoreBusyError,
)
from imgsearch.server.errors import DISK_FULL_ERRNOS, ApiError, disk_full
from imgsearch.sites import Sites
from imgsearch.stores import VectorStore
from imgsearch.system import atomic, scratch
from imgsearch.types import ImageRecord
from imgsearch.uris import canonical_path, path_to_uri, record_id

SWEEP_SECONDS = 6 * 3600.0
GRACE_SECONDS = 7 * 24 * 3600.0

_CHUNK_BYTES = 1 << 20
_UNUSED_MARK = ".unused"
_STORES = ".stores"
_UNKNOWN_STORE = "unknown"


class Readable(Protocol):
    """A stream that is read in parts."""

    def read(self, size: int, /) -> bytes: ...


@contextlib.contextmanager
def spool_directory(data: Path) -> Iterator[None]:
    """Put this process's temporary files, above all request bodies, into the data directory.

    The system's temporary folder may be memory, as in a container, and uploads would fill it. It
    is used only if `data` is not writable.
    """
    before = tempfile.tempdir
    with scratch.folder(scratch.places(data), anywhere=True) as folder:
        tempfile.tempdir = str(folder)
        try:
            yield
        finally:
            tempfile.tempdir = before


class Spool:
    """A folder for files that are moved into the data directory later; created on first use."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._lock = threading.Lock()
        self._folder: Path | None = None
        self._cleanup = contextlib.ExitStack()

    @property
    def folder(self) -> Path:
        """The folder. Raises ApiError if it cannot be created."""
        with self._lock:
            if self._folder is None or not self._folder.is_dir():
                self._folder = self._create()
            return self._folder

    def _create(self) -> Path:
        try:
            return self._cleanup.enter_context(scratch.folder([self._data]))
        except ScratchError as error:
            if os.access(self._data, os.W_OK):
                raise disk_full() from error
            raise _not_writable("it is read-only") from error

    def close(self) -> None:
        with self._lock:
            self._cleanup.close()
            self._folder = None


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A complete upload on the disk that does not belong to a collection yet.

    `sha256` is in hexadecimal.
    """

    path: Path
    sha256: str
    extension: str

    def discard(self) -> None:
        """Delete the staged file; no error if it has been stored."""
        self.path.unlink(missing_ok=True)


class UploadStorage:
    """Stores files as `ROOT/COLLECTION/ab/abcd...SHA-256`, with the extension of their format.

    A collection stores each content once; the name that a client sent is never part of a path.

    Files arrive in two steps: `stage` copies a stream into the spool, at any time; `place` moves it
    into a collection while the caller holds `lock`. Everything that changes a collection's files
    together with its records holds that lock, so that a record and its file appear and disappear
    together, whichever service on this data directory changes them.
    """

    def __init__(
        self, root: Path, spool: Spool, timeout: float, store: Callable[[], VectorStore]
    ) -> None:
        """`timeout`, in seconds, bounds how long `lock` waits for another service.

        `store` returns the store that gets the records of files.
        """
        self._root = root
        self._spool = spool
        self._timeout = timeout
        self._store = store

    def stage(self, image: Readable, max_bytes: int) -> StagedFile:
        """Copy a stream of at most `max_bytes` into the spool.

        Raises ImageError for what is no image or too large, and ApiError if the disk is full or
        not writable.
        """
        with translate_disk_errors():
            descriptor, name = tempfile.mkstemp(dir=self._spool.folder)
            try:
                with open(descriptor, "wb") as part:
                    digest = _copy(image, part, max_bytes)
                    part.flush()
                    os.fsync(part.fileno())
                return StagedFile(Path(name), digest, _extension(Path(name)))
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise

    def stage_bytes(self, image: bytes) -> StagedFile:
        return self.stage(io.BytesIO(image), len(image))

    @contextlib.contextmanager
    def lock(self, collection: str) -> Iterator[None]:
        """Exclude every other change to a collection's files, by any process.

        Raises StoreBusyError if another service holds the lock for longer than the timeout.
        """
        locks = self._root.with_name("locks")
        lock = FileLock(locks / f"{collection}.lock")
        try:
            locks.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=self._timeout)
        except Timeout:
            raise StoreBusyError(
                f"another service has been writing to collection {collection} for "
                f"{self._timeout:.0f} s; try again when it has finished"
            ) from None
        except OSError:
            if os.access(locks, os.W_OK):
                raise
            # Not writable: there is nothing to protect, and records can still be removed.
            yield
            return
        try:
            yield
        finally:
            lock.release()

    def place(self, staged: StagedFile, collection: str) -> Path:
        """Move a staged file into a collection, and return its path. Call it within `lock`.

        An existing equal file stays untouched, so that an ingest skips it.
        """
        with translate_disk_errors():
            self._record_store(collection)
            path = self._root / collection / staged.sha256[:2]
            path.mkdir(parents=True, exist_ok=True)
            path /= staged.sha256 + staged.extension
            if not _has_digest(path, staged.sha256):
                path.unlink(missing_ok=True)
                try:
                    # A link, so that a retry finds the staged file.
                    os.link(staged.path, path)
                except OSError:  # the file system has no links
                    atomic.publish(staged.path, path)
        return path

    def _record_store(self, collection: str) -> None:
        folder, url = self._root / collection, self._store().url
        known = self._stores(collection)
        if not known and folder.exists():
            known = {_UNKNOWN_STORE}  # an earlier version stored files without recording it
        folder.mkdir(parents=True, exist_ok=True)
        if url not in known:
            text = "".join(f"{each}\n" for each in sorted({*known, url}))
            atomic.write_text(folder / _STORES, text)

    def _stores(self, collection: str) -> set[str]:
        """Return the URLs of the stores that may have records of a collection's files."""
        try:
            return set((self._root / collection / _STORES).read_text(encoding="utf-8").splitlines())
        except (FileNotFoundError, NotADirectoryError):
            return set()

    def _may_be_shared(self, collection: str) -> bool:
        """Return whether another store may have records of a collection's files."""
        return not self._stores(collection) <= {self._store().url, _UNKNOWN_STORE}

    def owner(self, record: ImageRecord) -> str | None:
        """Return the collection that a record's file was uploaded to; None if it was not."""
        prefix = path_to_uri(str(self._root.absolute())) + "/"
        uri = path_to_uri(record.path) if record.site is None else ""
        if not uri.startswith(prefix):
            return None
        return uri.removeprefix(prefix).partition("/")[0]

    # Deleting files. These methods wait for the store.

    def delete_file(self, record: ImageRecord) -> None:
        """Delete the uploaded file of a removed record.

        A file stays if it was not uploaded, if another record uses it, such as a copied
        collection's, or if another store may have records of it. Call it within the lock of the
        file's collection.
        """
        collection = self.owner(record)
        if collection is None or self._may_be_shared(collection):
            return
        path = Path(record.path)
        if not _used([path], collection, self._store()):
            path.unlink(missing_ok=True)

    def delete_all(self, collection: str) -> None:
        """Delete the files of a dropped collection, with the exceptions of `delete_file`.

        Call it within the collection's lock.
        """
        if self._may_be_shared(collection):
            return
        store = self._store()
        if store.names() and self._delete_unused(collection, store):
            return
        shutil.rmtree(self._root / collection, ignore_errors=True)

    def _delete_unused(self, collection: str, store: VectorStore) -> bool:
        """Delete unused files one by one, and return whether any file is still in use."""
        in_use = False
        for folder in _folders(self._root / collection):
            paths = [path for path in folder.iterdir() if path.suffix != _UNUSED_MARK]
            used = _used(paths, collection, store)
            in_use |= bool(used)
            for path in set(paths) - used:
                path.unlink(missing_ok=True)
        return in_use

    def sweep(self, now: float | None = None, stopped: Callable[[], bool] = bool) -> int:
        """Mark unused files, and delete those marked a week before `now`.

        `now` is in seconds since 1970. Returns the number of deleted files. Skips files that
        another store may have records of. Raises StoreError, and OSError if the files cannot be
        changed.
        """
        store = self._store()
        deleted = 0
        for collection in _folders(self._root):
            if self._stores(collection.name) == {store.url}:
                for folder in _folders(collection):
                    if stopped():
                        return deleted
                    # One folder per lock, so that uploads do not wait for long.
                    with self.lock(collection.name):
                        deleted += _sweep(folder, collection.name, store, now or time.time())
        return deleted


def _folders(path: Path) -> list[Path]:
    try:
        return sorted(each for each in path.iterdir() if each.is_dir())
    except FileNotFoundError:
        return []


def _sweep(folder: Path, collection: str, store: VectorStore, now: float) -> int:
    paths = [path for path in folder.iterdir() if path.is_file()]
    marks = {path for path in paths if path.suffix == _UNUSED_MARK}
    files = [path for path in paths if path not in marks]
    used = _used(files, collection, store)
    deleted = 0
    for file in files:
        mark = file.with_name(file.name + _UNUSED_MARK)
        if file in used:
            mark.unlink(missing_ok=True)
        elif mark not in marks:
            mark.touch()
        elif mark.stat().st_mtime < now - GRACE_SECONDS:
            file.unlink(missing_ok=True)
            mark.unlink(missing_ok=True)
            deleted += 1
    for mark in marks - {file.with_name(file.name + _UNUSED_MARK) for file in files}:
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
        except CollectionNotFoundError:  # dropped since the names were read
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


def _copy(image: Readable, part: BinaryIO, max_bytes: int) -> str:
    """Copy a stream, and return its SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    copied = 0
    while chunk := image.read(_CHUNK_BYTES):
        copied += len(chunk)
        if copied > max_bytes:
            raise ImageError(f"the file has more than {max_bytes:,} bytes (--max-body)")
        digest.update(chunk)
        part.write(chunk)
    return digest.hexdigest()


def _has_digest(path: Path, digest: str) -> bool:
    with contextlib.suppress(OSError), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == digest
    return False


def _extension(path: Path) -> str:
    """Return the extension of a file's format. Raises ImageError for what is no image."""
    with path.open("rb") as file:
        kind = images.media_type(file).rpartition("/")[2].removeprefix("x-")
    return "." + re.sub(r"[^a-z0-9]", "", kind.replace("jpeg", "jpg"))[:8]


@contextlib.contextmanager
def translate_disk_errors() -> Iterator[None]:
    """Raise ApiError for a disk that is full or not writable."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise disk_full() from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise _not_writable(error.strerror or str(error)) from error
        raise


def _not_writable(reason: str) -> ApiError:
    return ApiError(
        500,
        "not-writable",
        f"the service may not write to its data directory ({reason}); IMGSEARCH_HOME sets where "
        "it is",
    )
