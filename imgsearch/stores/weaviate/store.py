"""Collections on a Weaviate: list, create, open, replace and drop them."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from imgsearch.errors import CollectionNotFoundError, Remedy, StoreError
from imgsearch.events import Listener, ignore
from imgsearch.stores.base import NO_FIELDS, check_dtype_of_store, check_stamp
from imgsearch.stores.weaviate import repair
from imgsearch.stores.weaviate import schema as schemas
from imgsearch.stores.weaviate.address import parse
from imgsearch.stores.weaviate.client import exceptions
from imgsearch.stores.weaviate.collection import WeaviateCollection
from imgsearch.stores.weaviate.connection import Server
from imgsearch.types import FieldType, Stamp, VectorDtype

T = TypeVar("T")


class WeaviateStore:
    """Collections on one Weaviate, a cluster, or Weaviate Cloud.

    There is no lock between writers, and none is needed: ids are made from URIs, so that two runs
    over the same images write the same objects, each object is written whole, and an update of
    metadata writes only its own fields.
    """

    def __init__(self, url: str, timeout: float, listener: Listener = ignore) -> None:
        """Connect. Raises UsageError for the URL, StoreError if the server is not reached.

        `timeout` is how many seconds to wait for a server that goes away later on.
        """
        self._server = Server(parse(url), timeout, listener)

    @property
    def url(self) -> str:
        return self._server.address.url

    @property
    def vector_dtypes(self) -> Sequence[VectorDtype]:
        """The server compresses its index instead."""
        return ("float32",)

    def __enter__(self) -> "WeaviateStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._server.close()

    def names(self) -> list[str]:
        return sorted(self._classes())

    def _classes(self) -> dict[str, str]:
        """Return the class of each collection."""
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
        self,
        name: str,
        stamp: Stamp,
        fields: Mapping[str, FieldType] = NO_FIELDS,
        vector_dtype: VectorDtype = "float32",
    ) -> WeaviateCollection:
        if name in self.names():
            raise StoreError(f"{self.url}: there is a collection {name} already")
        return self.open_or_create(name, stamp, fields, vector_dtype)

    def open_or_create(
        self,
        name: str,
        stamp: Stamp,
        fields: Mapping[str, FieldType] = NO_FIELDS,
        vector_dtype: VectorDtype | None = None,
    ) -> WeaviateCollection:
        """Open or create a collection; of several concurrent creators, one alias counts."""
        check_dtype_of_store(self, vector_dtype)
        if name not in self.names():
            # Listed before the alias exists, so that a replacement begun later is not among them.
            left_behind = self._classes_of(name)
            class_name = self._create_class(name, stamp, self._server.site, fields=fields)
            if self._claim(name, class_name):
                self._drop_classes(name, left_behind - {class_name})
        collection = self.open(name)
        check_stamp(collection, stamp)
        collection.add_fields(fields)
        return collection

    def _classes_of(self, name: str) -> set[str]:
        """Return all classes of a collection: its own, and leftovers of interrupted runs."""
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
        """Create an empty class, or use the one that another writer creates meanwhile."""
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
        """Point an unused alias to a class; return whether it now points there."""
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
        """Point the alias to a class: one step, which all clients see at the same time."""
        aliases, alias = self._server.client.alias, schemas.alias_of(name)

        def point() -> None:
            if aliases.exists(alias_name=alias):
                aliases.update(alias_name=alias, new_target_collection=class_name)
            else:
                aliases.create(alias_name=alias, target_collection=class_name)

        self._call(f"collection {name} cannot be named", point)

    def open(self, name: str) -> WeaviateCollection:
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
        # Its own class goes last: a collection whose removal was interrupted is still listed, and
        # leftovers of an interrupted replacement cannot return with a new one of the name.
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
        self,
        name: str,
        stamp: Stamp,
        fields: Mapping[str, FieldType] = NO_FIELDS,
        vector_dtype: VectorDtype | None = None,
    ) -> WeaviateCollection:
        check_dtype_of_store(self, vector_dtype)
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
        repair.rewrite_pending(self._server, schemas.class_prefix(name))
        yield
