"""The distinct contents of a collection, with their vectors in a temporary file.

Whoever compares all images with each other reads each vector many times, and an image with
thousands of exact copies must not fill all places of its neighbors.
"""

import contextlib
import threading
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imgsearch.errors import ScratchError
from imgsearch.events import Counted, Listener, Outcome, Stage, ignore
from imgsearch.stores.base import Collection, Vectors
from imgsearch.system import scratch
from imgsearch.types import Condition, digest_bytes

_BATCH = 4096


class Contents:
    """Records with the same SHA-256 digest are one content, which has one vector.

    Contents have numbers from 0, in the order in which a scan finds them. `ids` of shape (records,
    16) are the bytes of the records' UUIDs, and `content` (records,) the number of each record's
    content. Memory holds 30 bytes per record, and 50 while they are read. The file has 4 bytes
    per dimension and content.
    """

    def __init__(
        self,
        file: Path,
        dimension: int,
        ids: NDArray[np.uint8],
        content: NDArray[np.int32],
        first: NDArray[np.int32],
    ) -> None:
        self._file = file
        self._dimension = dimension
        self.ids = ids
        self.content = content
        self._first = first
        # The records sorted by content, and where those of each content begin.
        self._sorted = np.argsort(content, kind="stable").astype(np.int32)
        counts = np.bincount(content, minlength=len(first))
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)

    @property
    def folder(self) -> Path:
        """The temporary folder, in which there is room for further files."""
        return self._file.parent

    def __len__(self) -> int:
        return len(self._first)

    @property
    def copies(self) -> NDArray[np.int32]:
        """The number of records of each content, of shape (contents,)."""
        return np.diff(self._starts)

    def record_ids(self, contents: Iterable[int]) -> list[str]:
        """Return the id of one record of each content."""
        return [_text(self.ids[self._first[each]]) for each in contents]

    def members(self, content: int) -> list[str]:
        """Return the ids of all records of a content."""
        chosen = self._sorted[self._starts[content] : self._starts[content + 1]]
        return [_text(self.ids[each]) for each in chosen]

    def vectors(self, start: int, stop: int) -> Vectors:
        """Return the vectors of the contents from `start` to before `stop`."""
        width = 4 * self._dimension
        count = (min(stop, len(self)) - start) * self._dimension
        flat = np.fromfile(self._file, np.float32, count, offset=start * width)
        return flat.reshape(-1, self._dimension)

    def vectors_of(self, contents: NDArray[np.integer]) -> Vectors:
        """Return the vectors of some contents, in this order."""
        if not len(contents):
            return np.empty((0, self._dimension), np.float32)
        # Opened for each call, as pages of a file that is mapped count as memory of the process.
        mapped = np.memmap(self._file, np.float32, "r", shape=(len(self), self._dimension))
        return np.array(mapped[contents])


@contextlib.contextmanager
def read_contents(
    collection: Collection,
    where: Sequence[Condition] = (),
    *,
    with_vectors: bool = True,
    places: Sequence[Path] = (),
    listener: Listener = ignore,
    stop: threading.Event | None = None,
) -> Iterator[Contents]:
    """Read the contents of the records that meet all conditions, and remove the file afterwards.

    The file is in the first of the `places` that can be written to, else in the data directory.
    Without vectors, `Contents.vectors` must not be called. Setting `stop` ends the reading early,
    with the contents read so far. Raises StoreError, and ScratchError if the file does not fit.
    """
    stop = stop or threading.Event()
    ids, digests = _scan(collection, where, listener, stop)
    first, content = _numbered(digests)
    with scratch.folder(scratch.places(*places), anywhere=True) as folder:
        file = folder / "vectors"
        if not with_vectors:
            yield Contents(file, collection.stamp.dimension, ids, content, first)
            return
        try:
            kept = _write_vectors(collection, file, ids[first], listener, stop)
        except OSError as error:
            raise ScratchError(
                f"{folder}: the vectors of {len(first):,} images cannot be written: "
                f"{error.strerror or error}"
            ) from error
        if not kept.all():  # removed since the scan, or not read after a stop
            there = kept[content]
            content = _places(kept)[content[there]]
            first = _places(there)[first[kept]]
            ids = ids[there]
        yield Contents(file, collection.stamp.dimension, ids, content, first)


def _numbered(digests: NDArray[np.void]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the first record of each content, and the content of each record."""
    _, first, content = np.unique(digests, return_index=True, return_inverse=True)
    order = np.argsort(first)  # in the order of the scan, in which a store reads fastest
    number = np.empty(len(order), np.int32)
    number[order] = np.arange(len(order), dtype=np.int32)
    return first[order].astype(np.int32), number[content.reshape(-1)]


def _places(kept: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Return the new place of each element after those that are not kept have been removed."""
    places: NDArray[np.int32] = np.cumsum(kept, dtype=np.int32)
    places -= 1
    return places


def _scan(
    collection: Collection,
    where: Sequence[Condition],
    listener: Listener,
    stop: threading.Event,
) -> tuple[NDArray[np.uint8], NDArray[np.void]]:
    """Return the ids (n, 16) and digests (n,) of the records that meet the conditions."""
    listener(Stage("listing the records"))
    ids, digests = bytearray(), bytearray()
    for records in collection.scan(where=where):
        if stop.is_set():
            break
        for record in records:
            ids += uuid.UUID(record.id).bytes
            digests += digest_bytes(record.sha256)[16:]
    return np.frombuffer(ids, np.uint8).reshape(-1, 16), np.frombuffer(digests, np.dtype("V16"))


def _write_vectors(
    collection: Collection,
    file: Path,
    ids: NDArray[np.uint8],
    listener: Listener,
    stop: threading.Event,
) -> NDArray[np.bool_]:
    """Write the vectors of records, and return which of them have one."""
    listener(Stage("reading the vectors"))
    listener(Counted(len(ids)))
    kept = np.zeros(len(ids), np.bool_)
    with file.open("wb") as target:
        for start in range(0, len(ids), _BATCH):
            if stop.is_set():
                break
            part = [_text(each) for each in ids[start : start + _BATCH]]
            stored = collection.vectors_by_id(part)
            for at, each in enumerate(part, start):
                if (vector := stored.get(each)) is not None:
                    kept[at] = True
                    target.write(np.ascontiguousarray(vector, np.float32).data)
                listener(Outcome("", "answered"))
    return kept


def _text(raw: NDArray[np.uint8]) -> str:
    return str(uuid.UUID(bytes=raw.tobytes()))
