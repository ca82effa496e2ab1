"""Compare two collections, or a folder and a collection.

Each side is read once, in batches, and looked up in the other. What only one side has is kept in a
temporary SQLite file, in which equal contents at different places are paired. So memory depends on
neither the number of images nor that of the differences.
"""

import contextlib
import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Literal

from imgsearch import config, images
from imgsearch.bulk import BulkOptions, search_images
from imgsearch.encoders.base import Encoder
from imgsearch.errors import EncoderError, ImageError, ScratchError
from imgsearch.events import Listener, Note, Stage, ignore
from imgsearch.ingest.prune import is_missing
from imgsearch.search import SearchRequest
from imgsearch.sources import Candidate, ListedObjects, ScanLog, Sources, Unusable, resolve, scan
from imgsearch.stores.base import Collection, VectorQuery, batched
from imgsearch.system import scratch
from imgsearch.types import ImageRecord
from imgsearch.uris import record_id

Kind = Literal["added", "removed", "changed", "moved", "near-copy", "unreadable"]
KINDS: tuple[Kind, ...] = ("added", "removed", "changed", "moved", "near-copy", "unreadable")

NEAR = 0.93
"""The least cosine similarity of near-copies.

With efficientnet-lite0, 100 photographs of products of 224 pixels, saved as JPEG at quality 70,
have at least 0.99. At three quarters of the size and quality 60, 62 of them have at least 0.93; the
most similar one of 300 other photographs has 0.91.
"""

