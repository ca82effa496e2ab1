"""Files uploaded by clients, stored by content digest under the data directory."""

import contextlib
import errno
import hashlib
import io
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from filelock import FileLock, Timeout

from imgsearch import images
from imgsearch.errors import ImageError, ScratchError, StoreBusyError
from imgsearch.server.errors import DISK_FULL_ERRNOS, ApiError, disk_full
from imgsearch.system import scratch
from imgsearch.types import ImageRecord
from imgsearch.uris import path_to_uri

_CHUNK_BYTES = 1 << 20
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
        self, root: Path, spool: Spool, timeout: float, store_url: Callable[[], str] = str
    ) -> None:
        """`timeout`, in seconds, bounds how long `lock` waits for another service.

        `store_url` returns the URL of the store that gets the records of files; "" for none.
        """
        self._root = root
        self._store_url = store_url
        self._spool = spool
        self._timeout = timeout

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
                    os.replace(staged.path, path)
        return path

    def _record_store(self, collection: str) -> None:
        folder, url = self._root / collection, self._store_url()
        known = self.stores(collection)
        if not known and folder.exists():
            known = {_UNKNOWN_STORE}  # an earlier version stored files without recording it
        folder.mkdir(parents=True, exist_ok=True)
        if url and url not in known:
            text = "".join(f"{each}\n" for each in sorted({*known, url}))
            (folder / _STORES).write_text(text, encoding="utf-8")

    def stores(self, collection: str) -> set[str]:
        """Return the URLs of the stores that may have records of a collection's files."""
        try:
            return set((self._root / collection / _STORES).read_text(encoding="utf-8").splitlines())
        except (FileNotFoundError, NotADirectoryError):
            return set()

    def collections(self) -> list[str]:
        """Return the names of the collections that have files."""
        try:
            return sorted(path.name for path in self._root.iterdir() if path.is_dir())
        except FileNotFoundError:
            return []

    def folders(self, collection: str) -> list[Path]:
        """Return the folders that hold a collection's files."""
        try:
            return sorted(path for path in (self._root / collection).iterdir() if path.is_dir())
        except FileNotFoundError:
            return []

    def owner(self, record: ImageRecord) -> str | None:
        """Return the collection that a record's file was uploaded to; None if it was not."""
        prefix = path_to_uri(str(self._root.absolute())) + "/"
        uri = path_to_uri(record.path) if record.site is None else ""
        if not uri.startswith(prefix):
            return None
        return uri.removeprefix(prefix).partition("/")[0]

    def may_be_shared(self, collection: str) -> bool:
        """Return whether another store may have records of a collection's files."""
        return not self.stores(collection) <= {self._store_url(), _UNKNOWN_STORE}

    def remove_all(self, collection: str) -> None:
        """Delete all files of a collection. Call it within `lock`."""
        shutil.rmtree(self._root / collection, ignore_errors=True)


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
