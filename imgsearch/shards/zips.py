"""List the members of a zip by its directory, and unpack them."""

import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

from imgsearch.shards.base import (
    MAX_FIELDS_BYTES,
    MAX_UNPACKED,
    Described,
    Member,
    Method,
    ShardError,
)
from imgsearch.shards.sidecars import describes

MAX_DIRECTORY = 512 << 20
_ENCRYPTED = 0x1
_METHODS: dict[int, Method] = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflated"}
_HEADER = struct.Struct("<4s22xHH")
# A local header may have more than the directory says.
_SLACK = 1024
_UNPACK_BYTES = 1 << 20


def members(file: BinaryIO) -> Iterator[Member | Described]:
    """Yield the files of a zip. Raises ShardError if it is damaged.

    The directory is in memory while it is read: about 1 kB for each file.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            for entry in sorted(archive.infolist(), key=lambda entry: entry.header_offset):
                if not entry.is_dir():
                    yield from _member(entry, archive)
    except (zipfile.BadZipFile, ValueError, OverflowError, EOFError, NotImplementedError) as error:
        raise ShardError(f"the zip is damaged: {error}") from error


def _member(entry: zipfile.ZipInfo, archive: zipfile.ZipFile) -> Iterator[Member | Described]:
    method = _METHODS.get(entry.compress_type)
    head = _HEADER.size + len(entry.orig_filename.encode("utf-8", "replace")) + len(entry.extra)
    member = Member(
        entry.filename,
        entry.header_offset,
        entry.compress_size,
        entry.file_size,
        method or "stored",
        head,
        entry.CRC,
        _problem(entry, method),
    )
    yield member
    if describes(entry.filename) and not member.problem and entry.file_size <= MAX_FIELDS_BYTES:
        try:
            yield Described(entry.filename, archive.read(entry))
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            yield Member(f"{entry.filename}", 0, 0, 0, problem=f"damaged: {error}")


def _problem(entry: zipfile.ZipInfo, method: Method | None) -> str:
    if entry.flag_bits & _ENCRYPTED:
        return "encrypted in the zip"
    if _is_link(entry):
        return "a link in the zip"
    if method is None:
        name = zipfile.compressor_names.get(entry.compress_type, str(entry.compress_type))  # type: ignore[attr-defined]
        return f"compressed by {name}; only stored and deflated members can be read"
    if entry.file_size > MAX_UNPACKED:
        return f"{entry.file_size:,} bytes unpacked, more than {MAX_UNPACKED:,}"
    return ""


def _is_link(entry: zipfile.ZipInfo) -> bool:
    return (entry.external_attr >> 16) & 0o170000 == 0o120000


def unpack(member: Member, read: Callable[[int, int], Iterator[bytes]]) -> Iterator[bytes]:
    """Yield the content of a member; `read` yields a range of the zip, by start and length.

    Raises ShardError if it is damaged, or larger than the directory says.
    """
    head = member.head + _SLACK
    start, packed = _packed(member, read, head)
    if packed is None:  # an unusually long header
        start, packed = _packed(member, read, start)
    if packed is None:
        raise ShardError("the zip is damaged: two headers of a member differ")
    size, crc = 0, 0
    for chunk in _inflated(packed) if member.method == "deflated" else packed:
        size += len(chunk)
        if size > member.size:
            raise ShardError("unpacked, the member is larger than the zip says")
        crc = zlib.crc32(chunk, crc)
        yield chunk
    if size != member.size or crc != member.crc:
        raise ShardError("the member is damaged: its checksum is another")


def _packed(
    member: Member, read: Callable[[int, int], Iterator[bytes]], head: int
) -> tuple[int, Iterator[bytes] | None]:
    """Return where the content starts behind the header, and the content as it is in the zip.

    The content is None if the header is longer than `head`.
    """
    chunks = read(member.offset, head + member.length)
    first = b""
    while len(first) < _HEADER.size:
        try:
            first += next(chunks)
        except StopIteration:
            raise ShardError("the zip is cut off within a member") from None
    magic, name, extra = _HEADER.unpack_from(first)
    if magic != b"PK\3\4":
        raise ShardError("the zip is damaged: a member is not where the directory says")
    start = _HEADER.size + name + extra
    return (start, None) if start > head else (start, _cut(first, chunks, start, member.length))


def _cut(first: bytes, chunks: Iterator[bytes], skip: int, length: int) -> Iterator[bytes]:
    chunk: bytes | None = first
    while chunk is not None and length:
        skipped, skip = chunk[skip:], max(0, skip - len(chunk))
        if part := skipped[:length]:
            length -= len(part)
            yield part
        chunk = next(chunks, None)
    if length:
        raise ShardError("the zip is cut off within a member")


def _inflated(chunks: Iterator[bytes]) -> Iterator[bytes]:
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for chunk in chunks:
            while chunk:
                yield inflate.decompress(chunk, _UNPACK_BYTES)
                chunk = inflate.unconsumed_tail
        yield inflate.flush(_UNPACK_BYTES)
    except zlib.error as error:
        raise ShardError(f"the member is damaged: {error}") from error
