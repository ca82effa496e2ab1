"""The files of a job: images, and untrusted zips of images.

Zips are limited in number, size and ratio. Names that clients sent are never used as paths.
"""

import contextlib
import io
import json
import lzma
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from imgsearch.errors import ImageError
from imgsearch.server.errors import ApiError, unusable_archive
from imgsearch.server.settings import ArchiveLimits
from imgsearch.server.storage import Readable

_FILES = "files"
_NAMES = "names.json"

_MAGIC = b"PK\x03\x04"

# What zipfile and the libraries behind it raise for a damaged zip; bz2 raises OSError.
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, OSError, ValueError, IndexError,
)  # fmt: skip
# The end-of-directory record is the last of a zip, before a comment of up to 64 KiB.
_END_RECORD_BYTES = 22
_END_SEARCHED = (1 << 16) + _END_RECORD_BYTES
# Directory bytes per file, with long names.
_ENTRY_BYTES = 1024


@dataclass(frozen=True, slots=True)
class JobFile:
    """A file to ingest: the client's name for it, and its content or why it cannot be read."""

    name: str
    content: Readable | ImageError


def store_files(folder: Path, files: Sequence[tuple[str, BinaryIO]], limits: ArchiveLimits) -> int:
    """Copy files (names and contents) into a job's folder, and return how many images they hold.

    Raises ApiError for an unusable zip.
    """
    found = 0
    (folder / _FILES).mkdir(parents=True)
    for number, (name, content) in enumerate(files):
        content.seek(0)
        with (folder / _FILES / str(number)).open("wb") as file:
            shutil.copyfileobj(content, file)
        try:
            found += _count(content, limits) if _is_archive(content) else 1
        except ApiError as error:
            raise ApiError(error.status, error.name, f"{name}: {error}") from error
    (folder / _FILES / _NAMES).write_text(json.dumps([name for name, _ in files]))
    return found


def iter_files(folder: Path, limits: ArchiveLimits) -> Iterator[JobFile]:
    """Yield the files of a job, with zips unpacked; read each before the next.

    Raises ApiError for a zip bomb.
    """
    for number, name in enumerate(json.loads((folder / _FILES / _NAMES).read_text())):
        with (folder / _FILES / str(number)).open("rb") as file:
            if _is_archive(file):
                yield from _unpack(file, limits)
            else:
                yield JobFile(name, file)


def empty_folder(folder: Path) -> Path:
    """Make a folder for what a job writes while it runs; deleted with its files, and return it."""
    made = folder / _FILES / "work"
    shutil.rmtree(made, ignore_errors=True)  # of an interrupted run
    made.mkdir()
    return made


def delete_files(folder: Path) -> None:
    """Delete the files of an ended job, but not its state and report."""
    shutil.rmtree(folder / _FILES, ignore_errors=True)


def _is_archive(file: BinaryIO) -> bool:
    file.seek(0)
    magic = file.read(len(_MAGIC))
    file.seek(0)
    return magic == _MAGIC


def _count(file: BinaryIO, limits: ArchiveLimits) -> int:
    """Return the number of a zip's files to ingest. Raises ApiError for damage or a zip bomb.

    This trusts the sizes in the zip's directory; `_unpack` counts the unpacked bytes.
    """
    with _open(file, limits) as archive:
        members = [info for info in archive.infolist() if _is_ingested(info)]
    if len(members) > limits.files:
        raise unusable_archive(f"it holds {len(members):,} files, more than {limits.files:,}")
    if sum(info.file_size for info in members) > limits.total:
        raise unusable_archive(f"its files have more than {limits.total:,} bytes")
    for info in members:
        if info.file_size > limits.ratio * max(info.compress_size, 1024):
            raise unusable_archive("its compression ratio is that of a zip bomb")
    return len(members)


def _unpack(file: BinaryIO, limits: ArchiveLimits) -> Iterator[JobFile]:
    left = limits.total
    with _open(file, limits) as archive:
        for info in filter(_is_ingested, archive.infolist()):
            try:
                if info.flag_bits & 1:
                    raise ImageError("it is encrypted")
                with _translate_damage(), archive.open(info) as packed:
                    content = _LimitedReader(packed, left)
                    yield JobFile(info.filename, content)
                    left = content.left
            except ImageError as error:
                yield JobFile(info.filename, error)


class _LimitedReader:
    """Reads a file of an archive. Raises ApiError after too many bytes."""

    def __init__(self, packed: IO[bytes], left: int) -> None:
        self._packed = packed
        self.left = left

    def read(self, size: int, /) -> bytes:
        with _translate_damage():
            chunk = self._packed.read(size)
        self.left -= len(chunk)
        if self.left < 0:
            raise unusable_archive("its files have more bytes than its directory says")
        return chunk


@contextlib.contextmanager
def _translate_damage() -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise ImageError(f"damaged zip: {error}") from error
    except (NotImplementedError, RuntimeError, EOFError) as error:
        raise ImageError(f"cannot be unpacked: {error}") from error


def _is_ingested(info: zipfile.ZipInfo) -> bool:
    """Skip folders, and the metadata that macOS adds."""
    return not info.filename.endswith("/") and not info.filename.startswith("__MACOSX/")


def _open(file: BinaryIO, limits: ArchiveLimits) -> zipfile.ZipFile:
    _check_directory(file, limits)
    try:
        return zipfile.ZipFile(file)
    except (*_DAMAGE, NotImplementedError) as error:
        raise unusable_archive(f"it cannot be read: {error}") from error


def _check_directory(file: BinaryIO, limits: ArchiveLimits) -> None:
    """Check the directory's size before zipfile creates an object for each of its entries."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - _END_SEARCHED))
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) < at + _END_RECORD_BYTES:
        raise unusable_archive("it has no directory, and may have been cut off")
    entries, directory = struct.unpack_from("<HL", tail, at + 10)
    # A zip64 has its real numbers elsewhere; nothing that fits into a request needs one.
    is_zip64 = tail[:at].endswith(b"PK\6\7", 0, max(0, at - 16))
    if is_zip64 or directory > _ENTRY_BYTES * limits.files or entries > limits.files:
        raise unusable_archive(f"it holds more than {limits.files:,} files")
