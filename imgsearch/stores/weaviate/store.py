"""The store itself: collections on a Weaviate."""

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from imgsearch.errors import CollectionMismatchError, CollectionNotFoundError, Remedy, StoreError
from imgsearch.events import Listener, Note, Stage, ignore
from imgsearch.metadata.changes import Changes, OriginChanges, changed, changed_origins
from imgsearch.metadata.origins import to_text
from imgsearch.sites import Sites
from imgsearch.stores import id_ranges
from imgsearch.stores.base import (
    NO_FIELDS,
    NO_WORDS,
    ExactQuery,
    StoredVector,
    Vectors,
    check_stamp,
)
from imgsearch.stores.comparing import Page, compare, rank
from imgsearch.stores.weaviate import repair, values
from imgsearch.stores.weaviate import schema as schemas
from imgsearch.stores.weaviate.address import parse
from imgsearch.stores.weaviate.client import aggregate, config, exceptions, query
from imgsearch.stores.weaviate.connect import Server
from imgsearch.stores.weaviate.patch import patch
from imgsearch.stores.weaviate.properties import add_properties
from imgsearch.stores.weaviate.push import push
from imgsearch.stores.weaviate.schema import VECTOR, WORDS, Schema
from imgsearch.text import record_words
from imgsearch.types import (
    CollectionInfo,
    Condition,
    FieldType,
    ImageRecord,
    Scored,
    Stamp,
)

T = TypeVar("T")

# The most that a server gives for one search, unless it is set otherwise (QUERY_MAXIMUM_RESULTS).
_MOST_RESULTS = 10_000
_IDS_PER_REQUEST = 1000
_VECTORS_PER_REQUEST = 500
_PAGE = 1000
# To read a part by a filter costs a look at the whole index of URIs for each page; where it is
# more than this part of the collection, reading all is faster.
_FILTER_WORTH = 10
_MOST_PREFIXES = 100
# How often properties get other names because another writer has taken the first.
_NAMING_TRIES = 3
# How often words are written again because another writer has changed the record meanwhile.
_SETTLING_ROUNDS = 20
# An index that is built in the background must look done so often, so many seconds apart.
_STEADY_LOOKS = 3
_LOOK_SECONDS = 0.3
# For the estimate of memory: two lists of 32 links a vector, 8 bytes each; and Go's garbage
# collector lets memory double.
_LINK_BYTES = 2 * 32 * 8
_HEADROOM = 2


