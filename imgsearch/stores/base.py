"""Protocols of stores and collections, which the embedded store and server adapters implement.

One contract suite (`tests/store_contract.py`) runs against all of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from imgsearch.errors import CollectionMismatchError, Remedy, UsageError
from imgsearch.events import Listener, ignore
from imgsearch.metadata.changes import Changes, OriginChanges
from imgsearch.sites import Sites
from imgsearch.types import (
    CollectionInfo,
    Condition,
    FieldType,
    ImageRecord,
    Scored,
    Stamp,
    VectorDtype,
)

Vectors = NDArray[np.float32]

MAX_EXCLUDED_DIGESTS = 1000
"""The most digests that one search can exclude: a filter of 64 kB, far below store limits."""

NO_FIELDS: Mapping[str, FieldType] = MappingProxyType({})

VECTOR_INDEX = "vector_index"
"""Key of `CollectionInfo.details`: how the index of vectors is tuned, if the store does so."""

NO_WORDS = (
    "it was made by an earlier version, which stored no words to search for; a copy of it has "
    "them, and needs no encoding"
)


T = TypeVar("T")


def batched(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield slices of at most `size` items, for stores that bound the values of a request."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def check_stamp(collection: "Collection", stamp: Stamp) -> None:
    """Raise CollectionMismatchError if a collection's vectors are of another stamp."""
    if differences := stamp.differences(collection.stamp):
        raise CollectionMismatchError(
            f"collection {collection.name} has just been created by another writer, and its "
            f"vectors cannot be compared with the new ones ({'; '.join(differences)}): use the "
            "model that made it, or another collection"
        )


def check_dtype_of_store(store: "VectorStore", vector_dtype: VectorDtype | None) -> None:
    """Raise UsageError if a store cannot keep vectors in this number format."""
    if vector_dtype not in (None, *store.vector_dtypes):
        raise UsageError(
            f"{store.url}: this store keeps vectors as {' or '.join(store.vector_dtypes)}, not as "
            f"{vector_dtype}, which only the embedded store offers",
            Remedy.LEAVE_OUT_VECTOR_DTYPE,
        )


def check_dtype(
    collection: "Collection", vector_dtype: VectorDtype | None, *remedies: Remedy
) -> None:
    """Raise CollectionMismatchError if vectors are kept in another number format than this one."""
    if vector_dtype not in (None, collection.vector_dtype):
        raise CollectionMismatchError(
            f"collection {collection.name} keeps its vectors as {collection.vector_dtype}, not as "
            f"{vector_dtype}",
            Remedy.LEAVE_OUT_VECTOR_DTYPE,
            *remedies,
        )


@dataclass(frozen=True, slots=True)
class StoredVector:
    """A vector, float32 of shape (dimension,), and its image's size in pixels."""

    vector: Vectors
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class VectorQuery:
    """One query of many; the fields are the arguments of `Collection.search`."""

    vector: Vectors
    k: int
    where: Sequence[Condition] = ()
    exclude_digests: Sequence[str] = ()
    share: float = 1.0


