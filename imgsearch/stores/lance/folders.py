"""Where a store and its datasets are: in a folder of this machine, or in object storage.

`local` and `remote` implement these protocols. Errors are OSErrors, which the callers translate.
"""

import datetime
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from enum import Enum
from typing import Protocol

from imgsearch.uris import ObjectUrl

SUFFIX = ".lance"
"""The end of the name of a dataset's folder."""

REPLACEMENT = "~next"
"""The end of the name of a dataset that is to replace another. No collection's name has a "~"."""


class Work(Enum):
    """What a reader does; the value is the name of the lock's file in a local folder."""

    READ = "_reads.lock"
    """One answer, which takes seconds at most."""
    SCAN = "_scans.lock"
    """All records, batch by batch, for as long as the caller takes."""


class DatasetFolder(Protocol):
    """The folder of one dataset."""

    @property
    def url(self) -> str:
        """The path or URL, by which Lance and messages name it."""
        ...

    @property
    def options(self) -> dict[str, str] | None:
        """Lance's storage options. They may contain secrets."""
        ...

    @property
    def writers_may_overlap(self) -> bool:
        """Whether two writers can be at work although each has had the write lock."""
        ...

    def has_versions(self) -> bool:
        """Return whether a version was written: a killed process may leave other files."""
        ...

    def size(self) -> int:
        """Return the bytes of all files."""
        ...

    def read_attachment(self, name: str) -> str | None: ...

    def write_attachment(self, name: str, text: str | None) -> None:
        """Write an attachment; None removes it."""
        ...

    def remove_attachments(self) -> None: ...

    def remove(self) -> None:
        """Delete all files, if there are any."""
        ...

    def reading(self, work: Work) -> AbstractContextManager[None]:
        """Let the writer know of a reader until the end of the context, where that is possible."""
        ...

    def age_to_keep(self) -> datetime.timedelta:
        """Return how old a version must be so that no reader needs its files."""
        ...

    def check_lock(self) -> None:
        """Raise StoreError if this process has held the write lock, and has lost it."""
        ...


class WriteLock(Protocol):
    """The right to write to one collection."""

    def acquire(self, timeout: float) -> object:
        """Wait at most `timeout` seconds. Raises TimeoutError if another process has the lock."""
        ...

    def release(self) -> None: ...


class StoreFolder(Protocol):
    """The folder of a store, which exists once something was written."""

    @property
    def url(self) -> str: ...

    def names(self) -> list[str]:
        """Return the names of the datasets that have a version, in any order."""
        ...

    def dataset(self, name: str) -> DatasetFolder: ...

    def make(self) -> None:
        """Make the folder, if it does not exist."""
        ...

    def drop(self, names: Sequence[str]) -> None:
        """Delete datasets in this order; a reader sees all of one or nothing."""
        ...

    def clean(self, name: str) -> None:
        """Remove what killed processes left; the caller holds the write lock of this collection."""
        ...

    def lock(self, name: str) -> WriteLock: ...


def open_folder(place: str | os.PathLike[str]) -> StoreFolder:
    """Return the folder of a store by its path or URL. Raises UsageError for invalid settings."""
    if isinstance(place, str) and (url := ObjectUrl.parse(place)):
        from imgsearch.stores.lance.remote import RemoteStoreFolder

        return RemoteStoreFolder(url)
    from imgsearch.stores.lance.local import LocalStoreFolder

    return LocalStoreFolder(place)
