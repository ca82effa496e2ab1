"""Indexes, compaction and old versions of a dataset.

Each write leaves an old version, whose files are removed as soon as nobody needs them, so that a
collection at rest takes little more than its records: compacting writes them all again. An old
version is kept

- for a day at most while a reader scans all records, as a copy of a large collection does;
- for a minute while a reader searches or looks something up, which takes seconds;
- for two seconds otherwise;
- for an hour where it is not known whether there are readers: on Windows, on file systems without
  locks, and in object storage.

A process that is killed is no reader any more (see `local` and `readers`). The removal follows
compaction, `optimize`, and every sixty-fourth version.
"""

import contextlib
from collections.abc import Callable

from imgsearch.errors import StoreError
from imgsearch.events import Listener, Stage
from imgsearch.stores.lance import vector_index
from imgsearch.stores.lance.dataset import Dataset
from imgsearch.stores.lance.scalar_indexes import ScalarIndexes

# A search that compares all takes a third of the time where fragments are of two thousand rows, not
# of all (44,000 of 2048: 250 ms, 750 ms). Where no search does, few files count more.
_ROWS_PER_FRAGMENT = 2_048
_ROWS_PER_LARGE_FRAGMENT = 16_384
_ROWS_PER_LARGE_FRAGMENT_AT_REST = 262_144
# So many small ones are merged, which takes 100 MB, also while an ingest still runs. Fewer slow
# nothing: a search among 6,400 of 1280 takes 35 ms in a hundred fragments, 85 ms in one.
_SMALL_FRAGMENTS = 128
# How often the rows without an index are counted while an ingest runs: an upsert has up to 512.
_UPSERTS_BETWEEN_INDEXING = 16
# Edits and uploads, one by one, leave a fragment of a few rows and three files each. After so many
# versions, by any writer, such fragments are merged if there are more than a few: by 64 at a
# time this costs an edit 2 ms on average.
_VERSIONS_BETWEEN_CLEANUPS = 64
_TINY_FRAGMENT = 256
_TINY_FRAGMENTS = 32


class Maintenance:
    """Keeps one dataset quick to read and small on disk."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._scalar_indexes = ScalarIndexes(dataset)
        self.vector_index = vector_index.VectorIndex(dataset)
        self._upserts = 0

    def commit(self, problem: str, write: Callable[[], object]) -> None:
        """Write, and clean up once every few versions."""
        before = self._dataset.handle.version
        self._dataset.retry(problem, write)
        after = self._dataset.handle.version
        if before // _VERSIONS_BETWEEN_CLEANUPS != after // _VERSIONS_BETWEEN_CLEANUPS:
            # The write succeeded. The next one tries again, and `optimize` reports errors.
            with contextlib.suppress(StoreError):
                self._clean_up()

    def after_upsert(self) -> None:
        """Compact and index in the middle of a long ingest."""
        self._upserts += 1
        if self._upserts % _SMALL_FRAGMENTS == 0:
            self._compact(self._rows_per_fragment(_ROWS_PER_LARGE_FRAGMENT))
        if self._upserts % _UPSERTS_BETWEEN_INDEXING == 0:
            self._scalar_indexes.index_keys()
        self.vector_index.after_upsert()

    def optimize(self, listener: Listener) -> None:
        """Compact, and build or extend the indexes, if it is time to."""
        self._dataset.refresh()
        target = self._rows_per_fragment(_ROWS_PER_LARGE_FRAGMENT_AT_REST)
        fragments = self._dataset.handle.get_fragments()
        if sum(f.count_rows() < target // 2 for f in fragments) > _SMALL_FRAGMENTS:
            listener(Stage("compacting"))
            self._compact(target)
        self._scalar_indexes.index_all(listener)
        self.vector_index.optimize(listener)
        self._dataset.retry("old versions cannot be removed", self._remove_old_versions)

    def has_index(self, column: str) -> bool:
        return column in self.indexed_rows()

    def indexed_rows(self) -> dict[str, int]:
        """Return how many rows the index of each indexed column covers."""
        return {
            description.field_names[0]: int(description.num_rows_indexed)
            for description in self._dataset.handle.describe_indices()
        }

    def _rows_per_fragment(self, large: int) -> int:
        compared = self._dataset.handle.count_rows() < vector_index.MIN_ROWS
        return _ROWS_PER_FRAGMENT if compared else large

    def _clean_up(self) -> None:
        """Merge what single edits have left, so that neither files nor searches grow with them."""
        sizes = [each.count_rows() for each in self._dataset.handle.get_fragments()]
        if sum(size < _TINY_FRAGMENT for size in sizes) > _TINY_FRAGMENTS:
            self._compact(_ROWS_PER_FRAGMENT)
            self._scalar_indexes.index_keys()
        else:
            self._dataset.retry("old versions cannot be removed", self._remove_old_versions)

    def _remove_old_versions(self) -> None:
        dataset = self._dataset.writable()
        # After that: a reader that begins now reads this version, or a newer one.
        dataset.cleanup_old_versions(older_than=self._dataset.folder.age_to_keep())

    def _compact(self, rows_per_fragment: int) -> None:
        def compact() -> None:
            dataset = self._dataset.writable()
            dataset.optimize.compact_files(target_rows_per_fragment=rows_per_fragment)
            self._remove_old_versions()

        self._dataset.retry("cannot be compacted", compact)
