"""Parse conditions on metadata, such as `year>=2012`."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import cast

from imgsearch.errors import UsageError
from imgsearch.metadata.values import format_value, is_unicode, type_of, unstorable_reason
from imgsearch.types import Condition, FieldType, Operator, Value

# The field ends at the first operator, so a value may contain operators.
_SHAPE = re.compile(r"\s*(?P<field>[^=!<>]+?)\s*(?P<operator><=|>=|!=|==|=|<|>)(?P<value>.*)", re.S)
_FLOAT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def parse_where(texts: Iterable[str], fields: Mapping[str, FieldType]) -> list[Condition]:
    """Return the conditions in texts, with each value parsed as its field's type.

    Raises UsageError for a syntax error, an unknown field, or a value of another type.
    """
    return [_parse_one(text, fields) for text in texts]


def comparisons_of_texts(
    conditions: Iterable[Condition], fields: Mapping[str, FieldType]
) -> list[str]:
    """Return a sentence for each < or > condition that compares numbers or dates as text."""
    return [
        f"{each.field} is text, which is compared letter by letter: 9 comes after 10, and dates "
        "are in order only as YYYY-MM-DD (a column with any value that is not a number is text)"
        for each in conditions
        if each.operator not in ("=", "!=")
        and fields.get(each.field) == "str"
        and re.match(r"[+-]?[.,]?[0-9]", str(each.value))
        and not re.match(r"[0-9]{4}-[0-9]{2}", str(each.value))
    ]


def check_condition(condition: Condition, fields: Mapping[str, FieldType]) -> Condition:
    """Return a condition if its value is of the field's type. Raises UsageError otherwise."""
    value = condition.value
    want = fields.get(condition.field)
    have = type_of(value) if isinstance(value, bool | int | float | str) else None
    # Text with NUL is valid here, although no record has it.
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
    """Return whether a condition can name this field."""
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
    raise UsageError(f"no field {name!r} to filter by; the collection has {known}")


def parse_value(text: str, kind: FieldType) -> Value | None:
    """Parse a value of a type. Returns None if the text is not one."""
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
            # Stricter than Python, as "nan", "inf" and "1_000" are words in a table.
            real = float(text) if _FLOAT.fullmatch(text) else math.inf
            return real if math.isfinite(real) else None