class WeaviateStore:
    """Collections on one Weaviate, a cluster, or Weaviate Cloud.

    There is no lock between writers, and none is needed: ids are made from URIs, so that two runs
    over the same images write the same objects, each object is written whole, and changes of
    metadata write the fields that they are about and no others.
    """

    def __init__(self, url: str, timeout: float, listener: Listener = ignore) -> None:
        """Connect. Raises UsageError for the URL, StoreError if the server is not reached.

        `timeout` is how many seconds to wait for a server that goes away later on.
        """
        self._server = Server(parse(url), timeout, listener)

    @property
    def url(self) -> str:
        return self._server.address.url

    def __enter__(self) -> "WeaviateStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._server.close()

    def names(self) -> list[str]:
        return sorted(self._classes())

    def _classes(self) -> dict[str, str]:
        """The class of each collection."""
        client = self._server.client
        aliases = self._call("collections cannot be listed", client.alias.list_all)
        there = self._call("collections cannot be listed", client.collections.list_all)
        return {
            name: each.collection
            for each in aliases.values()
            if (name := schemas.name_of(each.alias)) and each.collection in there
        }

    def _call(self, problem: str, request: Callable[[], T]) -> T:
        return self._server.call(f"{self.url}: {problem}", request)

    def create(
        self, name: str, stamp: Stamp, fields: Mapping[str, FieldType] = NO_FIELDS
    ) -> "WeaviateCollection":
        if name in self.names():
            raise StoreError(f"{self.url}: there is a collection {name} already")
        return self.open_or_create(name, stamp, fields)

    def open_or_create(
        self, name: str, stamp: Stamp, fields: Mapping[str, FieldType] = NO_FIELDS
    ) -> "WeaviateCollection":
        """As the protocol says. Of several who make one at the same time, one alias counts."""
        if name not in self.names():
            # Listed before the alias exists: what a --replace begins later on is not among them.
            left_behind = self._classes_of(name)
            class_name = self._create_class(name, stamp, self._server.site, fields=fields)
            if self._claim(name, class_name):
                self._drop_classes(name, left_behind - {class_name})
        collection = self.open(name)
        check_stamp(collection, stamp)
        collection.add_fields(fields)
        return collection

    def _classes_of(self, name: str) -> set[str]:
        """All classes of a collection: its own, and leftovers of interrupted runs."""
        client, prefix = self._server.client, schemas.class_prefix(name)
        there = self._call("collections cannot be listed", client.collections.list_all)
        return {each for each in there if each.startswith(prefix)}

    def _create_class(
        self,
        name: str,
        stamp: Stamp,
        home: str | None,
        sites: Iterable[str] = (),
        fields: Mapping[str, FieldType] = NO_FIELDS,
    ) -> str:
        """Make an empty class, or take the one that another writer is just making."""
        class_name = schemas.class_of(name, stamp)
        options = schemas.class_options(name, stamp, self._server.address, home, sites, fields)
        client = self._server.client

        def create() -> None:
            try:
                client.collections.create(class_name, **options)
            except exceptions.UnexpectedStatusCodeError as error:
                # Another writer, or an answer that was lost on its way to us.
                if "already exists" not in str(error):
                    raise

        self._call(f"collection {name} cannot be created", create)
        return class_name

    def _claim(self, name: str, class_name: str) -> bool:
        """Let the collection's name mean a class, if it means none; whether it now does."""
        aliases, alias = self._server.client.alias, schemas.alias_of(name)

        def claim() -> bool:
            try:
                aliases.create(alias_name=alias, target_collection=class_name)
            except exceptions.UnexpectedStatusCodeError:
                there = aliases.get(alias_name=alias)
                if there is None:
                    raise
                if self._server.client.collections.exists(there.collection):
                    return bool(there.collection == class_name)
                # Its class was dropped by a run that ended before it removed the alias.
                aliases.update(alias_name=alias, new_target_collection=class_name)
            return True

        return self._call(f"collection {name} cannot be named", claim)

    def _point(self, name: str, class_name: str) -> None:
        """Let the collection's name mean a class: one step, seen by all clients at once."""
        aliases, alias = self._server.client.alias, schemas.alias_of(name)

        def point() -> None:
            if aliases.exists(alias_name=alias):
                aliases.update(alias_name=alias, new_target_collection=class_name)
            else:
                aliases.create(alias_name=alias, target_collection=class_name)

        self._call(f"collection {name} cannot be named", point)

    def open(self, name: str) -> "WeaviateCollection":
        class_name = self._class_named(name)
        try:
            return WeaviateCollection(self._server, name, class_name)
        except StoreError:
            # Another client may have dropped or replaced it between the two requests.
            now = self._class_named(name)
            if now == class_name:
                raise
            return WeaviateCollection(self._server, name, now)

    def _class_named(self, name: str) -> str:
        classes = self._classes()
        if name not in classes:
            known = ", ".join(sorted(classes)) or "none"
            raise CollectionNotFoundError(
                f"{self.url}: no collection {name} here (there is {known})", Remedy.INGEST
            )
        return classes[name]

    def drop(self, name: str) -> None:
        current = self.open(name).class_name
        # Until its own class is dropped, a collection whose removal was broken off is still listed,
        # and nothing that a --replace left behind can come back with a new one of the name.
        self._drop_classes(name, self._classes_of(name) - {current})
        self._drop_classes(name, [current])
        alias = schemas.alias_of(name)
        self._call(
            f"collection {name} cannot be removed",
            lambda: self._server.client.alias.delete(alias_name=alias),
        )

    def _drop_classes(self, name: str, doomed: Iterable[str]) -> None:
        for each in sorted(doomed):
            self._call(
                f"collection {name} cannot be removed",
                lambda each=each: self._server.client.collections.delete(each),  # type: ignore[misc]
            )

    def replacement(
        self, name: str, stamp: Stamp, fields: Mapping[str, FieldType] = NO_FIELDS
    ) -> "WeaviateCollection":
        class_name = schemas.class_of(name, stamp)
        there = self._classes_of(name)
        self._drop_classes(name, there - {self._classes().get(name, ""), class_name})
        if class_name not in there:
            current = self.open(name).sites
            self._create_class(name, stamp, current.home, current.known, fields)
        collection = WeaviateCollection(self._server, name, class_name)
        collection.add_fields(fields)
        return collection

    def promote(self, name: str, stamp: Stamp) -> None:
        class_name = self.replacement(name, stamp).class_name
        self._point(name, class_name)
        self._drop_classes(name, self._classes_of(name) - {class_name})

    @contextlib.contextmanager
    def write_lock(self, name: str, listener: Listener = ignore) -> Iterator[None]:  # noqa: ARG002
        """No lock: see the class."""
        repair.settle(self._server, schemas.class_prefix(name))
        yield