class Collection(Protocol):
    """The records of one stamp. Vectors are float32 of shape (n, dimension), L2-normalized.

    A store may keep them in another number format, and returns them as float32.

    Several threads may use one object, of which one may write. Methods raise StoreError when the
    store fails.
    """

    @property
    def name(self) -> str: ...

    @property
    def stamp(self) -> Stamp: ...

    @property
    def vector_dtype(self) -> VectorDtype:
        """The number format in which the vectors are kept."""
        ...

    @property
    def sites(self) -> Sites:
        """How the collection names the files of the machines that share it."""
        ...

    def join_site(self, listener: Listener = ignore) -> bool:
        """Register this machine's site with the collection; call it before writing records.

        The first site becomes the collection's home. Returns whether it became the home of a
        collection that already held records, whose site is therefore unknown.
        """
        ...

    @property
    def fields(self) -> Mapping[str, FieldType]:
        """The metadata fields that records can have, as last read by this object."""
        ...

    def refresh_fields(self) -> Mapping[str, FieldType]:
        """Read the metadata fields from the store, which other writers may have extended."""
        ...

    def add_fields(self, fields: Mapping[str, FieldType]) -> None:
        """Add missing fields. Raises CollectionMismatchError if a field has another type."""
        ...

    def lookup(self, ids: Sequence[str]) -> dict[str, ImageRecord]:
        """Return records by id, without the ids that have none."""
        ...

    def file_stats(self, uris: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Return size and mtime_ns by URI, without the URIs that have no record.

        Reads nothing else of the records. Quickest for URIs many of which follow each other.
        """
        ...

    def vectors_by_digest(self, digests: Sequence[str]) -> dict[str, StoredVector]:
        """Return vectors by SHA-256 digest, without the digests that no record has."""
        ...

    def vectors_by_id(self, ids: Sequence[str]) -> dict[str, Vectors]:
        """Return vectors of shape (dimension,) by id, without the ids that have no record."""
        ...

    def upsert(self, records: Sequence[ImageRecord], vectors: Vectors) -> dict[str, str]:
        """Write records, replacing those with the same id; each is written whole or not at all.

        The metadata fields must have been added before. Returns the reason by id of each record
        that the store rejected.
        """
        ...

    def update_metadata(
        self, changes: Mapping[str, Changes], origins: Mapping[str, OriginChanges] | None = None
    ) -> None:
        """Set and remove fields of the records with these ids; ids without a record are ignored.

        Nothing else of a record is written, so that concurrent writers of different fields do not
        undo each other. The fields must have been added before.
        """
        ...

    def delete(self, ids: Sequence[str]) -> int:
        """Delete records; return how many existed."""
        ...

    def scan(
        self, *uri_prefixes: str, where: Sequence[Condition] = ()
    ) -> Iterator[list[ImageRecord]]:
        """Yield batches of the records whose URI begins with one of the prefixes, or of all.

        Only records that meet all conditions. The store itself selects them. A store with versions
        yields them as of the start of the scan; others yield each record that exists throughout
        exactly once.
        """
        ...

    def uris(self, *uri_prefixes: str) -> Iterator[list[str]]:
        """Yield batches of the URIs of records by prefix as `scan` does, which is much quicker."""
        ...

    def page(
        self, limit: int, after: str = "", where: Sequence[Condition] = ()
    ) -> list[ImageRecord]:
        """Return the first `limit` records by id after the id `after` that meet all conditions.

        Reads little more than these, also in a large collection. Raises UsageError if `after` is
        not an id.
        """
        ...

    def count(self, where: Sequence[Condition] = ()) -> int:
        """Return how many records meet all conditions."""
        ...

    def count_by_digest(
        self, digests: Sequence[str], where: Sequence[Condition] = ()
    ) -> dict[str, int]:
        """Return how many records that meet all conditions have each of the SHA-256 digests."""
        ...

    def search(
        self,
        vector: Vectors,
        k: int,
        where: Sequence[Condition] = (),
        *,
        exact: bool = False,
        exclude_digests: Sequence[str] = (),
        share: float = 1.0,
    ) -> list[Scored]:
        """Return the k records most similar to a vector of shape (dimension,), best first.

        Only records that meet all conditions; equal scores in the order of their URIs. `exact`
        compares with every vector, and uses no index that might miss one. The store leaves out
        records with one of the SHA-256 `exclude_digests`, at most `MAX_EXCLUDED_DIGESTS`. A
        `share` below 1 searches only a sample of about this share of all records, which depends on
        nothing but their ids.
        """
        ...

    def search_many(self, queries: Sequence[VectorQuery]) -> list[list[Scored]]:
        """Return the results of `search` for many queries, in much less time than one by one.

        Uses the index only where that is quicker than to compare the queries with all vectors,
        and otherwise finds everything. Memory grows with the number of queries and the sum of all
        `k`, not with the size of the collection: split a long list of queries into blocks.
        """
        ...

    def search_exact(self, queries: Sequence[VectorQuery]) -> list[list[Scored]]:
        """Return the results of `search(exact=True)` for many queries in one pass.

        Memory grows with the sum of all `k`, not with the size of the collection: split a long
        list of queries into blocks.
        """
        ...

    def search_text(
        self,
        words: Sequence[str],
        k: int,
        where: Sequence[Condition] = (),
        *,
        exclude_digests: Sequence[str] = (),
    ) -> list[Scored]:
        """Return the k records whose metadata holds any of the words, the most relevant first.

        By BM25: the more of the words, the rarer they are, and the shorter the record's text, the
        better. The words are `imgsearch.text.query_words` of a text. Only records that meet all
        conditions; equal scores in the order of their URIs; `exclude_digests` as in `search`. A
        store that is spread over shards may compute rarity and length per shard. Of more than a
        thousand equally relevant records, or 2k, a server may choose any k. Raises
        CollectionMismatchError for a collection of an early version, which stored no words.
        """
        ...

    def attachment(self, name: str) -> str | None:
        """Return a text that is kept with the collection, None if there is none of this name.

        A replacement of the collection has none of its attachments. Where reading takes a request,
        the text may be a minute old.
        """
        ...

    def attach(self, name: str, text: str | None) -> None:
        """Keep a text of some kilobytes with the collection, or remove it; the last writer wins.

        `name` consists of letters. Readers may call this without the write lock.
        """
        ...

    def optimize(self, listener: Listener = ignore) -> None:
        """Compact, and build or extend the indexes, where it pays; call it after writing."""
        ...

    def info(self) -> CollectionInfo: ...


def search_each(
    collection: Collection, queries: Sequence[VectorQuery], threads: int
) -> list[list[Scored]]:
    """Return the results of `Collection.search` for each query, several at a time."""

    def search(query: VectorQuery) -> list[Scored]:
        return collection.search(
            query.vector,
            query.k,
            query.where,
            exclude_digests=query.exclude_digests,
            share=query.share,
        )

    with ThreadPoolExecutor(threads, "imgsearch-search") as pool:
        return list(pool.map(search, queries))


class VectorStore(Protocol):
    """A place for collections. Use as a context manager, or close it."""

    @property
    def url(self) -> str: ...

    @property
    def vector_dtypes(self) -> Sequence[VectorDtype]:
        """The number formats in which collections can keep their vectors, the default first."""
        ...

    def names(self) -> list[str]:
        """Return the names of the collections, sorted."""
        ...

    def create(
        self,
        name: str,
        stamp: Stamp,
        fields: Mapping[str, FieldType] = NO_FIELDS,
        vector_dtype: VectorDtype = "float32",
    ) -> Collection:
        """Create an empty collection with these metadata fields.

        Raises StoreError if the name is taken, UsageError if the store cannot keep vectors of this
        number format.
        """
        ...

    def open_or_create(
        self,
        name: str,
        stamp: Stamp,
        fields: Mapping[str, FieldType] = NO_FIELDS,
        vector_dtype: VectorDtype | None = None,
    ) -> Collection:
        """Open a collection, or create it; safe while other writers do the same.

        Either way it has the metadata fields afterwards. A `vector_dtype` of None is that of the
        collection, or float32 for a new one. Raises CollectionMismatchError if the collection has
        another stamp or number format, or one of the fields with another type.
        """
        ...

    def open(self, name: str) -> Collection:
        """Open a collection. Raises CollectionNotFoundError, which names the existing ones."""
        ...

    def drop(self, name: str) -> None:
        """Delete a collection and all its records. Raises CollectionNotFoundError."""
        ...

    def replacement(
        self,
        name: str,
        stamp: Stamp,
        fields: Mapping[str, FieldType] = NO_FIELDS,
        vector_dtype: VectorDtype | None = None,
    ) -> Collection:
        """Open or create the unlisted collection that is to replace `name`.

        It has another stamp or number format than `name`, and the metadata fields. A replacement
        that an earlier call began is resumed, and one of a third stamp or number format is dropped.
        A `vector_dtype` of None is that of the one begun, or float32. Only the holder of the write
        lock of `name` may call this.
        """
        ...

    def promote(self, name: str, stamp: Stamp) -> None:
        """Replace the collection by its replacement in one step, and drop the old one.

        `open(name)` always returns one of the two. A handle that was opened before the step raises
        StaleCollectionError after it.
        """
        ...

    def write_lock(self, name: str, listener: Listener = ignore) -> AbstractContextManager[None]:
        """Hold the write lock of a collection, which need not exist yet.

        A second writer reports through the listener that it waits, and raises StoreBusyError after
        the store's timeout. Readers need no lock and never wait.
        """
        ...

    def close(self) -> None: ...

    def __enter__(self) -> "VectorStore": ...

    def __exit__(self, *_: object) -> None: ...
