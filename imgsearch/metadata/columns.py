"""Infer the format of a table's columns: the narrowest one that all values of a column match.

Only the whole column decides: in `1,299` the comma groups thousands, in `5,50` it is the decimal
separator. If several formats match, the file's delimiter decides: spreadsheets of countries with a
decimal comma separate cells by semicolons.
"""

import datetime
import re
from collections.abc import Callable
from dataclasses import dataclass

from imgsearch.filters import parse_value
from imgsearch.types import FieldType, Value

# What programs write for a missing value. In a column of texts they are texts.
MISSING = frozenset(
    {
        "n/a",
        "na",
        "n.a.",
        "nan",
        "<na>",
        "nat",
        "null",
        "nil",
        "none",
        "-",
        "--",
        "\u2013",
        "\u2014",
        "?",
    }
    | {"#n/a", "#na", "#value!", "#div/0!", "#ref!", "#null!", "#num!"}
)


@dataclass(frozen=True, slots=True)
class Format:
    """A format of cells. `parse` returns None for a text of another format."""

    type: FieldType
    parse: Callable[[str], Value | None]


def _int(text: str) -> Value | None:
    # 007 is a code, not a number: as a number it would lose its zeros.
    return None if re.match(r"[+-]?0[0-9]", text) else parse_value(text, "int")


def _float(text: str) -> Value | None:
    # A number with more digits than a float can hold is a code, too.
    if re.match(r"[+-]?0[0-9]", text) or (len(text) > 15 and re.fullmatch(r"[+-]?[0-9]+", text)):
        return None
    return parse_value(text, "float")


# Groups of three digits, then decimals; both are optional.
_POINT = re.compile(r"[+-]?(0|[1-9][0-9]{0,2}(,[0-9]{3})+|[1-9][0-9]*)(\.[0-9]+)?")
_COMMA = re.compile(r"[+-]?(0|[1-9][0-9]{0,2}(\.[0-9]{3})+|[1-9][0-9]*)(,[0-9]+)?")


def _with_point(text: str) -> str:
    """Return 1,299.50 as 1299.50; empty if it is no such number."""
    return text.replace(",", "") if _POINT.fullmatch(text) else ""


def _with_comma(text: str) -> str:
    """Return 1.299,50 as 1299.50; empty if it is no such number."""
    return text.replace(".", "").replace(",", ".") if _COMMA.fullmatch(text) else ""


_ISO = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?"
    r"(Z|[+-][0-9]{2}:?[0-9]{2})?)?"
)


def _iso_date(text: str) -> Value | None:
    return text if _ISO.fullmatch(text) and _date(text[:4], text[5:7], text[8:10]) else None


def _date(year: str, month: str, day: str) -> str | None:
    try:
        return datetime.date(int(year), int(month), int(day)).isoformat()
    except ValueError:
        return None


def _dates(separator: str, order: str) -> Format:
    """Return a format of numeric dates in this order, with a year of four digits, parsed to ISO."""
    digits = {"y": "[0-9]{4}", "m": "[0-9]{1,2}", "d": "[0-9]{1,2}"}
    shape = re.compile(re.escape(separator).join(f"(?P<{each}>{digits[each]})" for each in order))

    def parse(text: str) -> Value | None:
        match = shape.fullmatch(text)
        return _date(match["y"], match["m"], match["d"]) if match else None

    return Format("str", parse)


TEXT = Format("str", lambda text: text)
_PLAIN = [
    Format("bool", lambda text: parse_value(text, "bool")),
    Format("int", _int),
    Format("float", _float),
]
_GROUPED_BY_COMMA = [
    Format("int", lambda text: _int(_with_point(text))),
    Format("float", lambda text: _float(_with_point(text))),
]
_DECIMAL_COMMA = [
    Format("int", lambda text: _int(_with_comma(text))),
    Format("float", lambda text: _float(_with_comma(text))),
]
_DATES = [Format("str", _iso_date), _dates(".", "dmy"), _dates("/", "ymd")]
# 03/04/2024 is ambiguous; only a day after the 12th shows the order.
_AMBIGUOUS_DATES = (_dates("/", "dmy"), _dates("/", "mdy"))


class Column:
    """Infers a column's format from its cells."""

    def __init__(self, delimiter: str) -> None:
        self.seen = False
        """Whether any cell is not empty."""
        self.mismatches: dict[FieldType, tuple[int, str]] = {}
        """For each type that does not match, a line and its (shortened) text as an example."""
        self._values = False
        last = [_DECIMAL_COMMA, _GROUPED_BY_COMMA]
        numbers = last if delimiter == ";" else last[::-1]
        self._possible = [*_PLAIN, *numbers[0], *numbers[1], *_DATES, *_AMBIGUOUS_DATES, TEXT]

    def add(self, text: str, line: int) -> None:
        """Add a cell that is not empty."""
        self.seen = True
        if len(self._possible) == 1 or text.casefold() in MISSING:
            return
        self._values = True
        possible = [each for each in self._possible if each.parse(text) is not None]
        for each in self._possible:
            if each not in possible:
                self.mismatches[each.type] = (line, text[:40])
        self._possible = possible

    @property
    def format(self) -> Format:
        """The narrowest format that all values match; text if two are equally likely."""
        if not self._values:
            return TEXT
        first = self._possible[0]
        if first in _AMBIGUOUS_DATES and self._possible[1] in _AMBIGUOUS_DATES:
            return TEXT
        return first


def parse_as(text: str, format_: Format, field_type: FieldType) -> Value | None:
    """Parse a cell of a column of this format as a value of a field of this type."""
    if format_.type == field_type:
        return format_.parse(text)
    if field_type == "str":
        return text
    if field_type == "float" and format_.type == "int":
        value = format_.parse(text)
        return None if value is None else float(value)
    return parse_value(text, field_type)
