"""Read records, and what is known about the collection."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, TypeVar

from imgsearch.calibration import describe
from imgsearch.errors import no_record
from imgsearch.index.core import IndexCore, Where
from imgsearch.search import (
    parse_conditions,
)
from imgsearch.stores.base import Collection
from imgsearch.types import (
    CollectionInfo,
    FieldType,
    ImageRecord,
)

if TYPE_CHECKING:
    pass

T = TypeVar("T")


class Reading(IndexCore):
    """The records of an index."""

    def get(self, record_id: str) -> ImageRecord:
        """Return the record with this id. Raises RecordNotFoundError."""
        found = self.get_many([record_id])
        if record_id not in found:
            raise no_record(self._name, record_id)
        return found[record_id]

    def get_many(self, ids: Sequence[str]) -> dict[str, ImageRecord]:
        """Return the records by id, without the ids that have none."""
        return self._handles.use(lambda collection: collection.lookup(ids))

    def records(self) -> Iterator[ImageRecord]:
        """Yield all records, read in batches.

        Raises StaleCollectionError if the collection is replaced during the iteration.
        """
        for batch in self._handles.use(lambda collection: _started(collection.scan())):
            yield from batch

    def page(self, limit: int, *, after: str = "", where: Where = ()) -> list[ImageRecord]:
        """Return the first `limit` records by id, after the id `after`, that meet all conditions.

        Added and removed records do not shift the other pages. Raises UsageError if `after` is not
        an id or a condition is invalid.
        """

        def read(collection: Collection) -> list[ImageRecord]:
            conditions = parse_conditions(collection, where, self._listener)
            return collection.page(limit, after, conditions)

        return self._handles.use(read)

    def count(self, where: Where = ()) -> int:
        """Return the number of records that meet all conditions. Raises UsageError."""

        def count(collection: Collection) -> int:
            return collection.count(parse_conditions(collection, where, self._listener))

        return self._handles.use(count)

    @property
    def fields(self) -> Mapping[str, FieldType]:
        """The metadata fields, with their types."""
        return self._handles.use(lambda collection: dict(collection.refresh_fields()))

    def info(self) -> CollectionInfo:
        """Return the model, size, fields and calibration of the collection."""
        return self._handles.use(describe)

    def exists(self) -> bool:
        """Return whether the collection exists."""
        return self._name in self.store.names()


def _started(batches: Iterator[T]) -> Iterator[T]:
    """Return an iterator whose first item has been read, which raises for a stale collection."""
    first = list(islice(batches, 1))
    return chain(first, batches)
