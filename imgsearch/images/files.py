"""Open image files safely, fingerprint them, and detect changes."""

import hashlib
import io
import os
import stat
import threading
from collections import OrderedDict
from dataclasses import dataclass

from imgsearch.errors import ImageError
from imgsearch.types import ImageRecord, mtime_of

# Files up to this size stay in memory between fingerprint and decoding. Larger ones are opened
# again, so that a queue of large images cannot fill the memory.
KEEP_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """State of a file when it was read: SHA-256 in hexadecimal, size in bytes, mtime in ns."""

    sha256: str
    size: int
    mtime_ns: int
    data: bytes | None
    """The file's bytes, or None for one larger than `KEEP_BYTES`."""


_CHANGED = "the file changed while it was read; the next ingest reads it again"


def fingerprint(path: str) -> Fingerprint:
    """Read and hash a file. Raises ImageError if it is unreadable, empty or changing."""
    try:
        with open_file(path) as file:
            before = os.fstat(file.fileno())
            # One byte more than expected, so that a growing file cannot fill the memory.
            data = file.read(before.st_size + 1) if before.st_size <= KEEP_BYTES else None
            if data is None:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            else:
                digest = hashlib.sha256(data).hexdigest()
            after = os.fstat(file.fileno())
    except OSError as error:
        raise ImageError(error.strerror or str(error)) from error
    if before.st_size == 0:
        raise ImageError("the file is empty")
    if (before.st_size, mtime_of(before)) != (after.st_size, mtime_of(after)):
        raise ImageError(_CHANGED)
    return Fingerprint(digest, before.st_size, mtime_of(before), data)


def open_file(path: str) -> io.BufferedReader:
    """Open a regular file; a pipe would wait for a writer. Raises OSError or ImageError."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ImageError("not a regular file")
    return open(path, "rb")


def check_unchanged(path: str, known: Fingerprint) -> None:
    """Raise ImageError if the size or mtime of a file differs from its fingerprint."""
    try:
        now = os.stat(path)
    except OSError as error:
        raise ImageError(error.strerror or str(error)) from error
    if (now.st_size, mtime_of(now)) != (known.size, known.mtime_ns):
        raise ImageError(_CHANGED)


class ChangedError(ImageError):
    """The file of a record has changed since it was indexed."""

    def __init__(self) -> None:
        super().__init__("the file has changed since it was indexed; ingest it again")


def open_original(record: ImageRecord) -> io.BufferedReader:
    """Open the file of a record if it is still the file that was indexed.

    It must have the record's size, and the record's mtime or (after a copy or a restored backup)
    the record's SHA-256. Raises ChangedError for any other file, ImageError if it is not a regular
    file, and OSError if it cannot be opened.
    """
    if record.site:
        raise ImageError(f"the file is on another machine ({record.site})")
    file = open_file(record.path)
    try:
        if not _is_original(file, record):
            raise ChangedError()
    except BaseException:
        file.close()
        raise
    return file


def _is_original(file: io.BufferedReader, record: ImageRecord) -> bool:
    status = os.fstat(file.fileno())
    if status.st_size != record.size:
        return False
    if mtime_of(status) == record.mtime_ns:
        return True
    key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    digest = _digests.get(key)
    if digest is None:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        _digests.put(key, digest)
    return digest == record.sha256


class _Digests:
    """An LRU cache of SHA-256 digests by device, inode, size and mtime."""

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[int, ...], str] = OrderedDict()

    def get(self, key: tuple[int, ...]) -> str | None:
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
            return self._known.get(key)

    def put(self, key: tuple[int, ...], digest: str) -> None:
        with self._lock:
            self._known[key] = digest
            if len(self._known) > self._most:
                self._known.popitem(last=False)


_digests = _Digests()
