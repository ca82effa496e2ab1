"""What a store is: the protocol that the embedded store and every server adapter keep.

One contract suite (`tests/store_contract.py`) runs against all of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from imgsearch.errors import CollectionMismatchError
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
)

Vectors = NDArray[np.float32]

MAX_EXCLUDED_DIGESTS = 1000
"""How many contents one search can exclude: a filter of 64 kB, far below any store's limit."""

NO_FIELDS: Mapping[str, FieldType] = MappingProxyType({})

NO_WORDS = "it was made before text could be searched; a copy of it can be, and needs no encoding"


def check_stamp(collection: "Collection", stamp: Stamp) -> None:
    """Raises CollectionMismatchError if a collection's vectors are of another stamp."""
    if differences := stamp.differences(collection.stamp):
        raise CollectionMismatchError(
            f"collection {collection.name} has just been made by another writer, and its vectors "
            f"cannot be compared with the new ones ({'; '.join(differences)}): use the model that "
            "made it, or another collection"
        )


@dataclass(frozen=True, slots=True)
class StoredVector:
    """The vector of some content, float32 of shape (dimension,), and the picture's pixels."""

    vector: Vectors
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class ExactQuery:
    """One query of `Collection.search_exact`; the fields are the arguments of `search`."""

    vector: Vectors
    k: int
    where: Sequence[Condition] = ()
    exclude_digests: Sequence[str] = ()


