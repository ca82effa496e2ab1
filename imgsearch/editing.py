"""Edit the metadata of single records."""

from collections.abc import Iterable, Mapping

from imgsearch.errors import no_record
from imgsearch.metadata.values import type_of, validate
from imgsearch.stores.base import Collection
from imgsearch.types import FieldType, ImageRecord, Value


def set_metadata(
    collection: Collection, record_id: str, changes: Mapping[str, Value | None]
) -> ImageRecord:
    """Set fields of a record, remove those whose value is None, and return the changed record.

    A new field gets the type of its value. The caller holds the write lock. Raises
    RecordNotFoundError, and MetadataError for a value that is not of its field's type or that a
    store cannot hold exactly.
    """
    if record_id not in collection.lookup([record_id]):
        raise no_record(collection.name, record_id)
    given = {name: value for name, value in changes.items() if value is not None}
    fields = _fields(collection, given)
    values = {name: validate(name, value, fields) for name, value in given.items()}
    collection.add_fields({name: type_of(value) for name, value in values.items()})
    # Edited fields no longer belong to a table, so an ingest does not remove them.
    collection.update_metadata(
        {record_id: {name: values.get(name) for name in changes}},
        {record_id: dict.fromkeys(changes)},
    )
    changed = collection.lookup([record_id]).get(record_id)
    if changed is None:  # removed in between
        raise no_record(collection.name, record_id)
    return changed


def _fields(collection: Collection, names: Iterable[str]) -> Mapping[str, FieldType]:
    """Return the fields of a collection, read again if one of the names is not among them."""
    known = collection.fields
    return known if all(name in known for name in names) else collection.refresh_fields()
