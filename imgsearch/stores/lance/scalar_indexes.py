"""Indexes of ids, digests, URIs, words and metadata fields.

New rows get an index segment of their own, whose cost does not grow with the collection. Segments
are merged like the runs of a log-structured merge tree: a new one takes in those before it that
are no larger. So there are few of them, and a row is indexed again only a few times.
"""

from collections.abc import Sequence
from typing import Literal

from imgsearch.events import Listener, Stage, ignore
from imgsearch.stores.lance import segments
from imgsearch.stores.lance.dataset import Dataset
from imgsearch.stores.lance.schema import WORDS

MIN_ROWS = 10_000
"""From here on an index makes a lookup ten times faster."""
MAX_UNINDEXED = 8_192
"""Rows without an index, which each lookup reads: up to these it takes twice as long."""

_KEYS = ("id", "sha256", "uri")
# Each costs an ingest some 1 %, and makes counts under a filter ten times as fast, pages three
# times, searches up to four times (`benchmarks/field_indexes.py`).
_MAX_FIELDS = 32
# Texts of more values than that are rarely filtered by one of them.
_FEW_VALUES = 1_000


class ScalarIndexes:
    """The scalar indexes of one dataset."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def index_keys(self) -> None:
        """Index what an ingest looks up, in the middle of one."""
        self._index(_KEYS, ignore)

    def index_all(self, listener: Listener) -> None:
        """Build or extend all indexes, if it is time to."""
        words = (WORDS,) if self._dataset.columns.has_words else ()
        self._index((*_KEYS, *words, *self._fields()), listener)

    def _fields(self) -> list[str]:
        """Return the columns of the fields to index: numbers, booleans, and texts of few values."""
        if self._dataset.handle.count_rows() < MIN_ROWS:
            return []
        columns = self._dataset.columns
        first = list(columns.by_field.items())[:_MAX_FIELDS]
        return [
            column
            for field, column in first
            if columns.fields[field] != "str"
            or segments.row_counts(self._dataset.handle, column) is not None
            or self._has_few_values(column)
        ]

    def _has_few_values(self, column: str) -> bool:
        values: set[str | None] = set()
        for batch in self._dataset.batches([column], None):
            values.update(batch[column].unique().to_pylist())
            if len(values) > _FEW_VALUES:
                return False
        return True

    def _name(self, column: str) -> str:
        """Return the field of a column, or the column itself."""
        by_field = self._dataset.columns.by_field
        return next((field for field, each in by_field.items() if each == column), column)

    def _type(self, column: str) -> Literal["BTREE", "BITMAP"]:
        columns = self._dataset.columns
        kinds = {columns.by_field[field]: kind for field, kind in columns.fields.items()}
        return "BITMAP" if kinds.get(column) in ("bool", "str") else "BTREE"

    def _index(self, columns: Sequence[str], listener: Listener) -> None:
        rows = self._dataset.handle.count_rows()
        if rows < MIN_ROWS:
            return
        for column in columns:
            indexed = segments.row_counts(self._dataset.handle, column)
            new = rows - sum(indexed or ())
            if indexed is None:
                name = self._name(column)
                listener(Stage(f"building the index of {name} over {rows:,} records"))
                self._dataset.retry("no index can be built", lambda: self._build(column))  # noqa: B023
            elif new > MAX_UNINDEXED:
                name = self._name(column)
                listener(Stage(f"adding {new:,} records to the index of {name}"))
                self._dataset.retry("the index cannot be extended", lambda: self._extend(column))  # noqa: B023

    def _build(self, column: str) -> None:
        dataset = self._dataset.writable()
        if column != WORDS:
            dataset.create_scalar_index(column, self._type(column), replace=True)
            return
        # They are words already, in the form in which they are compared.
        dataset.create_scalar_index(
            column,
            "INVERTED",
            replace=True,
            base_tokenizer="whitespace",
            lower_case=False,
            stem=False,
            remove_stop_words=False,
            ascii_folding=False,
            max_token_length=None,
            with_position=False,
        )

    def _extend(self, column: str) -> None:
        segments.extend(self._dataset.writable(), column)