class Collection(Protocol):
    """The records of one stamp. Vectors are float32 of shape (n, dimension), L2-normalised.

    Several threads may use one object, one of them writing. Methods raise StoreError, with what
    to do, when the store fails.
    """

    @property
    def name(self) -> str: ...

    @property
    def stamp(self) -> Stamp: ...

    @property
    def sites(self) -> Sites:
        """How the collection names the files of the machines that share it."""
        ...

    def join_site(self, listener: Listener = ignore) -> bool:
        """Say that this machine's files are in the collection; call it before writing records.

        The first site becomes the collection's home. Returns whether it became the home of one that
        already held records, so that nobody knows yet whose these are.
        """
        ...

    @property
    def fields(self) -> Mapping[str, FieldType]:
        """The metadata fields that records can have, as this object saw them last."""
        ...

    def refresh_fields(self) -> Mapping[str, FieldType]:
        """The same as they are now, whoever has added some."""
        ...

    def add_fields(self, fields: Mapping[str, FieldType]) -> None:
        """Add those that are new. Raises CollectionMismatchError if one has another type."""
        ...

    def lookup(self, ids: Sequence[str]) -> dict[str, ImageRecord]:
        """The records of those of the ids that have one."""
        ...

    def vectors_by_digest(self, digests: Sequence[str]) -> dict[str, StoredVector]:
        """Those of the SHA-256 digests that some record has, with its vector."""
        ...

    def vectors_by_id(self, ids: Sequence[str]) -> dict[str, Vectors]:
        """The vectors, each of shape (dimension,), of those of the ids that have a record."""
        ...

    def upsert(self, records: Sequence[ImageRecord], vectors: Vectors) -> dict[str, str]:
        """Write records, replacing those with the same id, whole or not at all each.

        The records' metadata fields must have been added before. Returns the ids that the store
        refused, with the reason.
        """
        ...

    def update_metadata(
        self, changes: Mapping[str, Changes], origins: Mapping[str, OriginChanges] | None = None
    ) -> None:
        """Set and remove fields of the records with these ids; ids without a record are ignored.

        Nothing else of a record is written, so that writers that change different fields at the
        same time do not undo each other. The fields must have been added before.
        """
        ...

    def delete(self, ids: Sequence[str]) -> int:
        """Delete records; returns how many there were."""
        ...

    def scan(self, *uri_prefixes: str) -> Iterator[list[ImageRecord]]:
        """The records whose URI begins with one of the prefixes, each once, in batches; or all.

        The store itself selects them. They are as they stood when the scan began where the store
        has versions; elsewhere a record that is there throughout comes exactly once.
        """
        ...

    def page(
        self, limit: int, after: str = "", where: Sequence[Condition] = ()
    ) -> list[ImageRecord]:
        """The first `limit` records by id that come after the id `after` and meet all conditions.

        Little more than these is read, also in a large collection. Raises UsageError if `after` is
        no id.
        """
        ...

    def count(self, where: Sequence[Condition] = ()) -> int:
        """How many records meet all conditions."""
        ...

    def count_by_digest(
        self, digests: Sequence[str], where: Sequence[Condition] = ()
    ) -> dict[str, int]:
        """How many records that meet all conditions have each of the SHA-256 digests."""
        ...

    def search(
        self,
        vector: Vectors,
        k: int,
        where: Sequence[Condition] = (),
        *,
        exact: bool = False,
        exclude_digests: Sequence[str] = (),
    ) -> list[Scored]:
        """The k records most similar to a vector of shape (dimension,), best first.

        Only records that meet all conditions; equal scores in the order of their URIs. `exact`
        compares with every vector, and uses no index that might miss one. The store leaves out
        records with one of the SHA-256 `exclude_digests`, at most `MAX_EXCLUDED_DIGESTS`.
        """
        ...

    def search_exact(self, queries: Sequence[ExactQuery]) -> list[list[Scored]]:
        """The answers of `search(exact=True)` to many queries, in one pass over the collection.

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
        """The k records whose metadata holds any of the words, the most relevant first.

        By BM25: the more of the words, the rarer they are, and the shorter the record's text, the
        better. The words are `imgsearch.text.query_words` of a text. Only records that meet all
        conditions; equal scores in the order of their URIs; `exclude_digests` as in `search`. A
        store that is spread over shards may compute rarity and length per shard. Raises
        CollectionMismatchError for a collection made by a version that kept no words.
        """
        ...

    def optimize(self, listener: Listener = ignore) -> None:
        """After writing: compact, and build or extend the indexes, if it is time to."""
        ...

    def info(self) -> CollectionInfo: ...


class VectorStore(Protocol):
    """A place for collections. Use as a context manager, or close it."""

    @property
    def url(self) -> str: ...

    def names(self) -> list[str]:
        """The names of the collections, sorted."""
        ...

    def create(
        self, name: str, stamp: Stamp, fields: Mapping[str, FieldType] = NO_FIELDS
    ) -> Collection:
        """Make an empty collection with these metadata fields, all at once.

        Raises StoreError if there is one of this name.
        """
        ...

    def open_or_create(
        self, name: str, stamp: Stamp, fields: Mapping[str, FieldType] = NO_FIELDS
    ) -> Collection:
        """Open a collection, or make it if there is none, also if others do so at the same time.

        Either way it then has the metadata fields. Raises CollectionMismatchError if the collection
        has another stamp, or one of the fields with another type.
        """
        ...

    def open(self, name: str) -> Collection:
        """Raises CollectionNotFoundError, naming those there are."""
        ...

    def drop(self, name: str) -> None:
        """Delete a collection and all its records. Raises CollectionNotFoundError."""
        ...

    def replacement(
        self, name: str, stamp: Stamp, fields: Mapping[str, FieldType] = NO_FIELDS
    ) -> Collection:
        """The collection of another stamp that is to take a collection's place.

        It has the metadata fields, and is not listed. A successor that an earlier call began is
        resumed; one of yet another stamp is dropped. Only the holder of the right to write to
        `name` may call this.
        """
        ...

    def promote(self, name: str, stamp: Stamp) -> None:
        """Let the successor take the collection's place, in one step, and drop the old one.

        Whoever opens `name` gets the old one before, the new one after, and never none. A handle
        that was opened before raises StaleCollectionError from then on, and must be opened anew.
        """
        ...

    def write_lock(self, name: str, listener: Listener = ignore) -> AbstractContextManager[None]:
        """Hold the right to write to a collection, which need not exist yet.

        A second writer is told so through the listener and waits; after a time that the store
        sets it gets StoreBusyError. Readers need no right and never wait.
        """
        ...

    def close(self) -> None: ...

    def __enter__(self) -> "VectorStore": ...

    def __exit__(self, *_: object) -> None: ...