_BATCH = 1024
# Of an image, how many others are looked at for a near-copy.
_NEIGHBORS = 10
_READERS = 8
_FIRST, _SECOND = 0, 1


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference between the first and the second.

    `path` is the place in the first, for `added` that in the second. `moved` and `near-copy` have
    the place in the second as `to`, and `near-copy` the cosine similarity as `score`. `unreadable`
    is a file or folder that could not be compared, for a `reason`.
    """

    kind: Kind
    path: str
    to: str | None = None
    score: float | None = None
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the object that `imgsearch diff --json` prints, without what is None."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class Diff:
    """Iterate over it, once, to compare. Afterwards `counts` has the number of each kind.

    Raises SourceError, StoreError, ScratchError, or EncoderError while it is iterated over.
    """

    def __init__(
        self,
        first: Collection | str,
        second: Collection | str,
        open_encoder: Callable[[Collection], Encoder],
        *,
        near: bool = True,
        listener: Listener = ignore,
        stop: threading.Event | None = None,
    ) -> None:
        """Compare collections, of which one may be a folder instead.

        A folder is compared with the records below it. `near` looks for near-copies among the
        added and removed images, which encodes the new files of a folder.
        """
        assert not (isinstance(first, str) and isinstance(second, str))
        self._first, self._second = first, second
        self._open_encoder = open_encoder
        self._near = near
        self._listener = listener
        self._stop = stop or threading.Event()
        self.counts = Counter[str](dict.fromkeys(("equal", *KINDS), 0))
        """By kind, and `equal`."""

    @property
    def differs(self) -> bool:
        """Whether any difference was found."""
        return any(self.counts[kind] for kind in KINDS)

    def __iter__(self) -> Iterator[Difference]:
        with _Lone() as lone:
            for difference in self._compared(lone):
                self.counts[difference.kind] += 1
                yield difference

    def _compared(self, lone: "_Lone") -> Iterator[Difference]:
        first, second = self._first, self._second
        self._listener(Stage("comparing"))
        if isinstance(first, str):
            assert not isinstance(second, str)
            yield from self._with_folder(first, second, lone, _FIRST)
        elif isinstance(second, str):
            yield from self._with_folder(second, first, lone, _SECOND)
        else:
            yield from self._collections(first, second, lone)
        if self._stop.is_set():
            return
        for old, new in lone.equal_contents():
            yield Difference("moved", old, new)
        if self._near and lone.count(_FIRST) and lone.count(_SECOND):
            yield from self._near_copies(lone)
        for path in lone.paths(_FIRST):
            yield Difference("removed", path)
        for path in lone.paths(_SECOND):
            yield Difference("added", path)

    def _collections(
        self, first: Collection, second: Collection, lone: "_Lone"
    ) -> Iterator[Difference]:
        for records in self._batches(first):
            uris = [_uri_in(second, record, first) for record in records]
            known = second.lookup([record_id(uri) for uri in uris])
            for record, uri in zip(records, uris, strict=True):
                other = known.get(record_id(uri))
                if other is None:
                    lone.add(_FIRST, record.path, record.sha256, record.id)
                elif other.sha256 == record.sha256 or _are_unread(record, other):
                    self.counts["equal"] += 1
                else:
                    yield Difference("changed", record.path)
        for records in self._batches(second):
            uris = [_uri_in(first, record, second) for record in records]
            present = first.file_stats(uris)
            for record, uri in zip(records, uris, strict=True):
                if uri not in present:
                    lone.add(_SECOND, record.path, record.sha256, record.id)

    def _batches(self, collection: Collection, *prefixes: str) -> Iterator[Sequence[ImageRecord]]:
        for scanned in collection.scan(*prefixes):
            for records in batched(scanned, _BATCH):
                if self._stop.is_set():
                    return
                yield records

    def _with_folder(
        self, folder: str, collection: Collection, lone: "_Lone", side: int
    ) -> Iterator[Difference]:
        """Compare the files in a folder, which is on this side, with the records below it."""
        sources, listed = resolve([folder]), ListedObjects()
        log = ScanLog(objects=listed)
        found = scan(sources, log, stopped=self._stop.is_set)
        with ThreadPoolExecutor(_READERS, "imgsearch-read") as pool:
            while some := list(islice(found, _BATCH)):
                yield from self._files(some, collection, lone, side, pool)
        for path, reason in log.unreadable:
            yield Difference("unreadable", path, reason=reason)
        prefixes = [_below(collection, each) for each in sources.folders]
        prefixes += [f"{collection.sites.qualified(shard)}#" for shard in listed.shards]
        if not prefixes:  # a shard that could not be read
            return
        for records in self._batches(collection, *prefixes):
            for record in records:
                if record.site is None and is_missing(record.path, listed):
                    lone.add(1 - side, record.path, record.sha256, record.id)

    def _files(
        self,
        some: Sequence[Candidate | Unusable],
        collection: Collection,
        lone: "_Lone",
        side: int,
        pool: Executor,
    ) -> Iterator[Difference]:
        ids = {each.path: record_id(collection.sites.uri(each.path)) for each in some}
        known = collection.lookup(list(ids.values()))

        def digest(found: Candidate | Unusable) -> str | ImageError:
            if isinstance(found, Unusable):
                return ImageError(found.reason)
            record = known.get(ids[found.path])
            if record and (record.size, record.mtime_ns) == (found.size, found.mtime_ns):
                return record.sha256
            try:
                return images.fingerprint(found.path).sha256
            except ImageError as error:
                return error

        for found, sha256 in zip(some, pool.map(digest, some), strict=True):
            record = known.get(ids[found.path])
            if isinstance(sha256, ImageError):
                yield Difference("unreadable", found.path, reason=str(sha256))
            elif record is None:
                lone.add(side, found.path, sha256, ids[found.path])
            elif record.sha256 == sha256:
                self.counts["equal"] += 1
            else:
                yield Difference("changed", found.path)

    def _near_copies(self, lone: "_Lone") -> Iterator[Difference]:
        self._listener(Stage("looking for near-copies"))
        first, second = self._first, self._second
        if isinstance(first, str) or isinstance(second, str):
            side = _FIRST if isinstance(first, str) else _SECOND
            collection = second if side == _FIRST else first
            assert not isinstance(collection, str)
            found = self._neighbors_of_files(collection, lone, side)
        elif differences := first.stamp.differences(second.stamp):
            self._listener(
                Note(
                    "no search for near-copies: the vectors of the collections are not comparable "
                    f"({'; '.join(differences)})"
                )
            )
            return
        else:
            side = _FIRST
            found = self._neighbors_of_records(first, second, lone)
        for path, neighbors in found:
            for score, other in neighbors:
                if score >= NEAR and (there := lone.take(1 - side, other, side, path)):
                    places = (path, there) if side == _FIRST else (there, path)
                    yield Difference("near-copy", *places, score=round(score, 4))
                    break

    def _neighbors_of_records(
        self, first: Collection, second: Collection, lone: "_Lone"
    ) -> Iterator[tuple[str, list[tuple[float, str]]]]:
        """Yield the path of each removed record, with scores and ids of others in the second."""
        for some in lone.batches(_FIRST):
            if self._stop.is_set():
                return
            vectors = first.vectors_by_id(list(some))
            there = [key for key in some if key in vectors]
            queries = [VectorQuery(vectors[key], _NEIGHBORS) for key in there]
            for key, found in zip(there, second.search_many(queries), strict=True):
                yield some[key], [(each.score, each.record.id) for each in found]

    def _neighbors_of_files(
        self, collection: Collection, lone: "_Lone", side: int
    ) -> Iterator[tuple[str, list[tuple[float, str]]]]:
        """Yield the path of each lone file, with scores and ids of similar records."""
        request = SearchRequest(k=_NEIGHBORS, min_score=NEAR, collapse=False)
        paths = (path for some in lone.batches(side) for path in some.values())
        try:
            for result in search_images(
                collection,
                lambda: self._open_encoder(collection),
                Sources((), stdin=True),
                request,
                BulkOptions(workers=config.default_workers()),
                stdin=paths,
                stop=self._stop,
            ):
                yield result.path, [(hit.score, hit.record.id) for hit in result.hits]
        except EncoderError as error:
            self._listener(Note(f"no search for near-copies: {error}"))


def _are_unread(one: ImageRecord, other: ImageRecord) -> bool:
    """Return whether the content of neither record is known, of images at one place."""
    return one.sha256 == f"unread:{one.id}" and other.sha256 == f"unread:{other.id}"


def _uri_in(collection: Collection, record: ImageRecord, origin: Collection) -> str:
    """Return the URI that the place of a record has in another collection."""
    site, uri = origin.sites.split(record.uri)
    return collection.sites.qualified(uri, site)


def _below(collection: Collection, folder: str) -> str:
    return collection.sites.uri(folder).removesuffix("/") + "/"


class _Lone:
    """Images that only one of the sides has. Use it as a context manager."""

    def __enter__(self) -> "_Lone":
        with contextlib.ExitStack() as cleanup:
            folder = cleanup.enter_context(scratch.folder(scratch.places(), anywhere=True))
            try:
                self._rows = sqlite3.connect(
                    folder / "lone.sqlite", isolation_level=None, check_same_thread=False
                )
                cleanup.callback(self._rows.close)
                self._rows.executescript(
                    "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
                    "CREATE TABLE lone (side INTEGER, path BLOB, sha256 TEXT, id TEXT);"
                    "CREATE INDEX by_id ON lone (side, id);"
                    "CREATE INDEX by_path ON lone (side, path);"
                    "CREATE INDEX by_content ON lone (side, sha256);"
                    "BEGIN"
                )
            except sqlite3.Error as error:
                raise ScratchError(f"{folder}: cannot be written to: {error}") from error
            self._lock = threading.Lock()
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def _run(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        try:
            with self._lock:
                return self._rows.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise ScratchError(f"the differences cannot be stored: {error}") from error

    def add(self, side: int, path: str, sha256: str, key: str) -> None:
        """Add an image; `key` is the id of its record, or that a record of it would have."""
        self._run("INSERT INTO lone VALUES (?, ?, ?, ?)", side, os.fsencode(path), sha256, key)

    def count(self, side: int) -> int:
        [(count,)] = self._run("SELECT count(*) FROM lone WHERE side = ?", side)
        return int(count)

    def equal_contents(self) -> Iterator[tuple[str, str]]:
        """Pair images of equal content, remove them, and yield the places of each pair."""
        numbered = (
            "SELECT rowid AS row, path, sha256, row_number() OVER "
            "(PARTITION BY sha256 ORDER BY path) AS number FROM lone WHERE side = ?"
        )
        self._run(
            "CREATE TABLE pair AS SELECT a.row AS a, b.row AS b, a.path AS old, b.path AS new "  # noqa: S608
            f"FROM ({numbered}) a JOIN ({numbered}) b USING (sha256, number)",
            _FIRST,
            _SECOND,
        )
        self._run("DELETE FROM lone WHERE rowid IN (SELECT a FROM pair UNION SELECT b FROM pair)")
        after = 0
        while some := self._run(
            "SELECT rowid, old, new FROM pair WHERE rowid > ? ORDER BY rowid LIMIT ?", after, _BATCH
        ):
            for row, old, new in some:
                yield os.fsdecode(old), os.fsdecode(new)
                after = row

    def batches(self, side: int) -> Iterator[dict[str, str]]:
        """Yield paths by id. What is taken meanwhile may still come."""
        after = 0
        while some := self._run(
            "SELECT rowid, id, path FROM lone WHERE side = ? AND rowid > ? ORDER BY rowid LIMIT ?",
            *(side, after, _BATCH),
        ):
            yield {key: os.fsdecode(path) for _, key, path in some}
            after = some[-1][0]

    def take(self, side: int, key: str, other_side: int, other_path: str) -> str | None:
        """Remove a pair, and return the path of the first; None if one of it is not there."""
        other = os.fsencode(other_path)
        found = self._run("SELECT path FROM lone WHERE side = ? AND id = ?", side, key)
        there = self._run("SELECT 1 FROM lone WHERE side = ? AND path = ?", other_side, other)
        if not (found and there):
            return None
        self._run("DELETE FROM lone WHERE side = ? AND id = ?", side, key)
        self._run("DELETE FROM lone WHERE side = ? AND path = ?", other_side, other)
        return os.fsdecode(found[0][0])

    def paths(self, side: int) -> Iterator[str]:
        """Yield the paths of what is left, sorted."""
        after, row = b"", 0
        while some := self._run(
            "SELECT path, rowid FROM lone WHERE side = ? AND (path, rowid) > (?, ?) "
            "ORDER BY path, rowid LIMIT ?",
            *(side, after, row, _BATCH),
        ):
            for path, _ in some:
                yield os.fsdecode(path)
            after, row = some[-1]
