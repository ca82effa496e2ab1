"""Conditions in Lance's SQL dialect. All quoting of values happens in `_literal`.

Lance takes pyarrow expressions too, and converts them first. Among 44,000 records a lookup of 1,000
ids then takes 6.6 ms instead of 4.3, and other filters 0.9 to 1.1 times as long, so SQL stays
(`benchmarks/lance_filters.py`).
"""

import sys
from collections.abc import Mapping, Sequence

from imgsearch.types import Condition, Value


def all_of(*tests: str | None) -> str | None:
    """Join tests by AND; None, which is no test, where there are none."""
    return " AND ".join(filter(None, tests)) or None


def is_one_of(column: str, values: Sequence[str]) -> str:
    return f"{column} IN ({', '.join(map(_literal, values))})"


def is_within_any(column: str, ranges: Sequence[tuple[str, str]]) -> str:
    """Return a test for texts from the first to the second of any of these pairs."""
    return " OR ".join(
        f"({column} >= {_literal(first)} AND {column} <= {_literal(last)})"
        for first, last in ranges
    )


def is_row(row_ids: Sequence[int]) -> str:
    """Return a test for rows of one version of a dataset."""
    return f"_rowid IN ({', '.join(map(str, row_ids))})"


def is_none_of(column: str, values: Sequence[str]) -> str | None:
    return f"NOT ({is_one_of(column, values)})" if values else None


def starts_with_any(column: str, prefixes: Sequence[str]) -> str | None:
    """Return a test for any of the prefixes; None where every text has one of them."""
    if not prefixes or "" in prefixes:
        return None
    return " OR ".join(f"({_starts_with(column, each)})" for each in prefixes)


def _starts_with(column: str, prefix: str) -> str:
    """Return a test as a range, for which Lance uses an index.

    Texts are in the order of their code points.
    """
    tests = f"{column} >= {_literal(prefix)}"
    if (end := _first_after(prefix)) is not None:
        tests += f" AND {column} < {_literal(end)}"
    return tests


def _first_after(prefix: str) -> str | None:
    """Return the first text after all that have a prefix; None if there is no such text."""
    kept = prefix.rstrip(chr(sys.maxunicode))
    if not kept:
        return None
    following = ord(kept[-1]) + 1
    return kept[:-1] + chr(0xE000 if following == 0xD800 else following)  # behind the surrogates


def in_range(column: str, after: str, last: str | None) -> str | None:
    """Return a test for texts behind `after`, up to and including `last`."""
    return all_of(
        f"{column} > {_literal(after)}" if after else None,
        f"{column} <= {_literal(last)}" if last else None,
    )


def meets_all(conditions: Sequence[Condition], columns: Mapping[str, str]) -> str | None:
    """Return a test with the meaning of `Condition.holds`; `columns` maps fields to columns."""
    return all_of(*(_test(each, columns.get(each.field)) for each in conditions))


def _test(condition: Condition, column: str | None) -> str:
    if column is None:  # no record has the field
        return "true" if condition.operator == "!=" else "false"
    test = f"{column} {condition.operator} {_literal(condition.value)}"
    return f"({column} IS NULL OR {test})" if condition.operator == "!=" else f"({test})"


def _literal(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if value == -(2**63):  # Lance reads the digits before the sign, and they alone are too large
        return "(-9223372036854775807 - 1)"
    return repr(value)
