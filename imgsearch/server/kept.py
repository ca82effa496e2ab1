"""The files of uploaded pictures, by content, under the data directory."""

import contextlib
import errno
import hashlib
import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from imgsearch import images
from imgsearch.errors import ImageError
from imgsearch.records import ImageRecord, path_to_uri
from imgsearch.server.archives import Readable
from imgsearch.server.refusals import FULL, RefusedError, disk_full

_CHUNK = 1 << 20


class KeptFiles:
    """`ROOT/COLLECTION/ab/abcd...SHA-256`, with the extension of its format.

    A content is kept once in a collection; what a client called it is never part of a path.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def keep(self, picture: Readable, collection: str, most: int) -> Path:
        """Where the content of a stream, of at most so many bytes, lies from now on.

        It appears whole or not at all. Raises ImageError for what is no picture, or too large, and
        RefusedError if the disk is full.
        """
        with disk_full_told():
            folder = self._root / collection
            folder.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=folder, prefix=".")
            try:
                with open(descriptor, "wb") as part:
                    digest = _copy(picture, part, most)
                    part.flush()
                    os.fsync(part.fileno())
                place = folder / digest[:2] / f"{digest}{_extension(Path(name))}"
                place.parent.mkdir(exist_ok=True)
                if not _holds(place, digest):  # untouched, it is no news to an ingest
                    os.replace(name, place)
            finally:
                Path(name).unlink(missing_ok=True)
        return place

    def keep_bytes(self, picture: bytes, collection: str) -> Path:
        return self.keep(io.BytesIO(picture), collection, len(picture))

    def clean(self) -> None:
        """Remove what a killed service left half-way; nothing may be kept meanwhile."""
        for part in self._root.glob("*/.*"):
            if part.is_file():
                part.unlink(missing_ok=True)

    def owns(self, record: ImageRecord) -> bool:
        """Whether a record's file came by an upload."""
        return record.uri.startswith(path_to_uri(str(self._root.absolute())) + "/")

    def remove(self, record: ImageRecord) -> None:
        """Delete the file of a record, if it came by an upload."""
        if self.owns(record):
            Path(record.path).unlink(missing_ok=True)

    def remove_all(self, collection: str) -> None:
        shutil.rmtree(self._root / collection, ignore_errors=True)


def _copy(picture: Readable, part: BinaryIO, most: int) -> str:
    """Copy a stream; returns its SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    copied = 0
    while chunk := picture.read(_CHUNK):
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
    """By content, so that other programs know the file. Raises ImageError for no picture."""
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
            raise RefusedError(
                500,
                "not-writable",
                f"the service may not write to its data directory ({error.strerror}); "
                "IMGSEARCH_HOME says where it is",
            ) from error
        raise
