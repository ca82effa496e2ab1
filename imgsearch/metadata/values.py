"""Validate metadata values: every store must return them exactly as they were written."""

import math
from collections.abc import Mapping

from imgsearch.errors import MetadataError
from imgsearch.types import DESCRIPTION, FieldType, Value

_TYPES: dict[type, FieldType] = {bool: "bool", int: "int", float: "float", str: "str"}
_INT64 = range(-(2**63), 2**63)


def type_of(value: Value) -> FieldType:
    """Return the field type of a value."""
    return _TYPES[type(value)]


def validate(name: str, value: Value, fields: Mapping[str, FieldType]) -> Value:
    """Return a value as the type of its field, or as its own type if the field is new.

    Raises MetadataError if it is of another type, or if a store would change it.
    """
    have = _TYPES.get(type(value))
    want = fields.get(name, "str" if name == DESCRIPTION else have)
    if have is None or want is None:
        raise MetadataError(f"{name}: {format_value(value)} is not a string, number or boolean")
    if reason := unstorable_reason(value):
        raise MetadataError(f"{name}: {format_value(value)} {reason}")
    if not is_storable(name):
        raise MetadataError(f"{name!r}: the name contains characters that cannot be stored")
    if (have, want) == ("int", "float"):
        if int(float(value)) != value:
            raise MetadataError(
                f"{name}: {format_value(value)} has more digits than a float, the field's type, "
                "can hold"
            )
        return float(value)
    if have != want:
        raise MetadataError(f"{name}: {format_value(value)} is {have}, but the field is {want}")
    return value


def unstorable_reason(value: object) -> str | None:
    """Return why a store cannot hold a value exactly, or None if it can."""
    match value:
        case bool():
            return None
        case int() if value not in _INT64:
            return "does not fit into 64 bits: store it as text"
        case float() if not math.isfinite(value):
            return "is not a finite number: omit the field"
        case str() if not is_storable(value):
            return "contains characters that cannot be stored"
    return None


def is_storable(text: str) -> bool:
    """Return whether every store can hold a text: it is Unicode without NUL."""
    return "\0" not in text and is_unicode(text)


def is_unicode(text: str) -> bool:
    """Return whether a text can be encoded in UTF-8: it has no lone surrogate."""
    return text.isascii() or text.encode("utf-8", "replace").decode() == text


def format_value(value: object) -> str:
    """Format a value for a message. Python does not format integers of thousands of digits."""
    if isinstance(value, int) and value.bit_length() > 1000:
        return "an integer of hundreds of digits"
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
