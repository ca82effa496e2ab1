"""Origins of metadata: the table that set a field, if a table did.

A table owns the values that it wrote. Each run sets them again, and removes values that the table
no longer has, because the cell was emptied or the row or column removed. Values that the API, the
page, Python or another table set stay.
"""

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import Protocol

from imgsearch.types import ImageRecord, Metadata, Origins, Value


class Table(Protocol):
    """A table of metadata, as far as ownership is concerned."""

    @property
    def id(self) -> str:
        """Identifier of the table, the same in every run."""
        ...

    @property
    def columns(self) -> Iterable[str]:
        """The fields that rows can set, including those that no row sets."""
        ...


def apply_tables(
    record: ImageRecord | None, rows: Iterable[tuple[Table, Metadata | None]]
) -> tuple[Metadata, Origins | None]:
    """Return a record's metadata and origins after these tables are applied.

    `record` is the stored record, None for a new one. Each table comes with its row for the image,
    or None. If two tables have a value for the same field, the later table wins.

    Records of earlier versions have no origins. There a table with a row owns the columns that it
    has now, and everything else stays.
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
    """Return the canonical text in which stores hold origins."""
    if origins is None:
        return None
    by_table: dict[str, list[str]] = {}
    for field in sorted(origins):
        by_table.setdefault(origins[field], []).append(field)
    return json.dumps(by_table, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


@lru_cache(maxsize=1024)  # most records of a collection have equal origins
def from_text(text: str | None) -> Origins | None:
    """Parse origins. Returns None if there is no text, or another program wrote it."""
    try:
        by_table = json.loads(text or "null")
        return {field: table for table, fields in by_table.items() for field in fields}
    except (ValueError, AttributeError, TypeError):
        return None
