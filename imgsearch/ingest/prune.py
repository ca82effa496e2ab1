"""Remove the records of deleted files, unless a drive or a sync seems to be missing.

An unmounted drive or a failed sync leaves a folder most or all of whose files are missing. The
records of such a folder are retained: a folder with at least `MIN_MISSING` missing files that are
more than half of its files, and a source folder of which nothing is left.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from imgsearch.events import Listener, Note, Outcome
from imgsearch.ingest.verify import WriteVerifier
from imgsearch.stores.base import Collection
from imgsearch.types import ImageRecord

MIN_MISSING = 100
"""A folder with fewer missing files is always pruned."""
# Maximum number of folders counted separately; beyond it the source is judged as a whole.
_MAX_FOLDERS = 200_000


@dataclass(frozen=True, slots=True)
class UnprunedFolder:
    """A folder whose records are retained, with its numbers of missing and present files."""

    path: str
    missing: int
    present: int


@dataclass(frozen=True)
class Survey:
    """The number of missing files, and the folders to retain, none inside another."""

    missing: int
    retained: tuple[UnprunedFolder, ...] = ()

    def retains(self, path: str) -> bool:
        """Return whether a file is in one of the folders to retain."""
        retained = self._retained_paths
        return bool(retained) and any(folder in retained for folder in _ancestors(path))

    @cached_property
    def _retained_paths(self) -> frozenset[str]:
        return frozenset(folder.path for folder in self.retained)


class Pruner:
    """Removes the records of deleted files, and collects the folders that it leaves alone."""

    def __init__(self, listener: Listener, *, prune_missing: bool = False) -> None:
        """`prune_missing` is that of `IngestOptions`."""
        self._listener = listener
        self._prune_missing = prune_missing
        self.unpruned: list[UnprunedFolder] = []

    def prune(self, collection: Collection, folder: str, verifier: WriteVerifier) -> int:
        """Remove the records of deleted files under a folder. Returns their number."""
        prefix = collection.sites.uri(folder).removesuffix("/") + "/"
        found = self.survey(lambda: collection.scan(prefix), folder)
        removed = 0
        for records in collection.scan(prefix) if found.missing else ():
            deleted = [
                record
                for record in records
                if is_deleted(record) and not found.retains(record.path)
            ]
            ids = [record.id for record in deleted]
            count = collection.delete(ids)
            verifier.record_removal(ids, count)
            removed += count
            for record in deleted:
                self._listener(Outcome(record.uri, "removed", "the file was deleted"))
        return removed

    def survey(
        self, records: Callable[[], Iterable[list[ImageRecord]]], source: str | None = None
    ) -> Survey:
        """Survey records as `survey` does, and report the folders that are retained."""
        found = survey(records, source)
        if self._prune_missing:
            return Survey(found.missing)
        for folder in found.retained:
            self.unpruned.append(folder)
            total = folder.missing + folder.present
            self._listener(
                Note(
                    f"nothing pruned under {folder.path}: {folder.missing:,} of its {total:,} "
                    "images are missing; is a drive not mounted, or a sync incomplete?"
                )
            )
        return found


def survey(records: Callable[[], Iterable[list[ImageRecord]]], source: str | None = None) -> Survey:
    """Look for the files of records, which are read a second time if many are missing.

    All files are below the folder `source`, or anywhere if it is None.
    """
    missing_in: Counter[str] = Counter()
    missing = total = 0
    crowded = False
    for batch in records():
        total += len(batch)
        for record in batch:
            if is_deleted(record):
                missing += 1
                if not crowded:
                    missing_in.update(_ancestors(record.path, source))
                    crowded = len(missing_in) > _MAX_FOLDERS
    if source is not None and missing and (missing == total or crowded):
        return Survey(missing, (UnprunedFolder(source, missing, total - missing),))
    suspects = {folder: count for folder, count in missing_in.items() if count >= MIN_MISSING}
    if not suspects:
        return Survey(missing)
    totals: Counter[str] = Counter()
    for batch in records():
        for record in batch:
            totals.update(
                folder for folder in _ancestors(record.path, source) if folder in suspects
            )
    present = {folder: totals[folder] - count for folder, count in suspects.items()}
    return Survey(missing, tuple(_retained(suspects, present)))


def _retained(missing: dict[str, int], present: dict[str, int]) -> Iterator[UnprunedFolder]:
    """Yield the topmost folders to retain: first the empty ones, such as unmounted drives.

    The missing files of a retained folder do not count for the folders above it.
    """
    found: set[str] = set()
    for is_empty in (True, False):
        for folder in sorted(missing, key=len):
            suspect = not present[folder] if is_empty else missing[folder] > present[folder]
            above = list(_ancestors(folder))
            if suspect and missing[folder] >= MIN_MISSING and not found & {folder, *above}:
                found.add(folder)
                yield UnprunedFolder(folder, missing[folder], present[folder])
                for each in above:
                    if each in missing:
                        missing[each] -= missing[folder]


def _ancestors(path: str, source: str | None = None) -> Iterator[str]:
    """Yield the folders that a file is in, from its own up to `source` or the root."""
    while path != source and (folder := os.path.dirname(path)) != path:
        yield folder
        path = folder


def is_deleted(record: ImageRecord) -> bool:
    """Return whether the system says that a record's file does not exist.

    False if the file cannot be accessed, or is on another machine: then nobody can know.
    """
    if record.site:
        return False
    try:
        os.lstat(record.path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
