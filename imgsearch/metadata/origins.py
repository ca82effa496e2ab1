"""Who set a metadata field: the table that a later run may take the value back from, or anybody.

A table owns the values that it wrote. Each run sets them again, and removes values that it no
longer has: the cell was emptied, or the row or the column was removed. Nothing else is touched, so
that what the API, the page, Python or another table set stays.
"""

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import Protocol

from imgsearch.types import ImageRecord, Metadata, Origins, Value


class Table(Protocol):
    @property
    def id(self) -> str:
        """Identifies this table, the same in every run."""
        ...

    @property
    def columns(self) -> Iterable[str]:
        """The fields that rows can set, also where no row does."""
        ...


def joined(
    record: ImageRecord | None, rows: Iterable[tuple[Table, Metadata | None]]
) -> tuple[Metadata, Origins | None]:
    """A record's metadata and origins after a run in which these tables cover it.

    `record` is what the collection has; None is a new one. Each table comes with its row, or None.
    Of two tables that have a value for one field the later counts.

    Records of earlier versions do not say who set what. There a table that has a row owns the
    columns that it has now, and all else stays.
    """
    values: dict[str, Value] = dict(record.metadata) if record else {}
    origins = dict(record.origins) if record and record.origins is not None else None
    if record is None:
        origins = {}
    for table, row in rows:
        if origins is None and row is None:
            continue
        before = (
            table.columns
            if origins is None
            else [field for field, owner in origins.items() if owner == table.id]
        )
        origins = {} if origins is None else origins
        for field in before:
            values.pop(field, None)
            origins.pop(field, None)
        for field, value in (row or {}).items():
            values[field], origins[field] = value, table.id
    return values, origins


def to_text(origins: Origins | None) -> str | None:
    """The form in which stores keep origins, the same for equal ones."""
    if origins is None:
        return None
    by_table: dict[str, list[str]] = {}
    for field in sorted(origins):
        by_table.setdefault(origins[field], []).append(field)
    return json.dumps(by_table, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


@lru_cache(maxsize=1024)  # most records of a collection have the same
def from_text(text: str | None) -> Origins | None:
    """The origins from their text; None where there is none, or another program's."""
    try:
        by_table = json.loads(text or "null")
        return {field: table for table, fields in by_table.items() for field in fields}
    except (ValueError, AttributeError, TypeError):
        return None
