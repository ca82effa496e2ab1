"""Read shards where they are: on a local disk or in an object store."""

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from imgsearch import objects
from imgsearch.objects import ObjectChangedError, ObjectInfo
from imgsearch.shards.base import ShardChangedError, ShardError
from imgsearch.types import mtime_of
from imgsearch.uris import ObjectUrl, uri_to_path

_CHUNK_BYTES = 1 << 20
_BUFFER_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class State:
    """A version of a shard: its size in bytes, its mtime, and what an object store says of it."""

    size: int
    mtime_ns: int
    info: ObjectInfo | None = None

    @property
    def mark(self) -> int:
        """The `mtime_ns` of the records of members: the shard's, with a digest of its version.

        It is exact to the millisecond.
        """
        return objects.mark(self.mtime_ns // 10**6, f"{self.size}:{self.mtime_ns}")


def state_of(shard: str) -> State:
    """Return the version of a shard, by its URI. Raises OSError."""
    if url := ObjectUrl.parse(shard):
        info = objects.describe(url)
        return State(info.size, info.mtime_ns, info)
    return _local_state(os.stat(uri_to_path(shard)))


def _local_state(status: os.stat_result) -> State:
    return State(status.st_size, mtime_of(status))


def open_reader(shard: str, state: State, most: int) -> "Reader":
    """Return a version of a shard to read from any place, at most `most` bytes at once.

    Raises OSError, also later ShardChangedError for a shard in an object store.
    """
    if state.info:
        remote = io.BufferedReader(_Remote(shard, state), _BUFFER_BYTES)
        return Reader(remote, most)
    path = uri_to_path(shard)
    if not os.path.isfile(path):
        raise ShardError("not a regular file")
    return Reader(open(path, "rb"), most)


def read(shard: str, state: State, start: int, length: int) -> Iterator[bytes]:
    """Yield a range of a shard, some bytes at a time.

    Raises ShardChangedError if it is not of this version, and OSError.
    """
    received = 0
    for chunk in _chunks(shard, state, start, start + length):
        received += len(chunk)
        yield chunk
    if received != length:
        raise ShardError(f"{received:,} of {length:,} bytes were received")


def _chunks(shard: str, state: State, start: int, stop: int) -> Iterator[bytes]:
    if start == stop:
        return
    if state.info:
        try:
            yield from objects.read_range(state.info, start, stop)
        except ObjectChangedError as error:
            raise ShardChangedError() from error
        return
    with open(uri_to_path(shard), "rb", buffering=0) as file:
        if _local_state(os.fstat(file.fileno())) != state:
            raise ShardChangedError()
        file.seek(start)
        while start < stop and (chunk := file.read(min(_CHUNK_BYTES, stop - start))):
            start += len(chunk)
            yield chunk
        if _local_state(os.fstat(file.fileno())) != state:
            raise ShardChangedError()


class _Remote(io.RawIOBase):
    """A shard in an object store as a file, of which each read is a request."""

    def __init__(self, shard: str, state: State) -> None:
        self._shard = shard
        self._state = state
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        length = max(0, min(len(buffer), self._state.size - self._at))
        at = 0
        for chunk in read(self._shard, self._state, self._at, length):
            buffer[at : at + len(chunk)] = chunk
            at += len(chunk)
        self._at += length
        return length

    def seek(self, offset: int, whence: int = 0, /) -> int:
        start = {0: 0, 1: self._at, 2: self._state.size}[whence]
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at


class Reader:
    """A file of which nobody reads more than so many bytes at once.

    The libraries read headers and directories whole, however large they claim to be. `failure` is
    the error of a read, which some of them take for damage.
    """

    def __init__(self, file: BinaryIO | io.BufferedReader, most: int) -> None:
        self._file = file
        self._most = most
        self.closed = False
        self.failure: OSError | None = None

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.closed = True
        self._file.close()

    def read(self, size: int = -1) -> bytes:
        if size is None or size < 0 or size > self._most:
            data = self._read(self._most + 1)
            if len(data) > self._most:
                raise ShardError(f"a header or directory of more than {self._most:,} bytes")
            return data
        return self._read(size)

    def _read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:
            self.failure = error
            raise

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False
