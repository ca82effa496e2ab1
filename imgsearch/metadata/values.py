"""Which values metadata can have: what both stores keep exactly as it is."""

import math
from collections.abc import Mapping

from imgsearch.errors import MetadataError
from imgsearch.types import DESCRIPTION, FieldType, Value

_TYPES: dict[type, FieldType] = {bool: "bool", int: "int", float: "float", str: "str"}
_INT64 = range(-(2**63), 2**63)


def type_of(value: Value) -> FieldType:
    return _TYPES[type(value)]


def typed(name: str, value: Value, fields: Mapping[str, FieldType]) -> Value:
    """The value as the type of its field, or as its own if the field is new.

    Raises MetadataError if it is of another type, or if the store would change it.
    """
    have = _TYPES.get(type(value))
    want = fields.get(name, "str" if name == DESCRIPTION else have)
    if have is None or want is None:
        raise MetadataError(f"{name}: {shown(value)} is no text, number or truth value")
    if reason := why_unstorable(value):
        raise MetadataError(f"{name}: {shown(value)} {reason}")
    if not is_storable(name):
        raise MetadataError(f"{name!r}: a name with characters that cannot be stored")
    if (have, want) == ("int", "float"):
        if int(float(value)) != value:
            raise MetadataError(
                f"{name}: {shown(value)} has more digits than the field's type, float, can hold"
            )
        return float(value)
    if have != want:
        raise MetadataError(f"{name}: {shown(value)} is {have}, but the field is {want}")
    return value


def why_unstorable(value: object) -> str | None:
    """Why no store keeps a value as it is; None if it does."""
    match value:
        case bool():
            return None
        case int() if value not in _INT64:
            return "is beyond integers of 64 bits: store it as text"
        case float() if not math.isfinite(value):
            return "is no number: leave the field out"
        case str() if not is_storable(value):
            return "holds characters that cannot be stored"
    return None


def is_storable(text: str) -> bool:
    return "\0" not in text and is_unicode(text)


def is_unicode(text: str) -> bool:
    """Whether UTF-8 expresses a text: it holds no half of a surrogate pair."""
    return text.isascii() or text.encode("utf-8", "replace").decode() == text


def shown(value: object) -> str:
    """A value in a message; Python itself refuses to write integers of thousands of digits."""
    if isinstance(value, int) and value.bit_length() > 1000:
        return "an integer of hundreds of digits"
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
