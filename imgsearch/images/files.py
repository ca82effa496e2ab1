"""Open images safely, files and objects alike; fingerprint them, and detect changes."""

import hashlib
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, TypeVar

from imgsearch import objects, shards
from imgsearch.errors import ImageError
from imgsearch.types import ImageRecord, mtime_of
from imgsearch.uris import MemberUrl, ObjectUrl

T = TypeVar("T")

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
            before = version_of(file)
            # One byte more than expected, so that a growing file cannot fill the memory.
            data = file.read(before.size + 1) if before.size <= KEEP_BYTES else None
            if data is None:
                digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
            else:
                digest = hashlib.sha256(data).hexdigest()
            after = version_of(file)
    except OSError as error:
        raise ImageError(error.strerror or str(error)) from error
    if before.size == 0:
        raise ImageError("the file is empty")
    if before != after:
        raise ImageError(_CHANGED)
    return Fingerprint(digest, before.size, before.mtime_ns, data)


class Version(NamedTuple):
    """Size in bytes and mtime in ns of a file; two of one path differ if it has changed."""

    size: int
    mtime_ns: int


def version_of(file: BinaryIO) -> Version:
    """Return the version of a file that `open_file` has returned."""
    if known := objects.version_of(file):
        return Version(*known)
    status = os.fstat(file.fileno())
    return Version(status.st_size, mtime_of(status))


def open_file(path: str) -> BinaryIO:
    """Open a regular file, or an object or a member by its URL; a pipe would wait for a writer.

    Raises OSError or ImageError.
    """
    if url := ObjectUrl.parse(path):
        return objects.open_object(url, KEEP_BYTES)
    if member := MemberUrl.named(path):
        return shards.open_member(member, KEEP_BYTES)
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ImageError("not a regular file")
    return open(path, "rb")


def check_unchanged(path: str, known: Fingerprint) -> None:
    """Raise ImageError if the size or mtime of a file differs from its fingerprint."""
    if version_at(path) != (known.size, known.mtime_ns):
        raise ImageError(_CHANGED)


def version_at(path: str) -> Version:
    """Return the version of a file, an object or a member by its path. Raises ImageError."""
    try:
        if url := ObjectUrl.parse(path):
            info = objects.describe(url)
            return Version(info.size, info.mtime_ns)
        if member := MemberUrl.named(path):
            return Version(*shards.version_of_member(member))
        status = os.stat(path)
    except OSError as error:
        raise ImageError(error.strerror or str(error)) from error
    return Version(status.st_size, mtime_of(status))


class ChangedError(ImageError):
    """The file of a record has changed since it was indexed."""

    def __init__(self) -> None:
        super().__init__("the file has changed since it was indexed; ingest it again")


def open_original(record: ImageRecord) -> BinaryIO:
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


def read_original(record: ImageRecord, read: Callable[[BinaryIO], T]) -> T:
    """Return what `read` makes of the open file of a record, which is opened once.

    Raises ImageError, and ChangedError if the file is not the one that was indexed, or changes
    while it is read.
    """
    try:
        with open_original(record) as file:
            before = version_of(file)
            made = read(file)
            after = version_of(file)
    except OSError as error:
        raise ImageError(error.strerror or str(error)) from error
    if before != after:
        raise ChangedError()
    return made


def _is_original(file: BinaryIO, record: ImageRecord) -> bool:
    version = version_of(file)
    if version.size != record.size:
        return False
    if version.mtime_ns == record.mtime_ns:
        return True
    if objects.version_of(file):
        key: tuple[object, ...] = (record.uri, *version)
    else:
        status = os.fstat(file.fileno())
        key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    digest = _digests.get(key)
    if digest is None:
        digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        file.seek(0)
        _digests.put(key, digest)
    return digest == record.sha256


class _Digests:
    """An LRU cache of SHA-256 digests by device and inode or URL, size and mtime."""

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[object, ...], str] = OrderedDict()

    def get(self, key: tuple[object, ...]) -> str | None:
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
            return self._known.get(key)

    def put(self, key: tuple[object, ...], digest: str) -> None:
        with self._lock:
            self._known[key] = digest
            if len(self._known) > self._most:
                self._known.popitem(last=False)


_digests = _Digests()
