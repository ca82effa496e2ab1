"""Parse filters such as `year>=2012` into typed conditions."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import cast

from imgsearch.errors import UsageError
from imgsearch.metadata.values import format_value, is_unicode, type_of, unstorable_reason
from imgsearch.types import Condition, FieldType, Operator, Value

# The field is what stands before the first operator, so a value may hold any of them.
_SHAPE = re.compile(r"\s*(?P<field>[^=!<>]+?)\s*(?P<operator><=|>=|!=|==|=|<|>)(?P<value>.*)", re.S)
_FLOAT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def parse_where(texts: Iterable[str], fields: Mapping[str, FieldType]) -> list[Condition]:
    """Return the conditions that texts state, each value read as its field's type; all must hold.

    Raises UsageError for a text of another shape, a field that the collection does not have, or
    a value that is not of the field's type.
    """
    return [_parse_one(text, fields) for text in texts]


def comparisons_of_texts(
    conditions: Iterable[Condition], fields: Mapping[str, FieldType]
) -> list[str]:
    """A sentence for each condition by < or > that compares numbers or dates as texts."""
    return [
        f"{each.field} is text, which is compared letter by letter: 9 comes after 10, and dates "
        "are in order as YYYY-MM-DD only (a column is text if any of its values is no number)"
        for each in conditions
        if each.operator not in ("=", "!=")
        and fields.get(each.field) == "str"
        and re.match(r"[+-]?[.,]?[0-9]", str(each.value))
        and not re.match(r"[0-9]{4}-[0-9]{2}", str(each.value))
    ]


def check_condition(condition: Condition, fields: Mapping[str, FieldType]) -> Condition:
    """A condition that was made without words. Raises UsageError for a value of another type."""
    value = condition.value
    want = fields.get(condition.field)
    have = type_of(value) if isinstance(value, bool | int | float | str) else None
    # A text with NUL is merely one that no record has.
    is_text = isinstance(value, str) and is_unicode(value)
    reason = None if is_text else unstorable_reason(value)
    if (
        want is not None
        and reason is None
        and have not in (want, "int" if want == "float" else want)
    ):
        reason = f"is not of the field's type, {want}"
    if reason:
        raise UsageError(f"condition on {condition.field}: {format_value(value)} {reason}")
    return condition


def is_field(name: str) -> bool:
    """Whether a condition can name this field."""
    match = _SHAPE.fullmatch(f"{name}=")
    return match is not None and match["field"] == name


def _parse_one(text: str, fields: Mapping[str, FieldType]) -> Condition:
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise UsageError(
            f"condition {text!r}: write it as FIELD OP VALUE, with one of = != < <= > >=, "
            "for example 'year>=2012'"
        )
    name = _field_named(match["field"], fields)
    operator = cast(Operator, "=" if match["operator"] == "==" else match["operator"])
    value = parse_value(match["value"].strip(), fields[name])
    if value is None:
        raise UsageError(
            f"condition {text!r}: {name} is of type {fields[name]}, "
            f"and {match['value'].strip()!r} is not"
        )
    if isinstance(value, bool) and operator not in ("=", "!="):
        raise UsageError(f"condition {text!r}: {name} is true or false: compare it with = or !=")
    return Condition(name, operator, value)


def _field_named(name: str, fields: Mapping[str, FieldType]) -> str:
    if name in fields:
        return name
    alike = [known for known in fields if known.casefold() == name.casefold()]
    if len(alike) == 1:
        return alike[0]
    known = ", ".join(sorted(fields)) or "none: it was ingested without metadata"
    raise UsageError(f"there is no field {name!r} to filter on; the collection has {known}")


def parse_value(text: str, kind: FieldType) -> Value | None:
    """`text` as a value of type `kind`; None where it is not one."""
    match kind:
        case "str":
            return text if is_unicode(text) else None
        case "bool":
            return {"true": True, "false": False}.get(text.lower())
        case "int":
            if re.fullmatch(r"[+-]?[0-9]+", text) is None:
                return None
            number = int(text) if len(text) <= 20 else 2**63
            return number if unstorable_reason(number) is None else None
        case "float":
            # Not all that Python reads: "nan", "inf" and 1_000 are words in a table.
            real = float(text) if _FLOAT.fullmatch(text) else math.inf
            return real if math.isfinite(real) else None
