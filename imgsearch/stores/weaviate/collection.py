"""One collection: records and vectors in a class of Weaviate."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from imgsearch.errors import CollectionMismatchError, Remedy, StoreError
from imgsearch.events import Listener, Note, ignore
from imgsearch.metadata.changes import Changes, OriginChanges, changed, changed_origins
from imgsearch.metadata.origins import to_text
from imgsearch.sites import Sites
from imgsearch.stores import id_ranges
from imgsearch.stores.base import (
    NO_WORDS,
    StoredVector,
    VectorQuery,
    Vectors,
    batched,
    search_each,
)
from imgsearch.stores.comparing import Page, clip, compare, rank
from imgsearch.stores.weaviate import schema as schemas
from imgsearch.stores.weaviate import status, values
from imgsearch.stores.weaviate.client import config, exceptions, query
from imgsearch.stores.weaviate.connection import Server
from imgsearch.stores.weaviate.patch import patch
from imgsearch.stores.weaviate.properties import add_properties
from imgsearch.stores.weaviate.push import push
from imgsearch.stores.weaviate.reader import MOST_RESULTS, Reader
from imgsearch.stores.weaviate.schema import VECTOR, WORDS, Schema
from imgsearch.text import record_words
from imgsearch.types import (
    CollectionInfo,
    Condition,
    FieldType,
    ImageRecord,
    Scored,
    Stamp,
    VectorDtype,
)
from imgsearch.uris import record_id

_IDS_PER_REQUEST = 1000
_FILE_STAT = ["uri", "size", "mtime_ns"]
_VECTORS_PER_REQUEST = 500
# More make a server of two cores no quicker.
_CONCURRENT_SEARCHES = 8
# How many copies of images a request for vectors reads at most.
_COPIES_PER_REQUEST = 50
# Up to so many copies of an image, reading them takes no longer than a request for each image.
_COUNTED_HERE = 20
# Attempts to add properties while other writers take the same names.
_NAMING_TRIES = 3
# Of more equally relevant records than so many, the server chooses, which reads no others.
_EQUAL_MATCHES = 1000
# Attempts to write words and origins while other writers change the same record.
_SETTLING_ROUNDS = 20
# How long a search uses attachments without asking for newer ones.
_ATTACHMENT_SECONDS = 60.0
_ATTACHING_TRIES = 5


class WeaviateCollection:
    """One class of a server. Knows the metadata fields as of the last request for them."""

    def __init__(self, server: Server, name: str, class_name: str) -> None:
        self._server = server
        self._name = name
        self.class_name = class_name
        self._reader = Reader(server, name, class_name)
        found = self._configuration()
        self._stamp = schemas.read_stamp(server.address.url, name, found.description)
        schemas.check_class(server.address.url, name, found, server.address)
        self._schema = schemas.read_schema(found.properties)
        self._attachments = schemas.read_attachments(found.description)
        self._read_at = time.monotonic()
        self._written = False

    @property
    def name(self) -> str:
        return self._name

    @property
    def stamp(self) -> Stamp:
        return self._stamp

    @property
    def vector_dtype(self) -> VectorDtype:
        return "float32"

    @property
    def sites(self) -> Sites:
        return Sites(self._server.site, self._schema.home, self._schema.sites)

    def join_site(self, listener: Listener = ignore) -> bool:
        own, url = self._server.site, self._server.address.url
        if self._schema.home is None:
            self._refresh()
        unclaimed = self._schema.home is None
        if unclaimed:
            self._add_properties([schemas.home_property(own)])
        if self._schema.home == own:
            if held := self.count() if unclaimed else 0:
                listener(
                    Note(
                        f"{url}: the {held:,} images of collection {self.name} are of site {own} "
                        "from now on. If other machines have written some of them, ingest there "
                        "again before anything is pruned here"
                    )
                )
            return held > 0
        if own not in self._schema.sites:
            self._add_properties([schemas.site_property(own)])
            listener(
                Note(
                    f"{url}: collection {self.name} is of site {self._schema.home}, and this "
                    f"machine is site {own}: its files are kept apart. If both see the same files "
                    f"at the same paths, set IMGSEARCH_SITE={self._schema.home} here instead"
                )
            )
        return False

    @property
    def fields(self) -> Mapping[str, FieldType]:
        return self._schema.fields

    def refresh_fields(self) -> Mapping[str, FieldType]:
        return self._refresh().fields

    def _configuration(self) -> Any:
        return self._reader.call(self._reader.handle.config.get)

    def _refresh(self) -> Schema:
        found = self._configuration()
        self._schema = schemas.read_schema(found.properties)
        self._attachments = schemas.read_attachments(found.description)
        self._read_at = time.monotonic()
        return self._schema

    def add_fields(self, fields: Mapping[str, FieldType]) -> None:
        if any(name not in self.fields for name in fields):
            self._refresh()
        self._check_types(fields)

        def missing() -> list[config.Property]:
            new = {name: kind for name, kind in fields.items() if name not in self.fields}
            return schemas.field_properties(new, self._schema.names)

        self._add_missing(missing)
        self._check_types(fields)

    def _check_types(self, fields: Mapping[str, FieldType]) -> None:
        for name, kind in fields.items():
            if kind != self.fields.get(name, kind):
                raise CollectionMismatchError(
                    f"collection {self.name} has {name!r} as {self.fields[name]}, not as {kind}"
                )

    def _prepare(self, metadata: Iterable[Changes], *, with_origins: bool) -> None:
        """Add the properties that these values need; others may have added fields since."""
        metadata = list(metadata)
        if {field for each in metadata for field in each} - self.fields.keys():
            self._refresh()
        self._add_twins({f for each in metadata for f in values.metadata_with_twins(each)})
        if with_origins and self._schema.origins is None:
            self._add_properties([schemas.origins_property(self._schema.names)])

    def _add_twins(self, fields: set[str]) -> None:
        if fields - set(self._schema.exact):
            self._refresh()
        self._add_missing(
            lambda: schemas.exact_properties(sorted(fields - set(self._schema.exact)), self._schema)
        )

    def _add_missing(self, missing: Callable[[], list[config.Property]]) -> None:
        """Add missing properties, and read the schema again, until none is missing."""
        for _ in range(_NAMING_TRIES):
            if not (new := missing()):
                return
            # Another writer may take one of the names in between, for another field.
            self._add_properties(new)
        if new := missing():
            names = ", ".join(each.name for each in new[:3])
            raise StoreError(f"collection {self.name}: properties cannot be added ({names})")

    def _add_properties(self, new: Iterable[config.Property]) -> None:
        action = f"collection {self.name} cannot be written to"
        add_properties(self._server, action, self.class_name, new)
        self._refresh()

    def lookup(self, ids: Sequence[str]) -> dict[str, ImageRecord]:
        found: dict[str, ImageRecord] = {}
        for part in batched(ids, _IDS_PER_REQUEST):
            for each in self._reader.fetch(query.Filter.by_id().contains_any(part), len(part)):
                record = self._record(each)
                found[record.id] = record
        return found

    def file_stats(self, uris: Sequence[str]) -> dict[str, tuple[int, int]]:
        stats: dict[str, tuple[int, int]] = {}
        for part in batched(list({record_id(uri) for uri in uris}), _IDS_PER_REQUEST):
            condition = query.Filter.by_id().contains_any(part)
            for each in self._reader.fetch(condition, len(part), only=_FILE_STAT):
                uri, size, mtime_ns = values.to_file_stat(each)
                stats[uri] = size, mtime_ns
        return stats

    def vectors_by_id(self, ids: Sequence[str]) -> dict[str, Vectors]:
        found: dict[str, Vectors] = {}
        for part in batched(ids, _VECTORS_PER_REQUEST):
            condition = query.Filter.by_id().contains_any(part)
            for each in self._reader.fetch(condition, len(part), vectors=True):
                found[str(each.uuid)] = _vector(each)
        return found

    def vectors_by_digest(self, digests: Sequence[str]) -> dict[str, StoredVector]:
        found: dict[str, StoredVector] = {}
        digest = query.Filter.by_property("sha256")

        def keep(answer: Iterable[Any]) -> None:
            for each in answer:
                record = self._record(each)
                found[record.sha256] = StoredVector(_vector(each), record.width, record.height)

        for part in batched(sorted(set(digests)), _VECTORS_PER_REQUEST):
            limit = len(part) + _COPIES_PER_REQUEST
            answer = self._reader.fetch(digest.contains_any(part), limit, vectors=True)
            keep(answer)
            if len(answer) == limit:
                # Copies of some images, any number of them, may have taken the place of others.
                missing = [each for each in part if each not in found]
                alone = [
                    partial(self._reader.fetch, digest.equal(each), 1, vectors=True)
                    for each in missing
                ]
                keep(chain.from_iterable(self._reader.in_parallel(alone)))
        return found

    def _record(self, found: Any) -> ImageRecord:
        schema = self._schema
        # The properties of sites are there without a value.
        have = {name for name, value in found.properties.items() if value is not None}
        if have - schemas.BASE_NAMES - schema.names:
            schema = self._refresh()
        return values.to_record(found, schema, self.sites)

    def upsert(self, records: Sequence[ImageRecord], vectors: Vectors) -> dict[str, str]:
        if not records:
            return {}
        self._prepare(
            (each.metadata for each in records),
            with_origins=any(each.origins is not None for each in records),
        )
        self._written = True
        return push(self._server, self.class_name, self._schema, records, vectors)

    def update_metadata(
        self, changes: Mapping[str, Changes], origins: Mapping[str, OriginChanges] | None = None
    ) -> None:
        """Update by PATCH, which the server applies to an object in one step.

        Words and origins depend on several fields. They are read after the change, and written
        again until they agree with what other writers have changed meanwhile.
        """
        set_by_tables = (table for each in (origins or {}).values() for table in each.values())
        self._prepare(changes.values(), with_origins=any(set_by_tables))
        for part in batched(list(changes), _IDS_PER_REQUEST):
            given = {key: values.to_properties(changes[key], self._schema) for key in part}
            for _ in range(_SETTLING_ROUNDS):
                patches = self._patches(part, changes, origins or {}, given)
                patch(self._server, self._reader.handle, self.class_name, patches)
                if not patches:
                    break
                given = {}

    def _patches(
        self,
        ids: Sequence[str],
        changes: Mapping[str, Changes],
        origins: Mapping[str, OriginChanges],
        given: Mapping[str, dict[str, Any]],
    ) -> dict[str, dict[str, Any]]:
        """Return the properties to write by record: those `given`, and those derived from them."""
        patches: dict[str, dict[str, Any]] = {}
        for found in self._reader.fetch(query.Filter.by_id().contains_any(ids), len(ids)):
            key, record, schema = str(found.uuid), self._record(found), self._schema
            properties = dict(given.get(key, {}))
            metadata = changed(record.metadata, changes[key]) if given else record.metadata
            # Other writers own the origin of a field that they have set since.
            own = {
                field: table
                for field, table in origins.get(key, {}).items()
                if metadata.get(field) == changes[key].get(field, metadata.get(field))
            }
            derived: dict[str, str | None] = {}
            if schema.has_words:
                derived[WORDS] = record_words(metadata) or None
            if schema.origins:
                derived[schema.origins] = to_text(changed_origins(record.origins, own))
            properties |= {
                name: text
                for name, text in derived.items()
                if (found.properties.get(name) or None) != text
            }
            if properties:
                patches[key] = properties
        return patches

    def delete(self, ids: Sequence[str]) -> int:
        deleted = 0
        for part in batched(ids, _IDS_PER_REQUEST):
            # The server's own count includes records that only a lagging replica still has.
            chosen = query.Filter.by_id().contains_any(part)
            there = len(self._reader.fetch(chosen, len(part), only=[]))
            answer = self._server.call(
                f"collection {self.name} cannot be written to",
                lambda chosen=chosen: self._reader.handle.data.delete_many(where=chosen),  # type: ignore[misc]
            )
            deleted += there
            if answer.failed:
                raise StoreError(
                    f"collection {self.name}: {answer.failed:,} of {len(part):,} records could "
                    "not be removed; try again"
                )
        return deleted

    def scan(
        self, *uri_prefixes: str, where: Sequence[Condition] = ()
    ) -> Iterator[list[ImageRecord]]:
        beginnings = uri_prefixes or ("",)
        for page in self._reader.with_prefix(
            beginnings,
            has_folders=self._schema.has_folders,
            within=self._filter(where) if where else None,
        ):
            records = [self._record(each) for each in page]
            if chosen := [
                each
                for each in records
                if each.uri.startswith(beginnings)
                and all(condition.holds(each.metadata) for condition in where)
            ]:
                yield chosen

    def uris(self, *uri_prefixes: str) -> Iterator[list[str]]:
        beginnings = uri_prefixes or ("",)
        for page in self._reader.with_prefix(
            beginnings, has_folders=self._schema.has_folders, only=["uri"]
        ):
            uris = [str(each.properties["uri"]) for each in page if each.properties.get("uri")]
            if chosen := [each for each in uris if each.startswith(beginnings)]:
                yield chosen

    def page(
        self, limit: int, after: str = "", where: Sequence[Condition] = ()
    ) -> list[ImageRecord]:
        after = after and id_ranges.checked(after)
        condition = self._filter(where) if where else None
        return [self._record(each) for each in self._reader.first(limit, after, condition)]

    def count(self, where: Sequence[Condition] = ()) -> int:
        return self._reader.count(self._filter(where))

    def _filter(self, where: Sequence[Condition], *more: Any) -> Any:
        unknown = any(each.field not in self.fields for each in where)
        return values.to_filter(where, self._refresh() if unknown else self._schema, *more)

    def count_by_digest(
        self, digests: Sequence[str], where: Sequence[Condition] = ()
    ) -> dict[str, int]:
        counts: dict[str, int] = {}
        digest = query.Filter.by_property("sha256")
        for part in batched(sorted(set(digests)), _IDS_PER_REQUEST):
            condition = self._filter(where, digest.contains_any(part))
            limit = min(_COUNTED_HERE * len(part), MOST_RESULTS)
            answer = self._reader.fetch(condition, limit, only=["sha256"])
            if len(answer) < limit:
                counts |= Counter(str(each.properties["sha256"]) for each in answer)
                continue
            one_each = [
                partial(self._reader.count, self._filter(where, digest.equal(each)))
                for each in part
            ]
            numbers = self._reader.in_parallel(one_each)
            counts |= {each: number for each, number in zip(part, numbers, strict=True) if number}
        return counts

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
        if k < 1:
            return []
        if exact or k > MOST_RESULTS:
            return self.search_exact([VectorQuery(vector, k, where, exclude_digests, share)])[0]
        condition = self._filter(where, *_excluding(exclude_digests), *_within(share))
        # The server computes distances from the whole vectors, so they are exact to 1e-6.
        answer = self._reader.call(
            lambda: self._reader.handle.query.near_vector(
                vector.tolist(),
                limit=k,
                target_vector=VECTOR,
                filters=condition,
                return_metadata=query.MetadataQuery(distance=True),
            )
        )
        return sorted(
            (
                Scored(self._record(each), clip(1 - (each.metadata.distance or 0.0)))
                for each in answer.objects
            ),
            key=rank,
        )

    def search_many(self, queries: Sequence[VectorQuery]) -> list[list[Scored]]:
        """Search for several at a time. The server answers each, by its index."""
        return search_each(self, queries, _CONCURRENT_SEARCHES)

    def search_exact(self, queries: Sequence[VectorQuery]) -> list[list[Scored]]:
        """Compare on the client: a server's search always uses its index."""
        return compare((self._compared(page) for page in self._reader.pages(vectors=True)), queries)

    def _compared(self, page: Sequence[Any]) -> Page:
        return Page(np.stack([_vector(each) for each in page]), lambda row: self._record(page[row]))

    def search_text(
        self,
        words: Sequence[str],
        k: int,
        where: Sequence[Condition] = (),
        *,
        exclude_digests: Sequence[str] = (),
    ) -> list[Scored]:
        """Search by BM25; returns at most 10,000 records.

        Of more than 1,000 equally relevant records, or 2k, the server chooses.
        """
        if not self._schema.has_words:
            raise CollectionMismatchError(f"collection {self.name}: {NO_WORDS}", Remedy.COPY)
        if k < 1 or not words:
            return []
        condition, text = self._filter(where, *_excluding(exclude_digests)), " ".join(words)
        k = min(k, MOST_RESULTS)
        found = self._by_words(text, condition, min(k + 1, MOST_RESULTS))
        if len(found) > k and found[k][:1] == found[k - 1][:1]:
            # Many records may have the same words: which of them come first, their URIs decide.
            limit = min(max(_EQUAL_MATCHES, 2 * k), MOST_RESULTS)
            found = self._by_words(text, condition, limit)
        records = self.lookup([each for _, _, each in found[:k]])
        return [Scored(records[each], -score) for score, _, each in found[:k] if each in records]

    def _by_words(self, words: str, condition: Any, limit: int) -> list[tuple[float, str, str]]:
        """Return negated scores, URIs and ids of records, sorted."""
        answer = self._reader.call(
            lambda: self._reader.handle.query.bm25(
                query=words,
                query_properties=[WORDS],
                limit=limit,
                filters=condition,
                return_properties=["uri"],
                return_metadata=query.MetadataQuery(score=True),
            )
        )
        return sorted(
            (-(each.metadata.score or 0.0), str(each.properties["uri"]), str(each.uuid))
            for each in answer.objects
        )

    def attachment(self, name: str) -> str | None:
        if time.monotonic() - self._read_at > _ATTACHMENT_SECONDS:
            self._refresh()
        return self._attachments.get(name)

    def attach(self, name: str, text: str | None) -> None:
        """Write it to the class's description, with the rest of the class's configuration.

        The server rejects that if another writer has added a property in between.
        """
        handle = self._reader.handle

        def write() -> None:
            for attempt in range(_ATTACHING_TRIES):
                found = handle.config.get().description
                try:
                    handle.config.update(description=schemas.with_attachment(found, name, text))
                    return
                except exceptions.UnexpectedStatusCodeError:
                    if attempt == _ATTACHING_TRIES - 1:
                        raise

        self._server.call(f"collection {self.name} cannot be written to", write)
        self._refresh()

    def optimize(self, listener: Listener = ignore) -> None:
        if self._written:
            status.wait_until_indexed(self._server, self._reader, self.class_name, listener)
            self._written = False

    def info(self) -> CollectionInfo:
        images = self.count()
        details = status.details(
            self._server, self._reader, self.class_name, self._schema, self.stamp, images
        )
        return CollectionInfo(
            self.name, self.stamp, images, dict(self.refresh_fields()), None, details
        )


def _vector(found: Any) -> Vectors:
    return np.asarray(found.vector[VECTOR], dtype=np.float32)


def _excluding(digests: Sequence[str]) -> list[Any]:
    if not digests:
        return []
    return [query.Filter.not_(query.Filter.by_property("sha256").contains_any(list(digests)))]


def _within(share: float) -> list[Any]:
    last = id_ranges.sample(share)
    return [query.Filter.by_property("_id").less_or_equal(last)] if last else []