class WeaviateCollection:
    """One class. A search costs one request; metadata fields are known from the last look."""

    def __init__(self, server: Server, name: str, class_name: str) -> None:
        self._server = server
        self._name = name
        self.class_name = class_name
        handle = server.client.collections.use(class_name)
        if level := server.address.consistency:
            handle = handle.with_consistency_level(config.ConsistencyLevel(level))
        self._handle = handle
        found = self._configuration()
        self._stamp = schemas.read_stamp(server.address.url, name, found.description)
        schemas.check_class(server.address.url, name, found, server.address)
        self._schema = schemas.read_schema(found.properties)
        self._written = False

    @property
    def name(self) -> str:
        return self._name

    @property
    def stamp(self) -> Stamp:
        return self._stamp

    @property
    def sites(self) -> Sites:
        return Sites(self._server.site, self._schema.home, self._schema.sites)

    def join_site(self, listener: Listener = ignore) -> bool:
        own, url = self._server.site, self._server.address.url
        if self._schema.home is None:
            self._look_again()
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
        return self._look_again().fields

    def _read(self, request: Callable[[], T]) -> T:
        return self._server.call(f"collection {self.name} cannot be read", request)

    def _write(self, request: Callable[[], T]) -> T:
        return self._server.call(f"collection {self.name} cannot be written to", request)

    def _configuration(self) -> Any:
        return self._read(self._handle.config.get)

    def _look_again(self) -> Schema:
        self._schema = schemas.read_schema(self._configuration().properties)
        return self._schema

    def add_fields(self, fields: Mapping[str, FieldType]) -> None:
        if any(name not in self.fields for name in fields):
            self._look_again()
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
        """Have a property for whatever is to be written; others may have added fields since."""
        metadata = list(metadata)
        if {field for each in metadata for field in each} - self.fields.keys():
            self._look_again()
        self._add_twins({f for each in metadata for f in values.metadata_with_twins(each)})
        if with_origins and self._schema.origins is None:
            self._add_properties([schemas.origins_property(self._schema.names)])

    def _add_twins(self, fields: set[str]) -> None:
        if fields - set(self._schema.exact):
            self._look_again()
        self._add_missing(
            lambda: schemas.exact_properties(sorted(fields - set(self._schema.exact)), self._schema)
        )

    def _add_missing(self, missing: Callable[[], list[config.Property]]) -> None:
        """Add the properties that are missing by the schema as last seen, until none is."""
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
        self._look_again()

    def lookup(self, ids: Sequence[str]) -> dict[str, ImageRecord]:
        found: dict[str, ImageRecord] = {}
        for part in _parts(ids, _IDS_PER_REQUEST):
            for each in self._fetch(query.Filter.by_id().contains_any(part), len(part)):
                record = self._record(each)
                found[record.id] = record
        return found

    def vectors_by_id(self, ids: Sequence[str]) -> dict[str, Vectors]:
        found: dict[str, Vectors] = {}
        for part in _parts(ids, _VECTORS_PER_REQUEST):
            condition = query.Filter.by_id().contains_any(part)
            for each in self._fetch(condition, len(part), vectors=True):
                found[str(each.uuid)] = _vector(each)
        return found

    def vectors_by_digest(self, digests: Sequence[str]) -> dict[str, StoredVector]:
        found: dict[str, StoredVector] = {}
        for part in _parts(digests, _VECTORS_PER_REQUEST):
            missing = set(part)
            while missing:
                # A picture may have any number of copies: what they leave no room for comes next.
                limit = len(missing) + 50
                condition = query.Filter.by_property("sha256").contains_any(sorted(missing))
                answer = self._fetch(condition, limit, vectors=True)
                for each in answer:
                    record = self._record(each)
                    found[record.sha256] = StoredVector(_vector(each), record.width, record.height)
                missing -= set(found)
                if len(answer) < limit:
                    break
        return found

    def _fetch(self, condition: Any, limit: int, *, vectors: bool = False) -> Sequence[Any]:
        answer = self._read(
            lambda: self._handle.query.fetch_objects(
                filters=condition, limit=limit, include_vector=vectors
            )
        )
        return list(answer.objects)

    def _record(self, found: Any) -> ImageRecord:
        schema = self._schema
        if not schema.names.issuperset(found.properties.keys() - schemas.BASE_NAMES):
            schema = self._look_again()
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
        """As the protocol says: by PATCH, which the server applies to an object in one step.

        Words and origins are each of several fields. They are read again after the change, and
        written again until they agree with what others have changed meanwhile.
        """
        set_by_tables = (table for each in (origins or {}).values() for table in each.values())
        self._prepare(changes.values(), with_origins=any(set_by_tables))
        for part in _parts(list(changes), _IDS_PER_REQUEST):
            given = {key: values.to_properties(changes[key], self._schema) for key in part}
            for _ in range(_SETTLING_ROUNDS):
                patches = self._patches(part, changes, origins or {}, given)
                patch(self._server, self._handle, self.class_name, patches)
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
        """The properties to write of each record: those `given`, and what follows from them."""
        patches: dict[str, dict[str, Any]] = {}
        for found in self._fetch(query.Filter.by_id().contains_any(ids), len(ids)):
            key, record, schema = str(found.uuid), self._record(found), self._schema
            properties = dict(given.get(key, {}))
            metadata = changed(record.metadata, changes[key]) if given else record.metadata
            # Of a field that others have set since, they have said where it comes from.
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
        for part in _parts(ids, _IDS_PER_REQUEST):
            # The server's own count takes in what only a replica that lags behind still has.
            there = len(self.lookup(part))
            answer = self._write(
                lambda part=part: self._handle.data.delete_many(  # type: ignore[misc]
                    where=query.Filter.by_id().contains_any(part)
                )
            )
            deleted += there
            if answer.failed:
                raise StoreError(
                    f"collection {self.name}: {answer.failed:,} of {len(part):,} records could "
                    "not be removed; try again"
                )
        return deleted

    def scan(self, *uri_prefixes: str) -> Iterator[list[ImageRecord]]:
        beginnings = uri_prefixes or ("",)
        for page in self._beginning_with(beginnings):
            records = [self._record(each) for each in page]
            if chosen := [each for each in records if each.uri.startswith(beginnings)]:
                yield chosen

    def _beginning_with(self, prefixes: tuple[str, ...]) -> Iterator[Sequence[Any]]:
        """Objects whose URI begins with one of the prefixes, and perhaps a few others.

        A wildcard in a prefix cannot be escaped, and matches more than itself.
        """
        if "" in prefixes or len(prefixes) > _MOST_PREFIXES:
            yield from self._pages(vectors=False)
            return
        uri = query.Filter.by_property("uri")
        condition = query.Filter.any_of([uri.like(f"{each}*") for each in prefixes])
        matching = self._count(condition)
        if matching * _FILTER_WORTH > self.count():
            yield from self._pages(vectors=False)
            return
        after = ""
        while matching and (page := self._range(_PAGE, after, condition, matching)):
            yield page
            after = str(page[-1].uuid)

    def page(
        self, limit: int, after: str = "", where: Sequence[Condition] = ()
    ) -> list[ImageRecord]:
        after = after and id_ranges.checked(after)
        condition = self._filter(where)
        matching = self._count(condition) if where else 0
        records: list[ImageRecord] = []
        while (missing := min(limit - len(records), _PAGE)) > 0:
            page = (
                self._range(missing, after, condition, matching)
                if where
                else self._behind(after, missing)
            )
            records += [self._record(each) for each in page]
            if len(page) < missing:
                break
            after = str(page[-1].uuid)
        return records

    def _range(self, limit: int, after: str, condition: Any, matching: int) -> list[Any]:
        """The first `limit` objects by id, of those behind an id that meet a condition.

        Weaviate has no cursor under a filter, and sorts only by reading all that match; but a range
        of ids is a filter like others.
        """
        found: list[Any] = []
        share = id_ranges.share(limit, matching)
        most = 3 * limit + 100  # far more than the range should hold
        while len(found) < limit:
            end = id_ranges.reach(after, share)
            by_id = query.Filter.by_property("_id")
            tests = [condition]
            tests += [by_id.greater_than(after)] if after else []
            tests += [by_id.less_or_equal(end)] if end else []
            answer = self._fetch(query.Filter.all_of(tests), most)
            if len(answer) >= most:
                share /= 4
                continue
            found += sorted(answer, key=lambda each: str(each.uuid))
            if end is None:
                break
            after, share = end, share * 4
        return found[:limit]

    def _pages(self, *, vectors: bool) -> Iterator[Sequence[Any]]:
        """All objects in the order of their ids, which neither writing nor deleting disturbs.

        Weaviate has a cursor for everything, but none for a filter.
        """
        last = ""
        while page := self._behind(last, _PAGE, vectors=vectors):
            yield page
            last = str(page[-1].uuid)

    def _behind(self, after: str, limit: int, *, vectors: bool = False) -> Sequence[Any]:
        """The first objects by id of those behind an id."""
        answer = self._read(
            lambda: self._handle.query.fetch_objects(
                limit=limit, after=after or None, include_vector=vectors
            )
        )
        return list(answer.objects)

    def count(self, where: Sequence[Condition] = ()) -> int:
        return self._count(self._filter(where))

    def _count(self, condition: Any) -> int:
        answer = self._read(
            lambda: self._handle.aggregate.over_all(total_count=True, filters=condition)
        )
        return int(answer.total_count or 0)

    def _filter(self, where: Sequence[Condition], *more: Any) -> Any:
        unknown = any(each.field not in self.fields for each in where)
        return values.to_filter(where, self._look_again() if unknown else self._schema, *more)

    def count_by_digest(
        self, digests: Sequence[str], where: Sequence[Condition] = ()
    ) -> dict[str, int]:
        counts: dict[str, int] = {}
        for part in _parts(sorted(set(digests)), _IDS_PER_REQUEST):
            condition = self._filter(where, query.Filter.by_property("sha256").contains_any(part))
            group = aggregate.GroupByAggregate(prop="sha256", limit=len(part))
            answer: Any = self._read(
                lambda condition=condition, group=group: self._handle.aggregate.over_all(  # type: ignore[misc]
                    group_by=group, filters=condition, total_count=True
                )
            )
            counts |= {
                str(each.grouped_by.value): int(each.total_count or 0) for each in answer.groups
            }
        return counts

    def search(
        self,
        vector: Vectors,
        k: int,
        where: Sequence[Condition] = (),
        *,
        exact: bool = False,
        exclude_digests: Sequence[str] = (),
    ) -> list[Scored]:
        if k < 1:
            return []
        if exact or k > _MOST_RESULTS:
            return self.search_exact([ExactQuery(vector, k, where, exclude_digests)])[0]
        condition = self._filter(where, *_excluding(exclude_digests))
        # The server takes distances anew from the whole vectors, so they are exact to 1e-6.
        answer = self._read(
            lambda: self._handle.query.near_vector(
                vector.tolist(),
                limit=k,
                target_vector=VECTOR,
                filters=condition,
                return_metadata=query.MetadataQuery(distance=True),
            )
        )
        return _ranked(
            [
                Scored(self._record(each), _clipped(1 - (each.metadata.distance or 0.0)))
                for each in answer.objects
            ]
        )

    def search_exact(self, queries: Sequence[ExactQuery]) -> list[list[Scored]]:
        """Compares here, not on the server: a server's search always uses its index."""
        return compare((self._compared(page) for page in self._pages(vectors=True)), queries)

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
        """As the protocol says, of at most 10,000 records."""
        if not self._schema.has_words:
            raise CollectionMismatchError(f"collection {self.name}: {NO_WORDS}", Remedy.COPY)
        if k < 1 or not words:
            return []
        condition, text = self._filter(where, *_excluding(exclude_digests)), " ".join(words)
        k = min(k, _MOST_RESULTS)
        found = self._by_words(text, condition, min(k + 1, _MOST_RESULTS))
        if len(found) > k and found[k][:1] == found[k - 1][:1]:
            # Many records may have the same words: which of them come first, their URIs decide.
            found = self._by_words(text, condition, _MOST_RESULTS)
        records = self.lookup([record_id for _, _, record_id in found[:k]])
        return [Scored(records[each], -score) for score, _, each in found[:k] if each in records]

    def _by_words(self, words: str, condition: Any, limit: int) -> list[tuple[float, str, str]]:
        """Scores with a minus, URIs and ids of records, in their order."""
        answer = self._read(
            lambda: self._handle.query.bm25(
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

    def optimize(self, listener: Listener = ignore) -> None:
        """Wait for the server's index, where it is built in the background (ASYNC_INDEXING).

        Until it is, a search finds only part of what is there. Raises StoreError if the server
        gets no further for as long as its timeout.
        """
        if not self._written:
            return
        steady = 0
        least = math.inf
        since = time.monotonic()
        while steady < _STEADY_LOOKS:
            waiting = _waiting(self._nodes())
            steady = 0 if waiting else steady + 1
            if waiting and least == math.inf:
                listener(Stage(f"the server is indexing {waiting:,} vectors"))
            if waiting < least:
                least, since = waiting, time.monotonic()
            elif waiting and time.monotonic() - since > self._server.timeout:
                raise StoreError(
                    f"{self._server.address.url}: {waiting:,} vectors of collection {self.name} "
                    f"wait to be indexed, and for {self._server.timeout:.0f} s it got no further: "
                    "see the server's log; everything is stored, but searches miss these"
                )
            time.sleep(_LOOK_SECONDS)
        self._written = False

    def _nodes(self) -> list[Any]:
        """Each node, with its replicas of the collection's shards."""
        return self._read(
            lambda: self._server.client.cluster.nodes(self.class_name, output="verbose")
        )

    def info(self) -> CollectionInfo:
        images = self.count()
        return CollectionInfo(
            self.name, self.stamp, images, dict(self.refresh_fields()), None, self._details(images)
        )

    def _details(self, images: int) -> dict[str, Any]:
        found, nodes = self._configuration(), self._nodes()
        waiting = _waiting(nodes)
        compression = schemas.compression_of(found)
        copies = found.replication_config.factor
        size = self.stamp.dimension * (4 if compression == "none" else 1) + _LINK_BYTES
        return {
            "version": self._server.version,
            "nodes": {node.name: node.status for node in nodes},
            "shards": len({shard.name for node in nodes for shard in node.shards or ()}),
            "replication": copies,
            "objects": images,
            "vectors_indexed": images - waiting,
            "vectors_waiting": waiting,
            "compression": compression,
            "memory_estimate_bytes": _HEADROOM * images * copies * size,
            "site": self._server.site,
            "images_by_site": self._images_by_site(images),
        }

    def _images_by_site(self, images: int) -> dict[str, int]:
        """How many images each site has, the home site first."""
        counts: dict[str, int] = {}
        for site in sorted(self._schema.sites):
            condition = query.Filter.by_property("uri").like(f"file://{site}/*")
            answer = self._read(
                lambda condition=condition: self._handle.aggregate.over_all(  # type: ignore[misc]
                    total_count=True, filters=condition
                )
            )
            counts[site] = int(answer.total_count or 0)
        return {self._schema.home or "(not yet said)": images - sum(counts.values()), **counts}


def _waiting(nodes: Sequence[Any]) -> int:
    """How many vectors wait to be indexed, in the replica of each shard that is furthest behind."""
    waiting: dict[str, int] = {}
    for node in nodes:
        for shard in node.shards or ():
            waiting[shard.name] = max(waiting.get(shard.name, 0), shard.vector_queue_length)
    return sum(waiting.values())


def _parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _vector(found: Any) -> Vectors:
    return np.asarray(found.vector[VECTOR], dtype=np.float32)


def _excluding(digests: Sequence[str]) -> list[Any]:
    if not digests:
        return []
    return [query.Filter.not_(query.Filter.by_property("sha256").contains_any(list(digests)))]


def _clipped(score: float) -> float:
    return min(1.0, max(-1.0, score))


def _ranked(found: list[Scored]) -> list[Scored]:
    """Best first, equal scores in the order of their URIs."""
    return sorted(found, key=rank)
