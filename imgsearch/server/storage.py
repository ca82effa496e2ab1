"""The files of uploaded images, by content, under the data directory."""

import contextlib
import errno
import hashlib
import io
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from imgsearch import images
from imgsearch.errors import ImageError, StoreBusyError
from imgsearch.server.errors import FULL, disk_full, not_writable
from imgsearch.server.jobs.archives import Readable
from imgsearch.server.spool import Spool
from imgsearch.types import ImageRecord, path_to_uri

_CHUNK = 1 << 20
_STORES = ".stores"
_UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Staged:
    """An uploaded file that is whole and on disk, but not yet among a collection's files.

    `sha256` is that of its content, in hexadecimal.
    """

    path: Path
    sha256: str
    extension: str

    def discard(self) -> None:
        """Delete the staged file. Harmless once it has been placed."""
        self.path.unlink(missing_ok=True)


class KeptFiles:
    """`ROOT/COLLECTION/ab/abcd...SHA-256`, with the extension of its format.

    A collection keeps each content once; the name that a client gave it is never part of a path.

    Files arrive in two steps. `stage` reads a stream into the spool, and may run at any time. What
    changes a collection's files, together with its records, is called within `turn`: so a record
    and its file come and go as one, whichever service on this data directory adds or removes them.
    """

    def __init__(
        self, root: Path, spool: Spool, timeout: float, store_url: Callable[[], str] = str
    ) -> None:
        """`timeout` in seconds bounds how long a turn waits for another service.

        `store_url` is asked for the store that will have the records of files; "" is none.
        """
        self._root = root
        self._store_url = store_url
        self._spool = spool
        self._timeout = timeout

    def stage(self, image: Readable, most: int) -> Staged:
        """Copy a stream of at most `most` bytes into the spool.

        Raises ImageError for what is no image, or too large, and RefusedError if the disk is full
        or not writable.
        """
        with disk_full_told():
            descriptor, name = tempfile.mkstemp(dir=self._spool.folder)
            try:
                with open(descriptor, "wb") as part:
                    digest = _copy(image, part, most)
                    part.flush()
                    os.fsync(part.fileno())
                return Staged(Path(name), digest, _extension(Path(name)))
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise

    def stage_bytes(self, image: bytes) -> Staged:
        return self.stage(io.BytesIO(image), len(image))

    @contextlib.contextmanager
    def turn(self, collection: str) -> Iterator[None]:
        """Exclude every other change to the files of a collection, by any process.

        Raises StoreBusyError if another service holds the turn for longer than the timeout.
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

    def place(self, staged: Staged, collection: str) -> Path:
        """Put a staged file among a collection's files; returns its path. Call it within `turn`.

        An equal file that is there already stays as it is, so that an ingest skips it.
        """
        with disk_full_told():
            self._note_store(collection)
            place = self._root / collection / staged.sha256[:2]
            place.mkdir(parents=True, exist_ok=True)
            place /= staged.sha256 + staged.extension
            if not _holds(place, staged.sha256):
                place.unlink(missing_ok=True)
                try:
                    # A link, so that the staged file is there for a retry.
                    os.link(staged.path, place)
                except OSError:  # the file system has no links
                    os.replace(staged.path, place)
        return place

    def _note_store(self, collection: str) -> None:
        folder, url = self._root / collection, self._store_url()
        known = self.stores_of(collection)
        if not known and folder.exists():
            known = {_UNKNOWN}  # files of an earlier version, which did not note it
        folder.mkdir(parents=True, exist_ok=True)
        if url and url not in known:
            text = "".join(f"{each}\n" for each in sorted({*known, url}))
            (folder / _STORES).write_text(text, encoding="utf-8")

    def stores_of(self, collection: str) -> set[str]:
        """The URLs of the stores that may have records of a collection's files."""
        try:
            return set((self._root / collection / _STORES).read_text(encoding="utf-8").splitlines())
        except (FileNotFoundError, NotADirectoryError):
            return set()

    def collections(self) -> list[str]:
        """The names of the collections that have files."""
        try:
            return sorted(path.name for path in self._root.iterdir() if path.is_dir())
        except FileNotFoundError:
            return []

    def folders(self, collection: str) -> list[Path]:
        """The folders in which a collection's files are."""
        try:
            return sorted(path for path in (self._root / collection).iterdir() if path.is_dir())
        except FileNotFoundError:
            return []

    def collection_of(self, record: ImageRecord) -> str | None:
        """The collection whose upload brought a record's file; None if no upload did."""
        prefix = path_to_uri(str(self._root.absolute())) + "/"
        uri = path_to_uri(record.path) if record.site is None else ""
        if not uri.startswith(prefix):
            return None
        return uri.removeprefix(prefix).partition("/")[0]

    def may_be_shared(self, collection: str) -> bool:
        """Whether another store may have records of a collection's files."""
        return not self.stores_of(collection) <= {self._store_url(), _UNKNOWN}

    def remove_all(self, collection: str) -> None:
        """Delete all files of a collection. Call it within `turn`."""
        shutil.rmtree(self._root / collection, ignore_errors=True)


def _copy(image: Readable, part: BinaryIO, most: int) -> str:
    """Copy a stream; returns its SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    copied = 0
    while chunk := image.read(_CHUNK):
        copied += len(chunk)
        if copied > most:
            raise ImageError(f"the file has more than {most:,} bytes (--max-body)")
        digest.update(chunk)
        part.write(chunk)
    return digest.hexdigest()


def _holds(place: Path, digest: str) -> bool:
    with contextlib.suppress(OSError), place.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == digest
    return False


def _extension(path: Path) -> str:
    """By content, so that other programs know the file. Raises ImageError for what is no image."""
    with path.open("rb") as file:
        kind = images.media_type(file).rpartition("/")[2].removeprefix("x-")
    return "." + re.sub(r"[^a-z0-9]", "", kind.replace("jpeg", "jpg"))[:8]


@contextlib.contextmanager
def disk_full_told() -> Iterator[None]:
    """Turns the system's error into what a client is told."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise disk_full() from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise not_writable(error.strerror or str(error)) from error
        raise
