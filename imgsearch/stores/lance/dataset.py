"""One Lance dataset: read the newest version, write with retries."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from imgsearch.errors import StaleCollectionError, StoreError
from imgsearch.stores.lance.arrow import lance, pa
from imgsearch.stores.lance.errors import translate_errors
from imgsearch.stores.lance.folders import DatasetFolder, Work
from imgsearch.stores.lance.schema import Columns, read_stamp

# Lance's own bound is a gigabyte, which the files of old versions fill in the end.
_METADATA_CACHE = 64 << 20
_ATTEMPTS = 5
_MAX_COUNTS = 64


class Dataset:
    """A dataset that others may write to. Several threads may read."""

    def __init__(self, folder: DatasetFolder) -> None:
        self.folder = folder
        self.url = folder.url
        with translate_errors(f"{self.url}: cannot be opened"):
            self.handle = lance.dataset(
                folder.url,
                metadata_cache_size_bytes=_METADATA_CACHE,
                storage_options=folder.options,
            )
        self.stamp = read_stamp(self.url, self.handle.schema)
        self.columns = Columns.of(self.handle.schema)
        # By condition, of one version: a page and its total, or page after page, need the same.
        self._counts: tuple[int, dict[str | None, int]] = (0, {})

    def newest(self) -> lance.LanceDataset:
        """Return a handle of the newest version, which threads can share as nobody changes it."""
        dataset = self.handle
        version = dataset.latest_version
        if version != dataset.version:
            dataset = dataset.checkout_version(version)
            if read_stamp(self.url, dataset.schema) != self.stamp:
                raise StaleCollectionError(
                    f"{self.url}: the collection has been replaced by one of another model: "
                    "open it again"
                )
            self.handle = dataset
            self.columns = Columns.of(dataset.schema)
        return dataset

    def writable(self) -> lance.LanceDataset:
        """Return a handle of the newest version for one write, which changes the handle."""
        return self.newest().checkout_version(self.handle.version)

    @contextlib.contextmanager
    def reading(self, work: Work = Work.READ) -> Iterator[lance.LanceDataset]:
        """Return a handle of the newest version, whose files stay until the end of the context."""
        with (
            translate_errors(f"{self.url}: cannot be read"),
            self.folder.reading(work),
        ):
            yield self.newest()

    def refresh(self) -> Columns:
        """Return the columns of the newest version."""
        with self.reading():
            return self.columns

    def read(
        self,
        columns: list[str],
        condition: str | None,
        version: lance.LanceDataset | None = None,
        **options: Any,
    ) -> pa.Table:
        """Return the rows that meet a condition, of a version, by default the newest."""
        with self.reading() as newest:
            dataset = version or newest
            return dataset.scanner(columns=columns, filter=condition, **options).to_table()

    def batches(
        self,
        columns: list[str],
        condition: str | None,
        version: lance.LanceDataset | None = None,
        work: Work = Work.READ,
        **options: Any,
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows that meet a condition, of a version, by default the newest."""
        with self.reading(work) as newest:
            dataset = version or newest
            scanner = dataset.scanner(columns=columns, filter=condition, **options)
            yield from scanner.to_batches()

    def count(self, condition: str | None = None) -> int:
        with self.reading() as newest:
            version, counts = self._counts
            if version != newest.version or len(counts) >= _MAX_COUNTS:
                counts = {}
                self._counts = (newest.version, counts)
            if (known := counts.get(condition)) is None:
                known = counts[condition] = int(newest.count_rows(filter=condition))
            return known

    def add_columns(self, columns: list[pa.Field]) -> None:
        with translate_errors(f"{self.url}: no column can be added"):
            self.folder.check_lock()
            self.writable().add_columns(columns)
            self.newest()

    def retry(self, problem: str, write: Callable[[], object]) -> None:
        """Call `write` until no other commit overtakes it.

        Lance rejects a commit that conflicts with a newer one; on the newest version it works.
        """
        for attempt in range(_ATTEMPTS):
            try:
                with translate_errors(f"{self.url}: {problem}"):
                    self.folder.check_lock()
                    write()
                    self.newest()
                return
            except StoreError as error:
                if attempt == _ATTEMPTS - 1 or "conflict" not in str(error).lower():
                    raise
                time.sleep(0.05 * 2**attempt)
