"""The types of a table's columns: the narrowest reading that all of a column's values allow.

A reading turns the text of a cell into a value. Which one is right only the whole column says: in
`1,299` the comma groups thousands, in `5,50` it is the decimal sign. Where columns could be read in
several ways, the file's delimiter decides: spreadsheets of countries with a decimal comma write
semicolons between the cells.
"""

import datetime
import re
from collections.abc import Callable
from dataclasses import dataclass

from imgsearch.filters import parse_value
from imgsearch.types import FieldType, Value

# What programs write where there is no value. In a column of texts they are texts.
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
class Reading:
    """How to read the cells of a column; `parse` gives None for a text that is none of it."""

    kind: FieldType
    parse: Callable[[str], Value | None]


def _int(text: str) -> Value | None:
    # 007 is a code, not a number: as a number it would lose its zeros.
    return None if re.match(r"[+-]?0[0-9]", text) else parse_value(text, "int")


def _float(text: str) -> Value | None:
    # So is what has more digits than a float can hold.
    if re.match(r"[+-]?0[0-9]", text) or (len(text) > 15 and re.fullmatch(r"[+-]?[0-9]+", text)):
        return None
    return parse_value(text, "float")


# Groups of three digits, then decimals; either may be missing.
_POINT = re.compile(r"[+-]?(0|[1-9][0-9]{0,2}(,[0-9]{3})+|[1-9][0-9]*)(\.[0-9]+)?")
_COMMA = re.compile(r"[+-]?(0|[1-9][0-9]{0,2}(\.[0-9]{3})+|[1-9][0-9]*)(,[0-9]+)?")


def _with_point(text: str) -> str:
    """1,299.50 as 1299.50; empty for what is no such number."""
    return text.replace(",", "") if _POINT.fullmatch(text) else ""


def _with_comma(text: str) -> str:
    """1.299,50 as 1299.50; empty for what is no such number."""
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


def _dates(separator: str, order: str) -> Reading:
    """Dates as numbers in this order, of which the year has four digits, as texts in ISO order."""
    digits = {"y": "[0-9]{4}", "m": "[0-9]{1,2}", "d": "[0-9]{1,2}"}
    shape = re.compile(re.escape(separator).join(f"(?P<{each}>{digits[each]})" for each in order))

    def parse(text: str) -> Value | None:
        match = shape.fullmatch(text)
        return _date(match["y"], match["m"], match["d"]) if match else None

    return Reading("str", parse)


TEXT = Reading("str", lambda text: text)
_PLAIN = [
    Reading("bool", lambda text: parse_value(text, "bool")),
    Reading("int", _int),
    Reading("float", _float),
]
_GROUPED_BY_COMMA = [
    Reading("int", lambda text: _int(_with_point(text))),
    Reading("float", lambda text: _float(_with_point(text))),
]
_DECIMAL_COMMA = [
    Reading("int", lambda text: _int(_with_comma(text))),
    Reading("float", lambda text: _float(_with_comma(text))),
]
_DATES = [Reading("str", _iso_date), _dates(".", "dmy"), _dates("/", "ymd")]
# 03/04/2024 is ambiguous; only a day after the 12th shows the order.
_DOUBTFUL_DATES = (_dates("/", "dmy"), _dates("/", "mdy"))


class Column:
    """What is known of a column's type after all of its cells have been seen."""

    def __init__(self, delimiter: str) -> None:
        self.seen = False
        """Whether any cell has a text."""
        self.not_of: dict[FieldType, tuple[int, str]] = {}
        """For each type that is ruled out, the line and the text (shortened) that do so."""
        self._values = False
        last = [_DECIMAL_COMMA, _GROUPED_BY_COMMA]
        numbers = last if delimiter == ";" else last[::-1]
        self._possible = [*_PLAIN, *numbers[0], *numbers[1], *_DATES, *_DOUBTFUL_DATES, TEXT]

    def see(self, text: str, line: int) -> None:
        self.seen = True
        if len(self._possible) == 1 or text.casefold() in MISSING:
            return
        self._values = True
        possible = [each for each in self._possible if each.parse(text) is not None]
        for each in self._possible:
            if each not in possible:
                self.not_of[each.kind] = (line, text[:40])
        self._possible = possible

    @property
    def reading(self) -> Reading:
        """The narrowest that all values allow; of two equally likely ones neither."""
        if not self._values:
            return TEXT
        first = self._possible[0]
        if first in _DOUBTFUL_DATES and self._possible[1] in _DOUBTFUL_DATES:
            return TEXT
        return first


def read_as(text: str, reading: Reading, kind: FieldType) -> Value | None:
    """The value of a cell in a column that is read so, as a field of this type has it."""
    if reading.kind == kind:
        return reading.parse(text)
    if kind == "str":
        return text
    if kind == "float" and reading.kind == "int":
        value = reading.parse(text)
        return None if value is None else float(value)
    return parse_value(text, kind)
