"""Zip files that strangers send: bounded in number, size and ratio; names are never paths."""

import contextlib
import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, BinaryIO, Protocol

from imgsearch.errors import ImageError
from imgsearch.server.errors import RefusedError
from imgsearch.server.settings import ArchiveLimits

MAGIC = b"PK\x03\x04"

# What zipfile and the libraries behind it raise for it; bz2 raises OSError.
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, OSError, ValueError, IndexError,
)  # fmt: skip
# The end of the directory is there, with a comment of up to 64 KiB behind it.
_END_SEARCHED = (1 << 16) + 22
# What the directory may take for each file, with long names.
_ENTRY_BYTES = 1024


class Readable(Protocol):
    """What can be read in parts."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive: what it is called there, and its content or why it has none."""

    name: str
    content: Readable | ImageError


def check_archive(file: BinaryIO, limits: ArchiveLimits) -> int:
    """How many files there are to take. Raises RefusedError for a zip that is none, or a bomb.

    What the directory of the zip says is believed only here: `members` counts for itself.
    """
    with _opened(file, limits) as archive:
        members = [info for info in archive.infolist() if _is_taken(info)]
    if len(members) > limits.files:
        raise _refused(f"it holds {len(members):,} files, more than {limits.files:,}")
    if sum(info.file_size for info in members) > limits.total:
        raise _refused(f"its files have more than {limits.total:,} bytes")
    for info in members:
        if info.file_size > limits.ratio * max(info.compress_size, 1024):
            raise _refused("it is packed so tightly that it must be a bomb")
    return len(members)


def members(file: BinaryIO, limits: ArchiveLimits) -> Iterator[Member]:
    """The files of an archive, each to be read before the next. Raises RefusedError for a bomb."""
    left = limits.total
    with _opened(file, limits) as archive:
        for info in filter(_is_taken, archive.infolist()):
            try:
                if info.flag_bits & 1:
                    raise ImageError("it is encrypted")
                with _damage_told(), archive.open(info) as packed:
                    content = _Counted(packed, left)
                    yield Member(info.filename, content)
                    left = content.left
            except ImageError as error:
                yield Member(info.filename, error)


class _Counted:
    """A file on its way out of an archive. Raises RefusedError once there is too much."""

    def __init__(self, packed: IO[bytes], left: int) -> None:
        self._packed = packed
        self.left = left

    def read(self, size: int, /) -> bytes:
        with _damage_told():
            chunk = self._packed.read(size)
        self.left -= len(chunk)
        if self.left < 0:
            raise _refused("its files have more bytes than it says")
        return chunk


@contextlib.contextmanager
def _damage_told() -> Iterator[None]:
    """zipfile and the libraries behind it have many words for damage."""
    try:
        yield
    except _DAMAGE as error:
        raise ImageError(f"damaged zip: {error}") from error
    except (NotImplementedError, RuntimeError, EOFError) as error:
        raise ImageError(f"cannot be unpacked: {error}") from error


def _is_taken(info: zipfile.ZipInfo) -> bool:
    """No folders, and not what macOS puts beside the files."""
    return not info.filename.endswith("/") and not info.filename.startswith("__MACOSX/")


def _opened(file: BinaryIO, limits: ArchiveLimits) -> zipfile.ZipFile:
    _check_directory(file, limits)
    try:
        return zipfile.ZipFile(file)
    except (*_DAMAGE, NotImplementedError) as error:
        raise _refused(f"it cannot be read: {error}") from error


def _check_directory(file: BinaryIO, limits: ArchiveLimits) -> None:
    """Its size, before zipfile makes an object for each of millions of entries."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - _END_SEARCHED))
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) < at + 22:
        raise _refused("it has no directory, and may have been cut off")
    entries, directory = struct.unpack_from("<HL", tail, at + 10)
    # In a zip64 the real numbers stand elsewhere; nothing that fits into a request needs it.
    is_zip64 = tail[:at].endswith(b"PK\6\7", 0, max(0, at - 16))
    if is_zip64 or directory > _ENTRY_BYTES * limits.files or entries > limits.files:
        raise _refused(f"it holds more than {limits.files:,} files")


def _refused(why: str) -> RefusedError:
    return RefusedError(422, "unusable-archive", f"the zip is not taken: {why}")
