"""Fields that a source itself has for its images, as the types of a collection."""

from collections.abc import Callable, Mapping

from imgsearch.metadata.values import is_storable, type_of, unstorable_reason
from imgsearch.sources import OwnFields
from imgsearch.types import DESCRIPTION, FieldType, Metadata, Value


def fitted(
    own: OwnFields,
    fields: Mapping[str, FieldType],
    ignored: Callable[[str, Value, FieldType], None] = lambda *_: None,
) -> dict[str, Value]:
    """Return the values that fit the fields of a collection.

    A field that the collection does not have gets the type of all values of the source. `ignored`
    gets the others: the field, an example, and the field's type.
    """
    values: dict[str, Value] = {}
    for name, value in own.values.items():
        if name not in own.types or not is_storable(name) or unstorable_reason(value):
            continue
        want = field_type(name, own, fields)
        if (fit := _as(value, want)) is None:
            ignored(name, value, want)
        else:
            values[name] = fit
    return values


def field_type(name: str, own: OwnFields, fields: Mapping[str, FieldType]) -> FieldType:
    """Return the type of a field in the collection, or the one that it gets."""
    return fields.get(name) or ("str" if name == DESCRIPTION else own.types[name])


def _as(value: Value, want: FieldType) -> Value | None:
    have = type_of(value)
    if have == want:
        return value
    if want == "str":
        return str(value).lower() if have == "bool" else str(value)
    if (have, want) == ("int", "float"):
        return float(value) if int(float(value)) == value else None
    return None


def set_own(
    metadata: Metadata, origins: Mapping[str, str] | None, own: OwnFields, values: Metadata
) -> tuple[Metadata, Mapping[str, str] | None]:
    """Return metadata and origins in which what the source set has these values."""
    owners = origins or {}
    dropped = [name for name, owner in owners.items() if owner == own.id and name not in values]
    kept = {name: value for name, value in metadata.items() if name not in dropped}
    for name, owner in owners.items():
        if owner == own.id and name in values:
            kept[name] = values[name]
    left = {name: owner for name, owner in owners.items() if name not in dropped}
    return kept, left if origins is not None else None
