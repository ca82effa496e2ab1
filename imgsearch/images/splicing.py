"""Read parts of a file as one contiguous file."""

import errno
import io
from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate
from typing import IO, TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer as Buffer

Part = tuple[int, int] | bytes
"""Offset and length in the file, or literal bytes."""


def splice(file: IO[bytes], parts: Iterable[Part]) -> BinaryIO:
    """Return a view of parts of an open file, in the given order, without copying them."""
    return io.BufferedReader(_Spliced(file, parts))


class _Spliced(io.RawIOBase):
    def __init__(self, file: IO[bytes], parts: Iterable[Part]) -> None:
        super().__init__()
        self._file = file
        self._parts = _joined(parts)
        lengths = [len(part) if isinstance(part, bytes) else part[1] for part in self._parts]
        self._starts = [0, *accumulate(lengths)]
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._starts[-1]}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, "negative seek position")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: "Buffer") -> int:
        """Read up to the end of the current part. Returns 0 at the end of the last one."""
        view = memoryview(buffer)
        index = bisect_right(self._starts, self._at) - 1
        if index == len(self._parts):
            return 0
        part, begin = self._parts[index], self._at - self._starts[index]
        wanted = min(len(view), self._starts[index + 1] - self._at)
        if isinstance(part, bytes):
            piece = part[begin : begin + wanted]
        else:
            self._file.seek(part[0] + begin)
            piece = self._file.read(wanted)
        view[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


def _joined(parts: Iterable[Part]) -> list[Part]:
    """Drop empty parts and merge parts that are adjacent in the file."""
    joined: list[Part] = []
    for part in parts:
        if isinstance(part, bytes):
            if part:
                joined.append(part)
            continue
        last = joined[-1] if joined else b""
        if isinstance(last, tuple) and sum(last) == part[0]:
            joined[-1] = (last[0], last[1] + part[1])
        elif part[1]:
            joined.append(part)
    return joined
