"""List the members of a tar, from header to header."""

import tarfile
from collections.abc import Iterator
from typing import BinaryIO

from imgsearch.shards.base import MAX_FIELDS_BYTES, Described, Member, ShardError
from imgsearch.shards.sidecars import describes

MAX_HEADER = 16 << 20


def members(file: BinaryIO) -> Iterator[Member | Described]:
    """Yield the regular files of a tar. Raises ShardError where it is cut off or damaged."""
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while (entry := archive.next()) is not None:
                # The list of all members so far, which would grow with the tar.
                archive.members = []  # type: ignore[attr-defined]
                yield from _member(entry, file)
            _check_end(file, archive.offset)
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise ShardError(f"the tar is damaged: {error}") from error


def _member(entry: tarfile.TarInfo, file: BinaryIO) -> Iterator[Member | Described]:
    if not entry.isreg():
        if not entry.isdir():
            yield Member(entry.name, 0, 0, 0, problem=_kind(entry))
        return
    if entry.issparse():
        yield Member(entry.name, 0, 0, entry.size, problem="a sparse file")
        return
    yield Member(entry.name, entry.offset_data, entry.size, entry.size)
    if describes(entry.name) and entry.size <= MAX_FIELDS_BYTES:
        file.seek(entry.offset_data)
        yield Described(entry.name, file.read(entry.size))


def _kind(entry: tarfile.TarInfo) -> str:
    return "a link in the tar" if entry.issym() or entry.islnk() else "not a regular file"


def _check_end(file: BinaryIO, offset: int) -> None:
    """Raise ShardError if no mark of the end is where the last header was looked for.

    `tarfile` takes the start of garbage for the end.
    """
    file.seek(offset)
    block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise ShardError(f"the tar ends at byte {offset + len(block):,} without a mark of its end")
    if block.strip(b"\0"):
        raise ShardError(f"the tar is damaged at byte {offset:,}")
