"""Indexes of ids, digests, URIs and words.

New rows get an index segment of their own, whose cost does not grow with the collection. Segments
are merged like the runs of a log-structured merge tree: a new one takes in those before it that
are no larger. So there are few of them, and a row is indexed again only a few times.
"""

from collections.abc import Sequence

from imgsearch.events import Listener, Stage, ignore
from imgsearch.stores.lance import segments
from imgsearch.stores.lance.dataset import Dataset
from imgsearch.stores.lance.schema import WORDS

MIN_ROWS = 10_000
"""From here on an index makes a lookup ten times faster."""
MAX_UNINDEXED = 8_192
"""Rows without an index, which each lookup reads: up to these it takes twice as long."""

_KEYS = ("id", "sha256", "uri")


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
        self._index((*_KEYS, *words), listener)

    def _index(self, columns: Sequence[str], listener: Listener) -> None:
        rows = self._dataset.handle.count_rows()
        if rows < MIN_ROWS:
            return
        for column in columns:
            indexed = segments.row_counts(self._dataset.handle, column)
            new = rows - sum(indexed or ())
            if indexed is None:
                listener(Stage(f"building the index of {column} over {rows:,} records"))
                self._dataset.retry("no index can be built", lambda: self._build(column))  # noqa: B023
            elif new > MAX_UNINDEXED:
                listener(Stage(f"adding {new:,} records to the index of {column}"))
                self._dataset.retry("the index cannot be extended", lambda: self._extend(column))  # noqa: B023

    def _build(self, column: str) -> None:
        dataset = self._dataset.writable()
        if column != WORDS:
            dataset.create_scalar_index(column, "BTREE", replace=True)
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
