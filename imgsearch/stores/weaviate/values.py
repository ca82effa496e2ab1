"""Convert records to Weaviate's objects and back, and conditions to filters.

Weaviate stores integers exactly up to 2^53, and matches text without surrounding space. Any other
value is stored in a twin of its property too, as a text that sorts like the value; filters look
there first. So a filter means what `Condition.holds` says, for every value.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from itertools import count
from operator import and_
from typing import Any

from google.protobuf.struct_pb2 import Struct

from imgsearch.errors import StoreError
from imgsearch.metadata.changes import Changes
from imgsearch.metadata.origins import from_text, to_text
from imgsearch.sites import Sites
from imgsearch.stores.base import Vectors
from imgsearch.stores.weaviate.client import base_pb2, batch_pb2, query
from imgsearch.stores.weaviate.schema import FOLDERS, VECTOR, WORDS, Schema, folder_words
from imgsearch.text import record_words
from imgsearch.types import Condition, FieldType, ImageRecord, Value

Filter = Any
Object = Any

_EXACT_INTEGERS = 2**53
_METHODS = {
    "=": "equal",
    "!=": "not_equal",
    "<": "less_than",
    "<=": "less_or_equal",
    ">": "greater_than",
    ">=": "greater_or_equal",
}


# Every object has a URI.
NOTHING: Filter = query.Filter.by_property("uri").equal("")
EVERYTHING: Filter = query.Filter.by_property("uri").not_equal("")


def needs_twin(value: Value) -> bool:
    """Return whether Weaviate would not store or match a value exactly."""
    if isinstance(value, str):
        return value != value.strip()
    return isinstance(value, int) and abs(value) >= _EXACT_INTEGERS


def _twin(value: Value) -> str:
    """Return a text that sorts like the value: hexadecimal digits, or text between two NULs."""
    return f"{value + 2**63:016x}" if isinstance(value, int) else f"\0{value}\0"


def _from_twin(text: str, kind: FieldType) -> Value:
    return int(text, 16) - 2**63 if kind == "int" else text[1:-1]


def _rounded(value: Value) -> Value:
    """Return a large integer as a float that is no larger, and fits into 64 bits."""
    if not isinstance(value, int) or abs(value) < _EXACT_INTEGERS:
        return value
    near = float(value)
    return near if near <= value else math.nextafter(near, -math.inf)


def to_object(
    class_name: str, record: ImageRecord, vector: Vectors, schema: Schema
) -> batch_pb2.BatchObject:
    """Return the message that writes a whole record; `vector` has shape (dimension,).

    weaviate-client would take ten times as long, as it converts vectors to lists of floats.
    """
    properties: dict[str, Any] = {
        "uri": record.uri,
        "sha256": record.sha256,
        "size": record.size,
        "mtime_ns": str(record.mtime_ns),
        "width": record.width,
        "height": record.height,
    }
    if schema.has_words and (words := record_words(record.metadata)):
        properties[WORDS] = words
    if schema.has_folders:
        properties[FOLDERS] = folder_words(record.uri)
    if schema.origins and (origins := to_text(record.origins)):
        properties[schema.origins] = origins
    for field, value in record.metadata.items():
        properties[schema.properties[field]] = _rounded(value)
        if needs_twin(value):
            properties[schema.exact[field]] = _twin(value)
    struct = Struct()
    struct.update(properties)
    return batch_pb2.BatchObject(
        uuid=record.id,
        collection=class_name,
        properties=batch_pb2.BatchObject.Properties(non_ref_properties=struct),
        vectors=[
            base_pb2.Vectors(
                name=VECTOR,
                vector_bytes=vector.astype("<f4", copy=False).tobytes(),
                type=base_pb2.Vectors.VECTOR_TYPE_SINGLE_FP32,
            )
        ],
    )


def to_properties(changes: Changes, schema: Schema) -> dict[str, Any]:
    """Return the properties that changes of fields write; None removes one."""
    properties: dict[str, Any] = {}
    for field, value in changes.items():
        if field not in schema.properties:
            continue  # to remove, and no record has it
        properties[schema.properties[field]] = None if value is None else _plain(value)
        if field in schema.exact:
            twin = None if value is None or not needs_twin(value) else _twin(value)
            properties[schema.exact[field]] = twin
    return properties


def _plain(value: Value) -> Value:
    """Return a value for REST, with integers in digits."""
    rounded = _rounded(value)
    return int(rounded) if isinstance(value, int) and not isinstance(value, bool) else rounded


def to_file_stat(found: Object) -> tuple[str, int, int]:
    """Return the URI, size and mtime_ns of an object, of which nothing else need be read."""
    with _written_by_imgsearch(found):
        have: Mapping[str, Any] = found.properties
        return str(have["uri"]), int(have["size"]), int(have["mtime_ns"])


@contextlib.contextmanager
def _written_by_imgsearch(found: Object) -> Iterator[None]:
    """Raise StoreError where an object lacks a property of all records."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"object {found.uuid} was not written by imgsearch: it lacks a property ({error}); "
            "remove it, or use another collection"
        ) from error


