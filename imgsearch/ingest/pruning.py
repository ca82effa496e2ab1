"""Whether records of files that are gone may be removed, or tell of a drive that is away.

A drive that is not mounted, and a sync that has failed, leave a folder behind of which most or all
is missing. A folder is in doubt if it had at least `MANY` images of which more than half are gone;
and whatever was named as a source is in doubt if nothing is left of it.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from imgsearch.types import ImageRecord

# Fewer deletions than this in one folder are never in doubt.
MANY = 100
# Maximum number of folders counted separately; beyond it the whole source is in doubt.
_MOST_FOLDERS = 200_000


@dataclass(frozen=True, slots=True)
class DoubtfulFolder:
    """A folder whose records are kept, with the numbers of files that are gone and still there."""

    path: str
    missing: int
    present: int


@dataclass(frozen=True)
class Survey:
    """How many files are gone, and the folders in doubt, none of which is inside another."""

    missing: int
    doubtful: tuple[DoubtfulFolder, ...] = ()

    def covers(self, path: str) -> bool:
        """Whether a file is in a folder in doubt."""
        doubtful = self._doubtful_paths
        return bool(doubtful) and any(folder in doubtful for folder in _ancestors(path))

    @cached_property
    def _doubtful_paths(self) -> frozenset[str]:
        return frozenset(folder.path for folder in self.doubtful)


def survey(records: Callable[[], Iterable[list[ImageRecord]]], source: str | None = None) -> Survey:
    """Look for the files of the records, which are read twice if many are gone.

    All are below the folder `source`, or anywhere if it is None.
    """
    gone: Counter[str] = Counter()
    missing = total = 0
    crowded = False
    for batch in records():
        total += len(batch)
        for record in batch:
            if is_gone(record):
                missing += 1
                if not crowded:
                    gone.update(_ancestors(record.path, source))
                    crowded = len(gone) > _MOST_FOLDERS
    if source is not None and missing and (missing == total or crowded):
        return Survey(missing, (DoubtfulFolder(source, missing, total - missing),))
    large = {folder: count for folder, count in gone.items() if count >= MANY}
    if not large:
        return Survey(missing)
    totals: Counter[str] = Counter()
    for batch in records():
        for record in batch:
            totals.update(folder for folder in _ancestors(record.path, source) if folder in large)
    present = {folder: totals[folder] - count for folder, count in large.items()}
    return Survey(missing, tuple(_doubtful(large, present)))


def _doubtful(gone: dict[str, int], present: dict[str, int]) -> Iterator[DoubtfulFolder]:
    """The topmost folders in doubt: first those of which nothing is left, as drives that are away.

    What they explain is not held against the folders above them.
    """
    found: set[str] = set()
    for nothing_left in (True, False):
        for folder in sorted(gone, key=len):
            doubtful = not present[folder] if nothing_left else gone[folder] > present[folder]
            above = list(_ancestors(folder))
            if doubtful and gone[folder] >= MANY and not found.intersection((folder, *above)):
                found.add(folder)
                yield DoubtfulFolder(folder, gone[folder], present[folder])
                for each in above:
                    if each in gone:
                        gone[each] -= gone[folder]


def _ancestors(path: str, source: str | None = None) -> Iterator[str]:
    """The folders that a file is in, from its own to `source`, or to the root."""
    while path != source and (folder := os.path.dirname(path)) != path:
        yield folder
        path = folder


def is_gone(record: ImageRecord) -> bool:
    """Only if the system says that there is no such file: no access, or no answer, is not gone.

    A file of another machine is never gone: this one cannot know.
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