def to_record(found: Object, schema: Schema, sites: Sites) -> ImageRecord:
    """Return the record of an object. Raises StoreError if it is not a record of imgsearch."""
    have: Mapping[str, Any] = found.properties
    metadata: dict[str, Value] = {}
    for field, name in schema.properties.items():
        if have.get(name) is not None:
            metadata[field] = have[name]
            if (twin := have.get(schema.exact.get(field, ""))) is not None:
                metadata[field] = _from_twin(twin, schema.fields[field])
            elif schema.fields[field] == "float":
                metadata[field] = float(have[name])
    with _written_by_imgsearch(found):
        return ImageRecord(
            uri=have["uri"],
            sha256=have["sha256"],
            size=int(have["size"]),
            mtime_ns=int(have["mtime_ns"]),
            width=int(have["width"]),
            height=int(have["height"]),
            metadata=metadata,
            origins=from_text(have.get(schema.origins or "")),
            site=sites.split(have["uri"])[0],
        )


def to_filter(conditions: Sequence[Condition], schema: Schema, *more: Filter) -> Filter | None:
    """Return all conditions as one filter, or None if there are none."""
    filters = [*more]
    for condition in conditions:
        if condition.field in schema.fields:
            filters.append(_test(condition, schema))
        elif condition.operator != "!=":  # no record has the field
            filters.append(NOTHING)
    return reduce(and_, filters) if filters else None


def _test(condition: Condition, schema: Schema) -> Filter:
    plain = _plain_test(condition, query.Filter.by_property(schema.properties[condition.field]))
    name = schema.exact.get(condition.field)
    if name is None:
        return plain
    # If there is a twin, only the twin counts.
    twin = query.Filter.by_property(name)
    exact = getattr(twin, _METHODS[condition.operator])(_twin(condition.value))
    has_twin = twin.is_none(False)
    # Not is_none(True): objects that are older than the property do not meet that.
    return (query.Filter.not_(has_twin) & plain) | (has_twin & exact)


def _plain_test(condition: Condition, named: Filter) -> Filter:
    """Return the test of values without a twin."""
    value = condition.value
    if isinstance(value, str) and needs_twin(value):
        return _test_between(condition, named, value)
    return getattr(named, _METHODS[condition.operator])(_plain(value))


def _test_between(condition: Condition, named: Filter, text: str) -> Filter:
    """Return the test of texts without surrounding space against one that has it.

    None is equal; `bound` is the first text after it that Weaviate does not trim.
    """
    bound = text + "\0"
    if text[:1].isspace():
        bound = next(chr(code) for code in count(ord(text[0])) if not chr(code).isspace())
    match condition.operator:
        case "=":
            return NOTHING
        case "!=":
            return EVERYTHING
        case "<" | "<=":
            return named.less_than(bound)
        case ">" | ">=":
            return named.greater_or_equal(bound)


def metadata_with_twins(metadata: Changes) -> list[str]:
    """Return the fields whose values need a twin."""
    return [each for each, value in metadata.items() if value is not None and needs_twin(value)]
