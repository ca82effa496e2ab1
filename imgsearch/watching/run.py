"""Ingest what changes in folders, after a first ingest of all that is in them."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from imgsearch.errors import (
    CollectionNotFoundError,
    ImgsearchError,
    MetadataError,
    NothingFoundError,
    SourceError,
)
from imgsearch.events import Listener, Note, ignore
from imgsearch.ingest import IngestReport
from imgsearch.ingest.prune import MIN_MISSING, is_deleted
from imgsearch.metadata.table import find_for
from imgsearch.sources import Candidate, ScanLog, Sources, is_wanted, resolve, scan
from imgsearch.stores.base import Collection, VectorStore
from imgsearch.types import ImageRecord, Value
from imgsearch.uris import canonical_path, record_id
from imgsearch.watching.changes import Batch, Changes, mounts_below
from imgsearch.watching.pending import Pending

# How long the record of a missing file waits for the file to appear at another place.
_RENAME_SECONDS = 2.0
# Records of missing files that are compared with new ones.
_MAX_GONE = 10_000
_RETRY_SECONDS = 5.0
# After this time without a change, folders that are scanned quickly are scanned once more.
_QUIET_SECONDS = 5.0
_QUICK_SCAN_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """Options of watching."""

    prune: bool = False
    """Remove the records of deleted files."""
    settle: float = 0.5
    """Seconds for which a file must have the same size and mtime before it is read."""
    rescan: float = 3600.0
    """Seconds between two scans of all folders, in case events were lost."""


class Index(Protocol):
    """What is used of an `ImageIndex`."""

    @property
    def name(self) -> str: ...

    @property
    def store(self) -> VectorStore: ...

    @property
    def collection(self) -> Collection: ...

    def add(
        self,
        *sources: str,
        metadata: str | None = None,
        prune: bool = False,
        stdin: Iterable[str] = (),
        listener: Listener | None = None,
        stop: threading.Event | None = None,
    ) -> IngestReport: ...

    def remove(self, ids: Sequence[str]) -> int: ...


def watch(
    index: Index,
    folders: Sequence[str],
    options: WatchOptions | None = None,
    *,
    listener: Listener = ignore,
    reported: Callable[[IngestReport], None] = lambda _: None,
    stop: threading.Event,
) -> None:
    """Ingest folders, then what changes in them, until `stop` is set.

    `reported` gets the report of each ingest. A renamed file keeps its vector and metadata. Records
    are removed only with `options.prune`, and not if a folder is missing or empty, or most files of
    a folder are missing. After the first ingest, errors are reported as notes, and the ingest is
    tried again. Raises SourceError if a folder does not exist or cannot be watched, and what the
    first ingest raises.
    """
    sources = resolve(folders)
    others = sources.files or sources.globs or sources.may_have_objects
    if others or not sources.folders:
        raise SourceError("only folders can be watched")
    watcher = _Watcher(index, sources.folders, options or WatchOptions(), listener, reported, stop)
    watcher.run()


class _Watcher:
    def __init__(
        self,
        index: Index,
        folders: Sequence[str],
        options: WatchOptions,
        listener: Listener,
        reported: Callable[[IngestReport], None],
        stop: threading.Event,
    ) -> None:
        self._index = index
        self._folders = folders
        self._options = options
        self._listener = listener
        self._reported = reported
        self._stop = stop
        self._pending = Pending(options.settle)
        # Records of missing files, with the time at which they were missed.
        self._gone: dict[str, tuple[ImageRecord, float]] = {}
        self._missing: tuple[str, ...] = ()
        self._due: set[str] = set()
        self._prune_due = options.prune
        # All file systems that were mounted below the folders at any time.
        self._mounts: set[str] = set()
        self._not_before = 0.0
        self._scanned = self._active = 0.0
        self._scan_seconds = 0.0
        self._is_confirmed = True

    def run(self) -> None:
        changes = Changes(self._folders)
        try:
            self._scan(self._folders)
            if not self._stop.is_set():
                self._listener(Note(f"watching {', '.join(self._folders)}"))
            for batch in changes:
                if self._stop.is_set():
                    break
                self._note_missing(batch)
                self._act(batch)
        finally:
            changes.close()

    def _note_missing(self, batch: Batch) -> None:
        for folder in self._folders:
            self._mounts |= mounts_below(folder)
        for folder in set(batch.missing) - set(self._missing):
            self._listener(Note(f"{folder} is not there: waiting for it; nothing is removed"))
        self._missing = batch.missing

    def _act(self, batch: Batch) -> None:
        now = time.monotonic()
        try:
            if batch.paths:
                self._active, self._is_confirmed = now, False
            for path in batch.paths:
                self._notice(path)
            self._due.update(batch.lost)
            if self._is_rescan_due(now):
                self._due.update(self._folders)
            if now < self._not_before:
                return
            ready = list(self._pending.ready())
            missing = [path for path in ready if not os.path.lexists(path)]
            for path in missing:
                self._miss(path)
            if self._due:
                folders = [each for each in self._folders if each in self._due]
                self._scan(each for each in folders if each not in self._missing)
                self._due.clear()
            elif present := [path for path in ready if path not in set(missing)]:
                self._add(present)
            self._settle_gone()
        except ImgsearchError as error:
            self._listener(Note(f"{error}; trying again in {_RETRY_SECONDS:.0f} s"))
            self._not_before = time.monotonic() + _RETRY_SECONDS
            self._due.update(self._folders)

    def _is_rescan_due(self, now: float) -> bool:
        if now - self._scanned >= self._options.rescan:
            return True
        is_quiet = not self._pending and now - self._active >= _QUIET_SECONDS
        is_quick = self._scan_seconds <= _QUICK_SCAN_SECONDS
        return not self._is_confirmed and is_quiet and is_quick

    def _scan(self, folders: Iterable[str]) -> None:
        """Ingest everything in the folders."""
        started = time.monotonic()
        if some := list(folders):
            # Only what events tell is removed later: of a drive that is not mounted any more,
            # a scan finds all files missing.
            self._ingest(*some, prune=self._prune_due and not self._unmounted())
            self._prune_due = False
        self._scanned = time.monotonic()
        self._scan_seconds = self._scanned - started
        self._is_confirmed = True

    def _ingest(
        self,
        *sources: str,
        prune: bool = False,
        metadata: str | None = None,
        stdin: Iterable[str] = (),
    ) -> None:
        try:
            report = self._index.add(
                *sources,
                prune=prune,
                metadata=metadata,
                stdin=stdin,
                listener=self._listener,
                stop=self._stop,
            )
        except NothingFoundError:
            return
        if report.found > report.skipped or report.removed:
            self._reported(report)

    def _unmounted(self) -> set[str]:
        """Return the places of file systems that are not mounted any more."""
        return self._mounts.difference(*(mounts_below(folder) for folder in self._folders))

    def _folder_of(self, path: str) -> str | None:
        above = (each for each in self._folders if path.startswith(os.path.join(each, "")))
        return max(above, key=len, default=None)

    def _notice(self, path: str) -> None:
        """Decide what a change of a path means."""
        folder = self._folder_of(path)
        if folder is None:
            return
        if path == find_for(folder):
            self._due.add(folder)  # the metadata of all its images may have changed
        elif not os.path.lexists(path):
            self._miss(path)
        elif os.path.isdir(path):
            # What was in it before it was watched has no events.
            if is_wanted(path, folder):
                for found in scan(Sources((path,)), ScanLog(), stopped=self._stop.is_set):
                    if isinstance(found, Candidate):
                        self._pending.add(found.path)
        elif is_wanted(path, folder):
            self._pending.add(path)

    def _miss(self, path: str) -> None:
        """Remember the records of a file or folder that is not there any more."""
        try:
            collection = self._index.collection
        except CollectionNotFoundError:
            return
        now = time.monotonic()
        uri = collection.sites.uri(path)
        known = collection.lookup([record_id(uri)])
        if known:
            self._gone.update((key, (record, now)) for key, record in known.items())
            return
        for records in collection.scan(uri + "/"):
            if len(self._gone) + len(records) > _MAX_GONE:
                if self._options.prune and (folder := self._folder_of(path)):
                    self._due.add(folder)
                    self._prune_due = True
                return
            self._gone.update((each.id, (each, now)) for each in records)

    def _add(self, paths: Sequence[str]) -> None:
        """Ingest files, with the table of the folder that they are in."""
        by_folder: dict[str, list[str]] = {}
        for path in paths:
            if folder := self._folder_of(path):
                by_folder.setdefault(folder, []).append(path)
        for folder, some in by_folder.items():
            table = find_for(folder)
            try:
                self._ingest("-", metadata=table, stdin=some)
            except MetadataError:  # it may have nothing to do with the images
                self._ingest("-", stdin=some)
            self._move_records(some)

    def _move_records(self, paths: Sequence[str]) -> None:
        """Move the metadata of renamed files to their new records, and remove the old ones."""
        if not self._gone:
            return
        collection = self._index.collection
        ids = [record_id(collection.sites.uri(canonical_path(path))) for path in paths]
        new = {record.sha256: record for record in collection.lookup(ids).values()}
        for key, (old, _) in list(self._gone.items()):
            record = new.pop(old.sha256, None)
            if record is None or not is_deleted(old) or not self._is_there(old.path):
                continue
            with self._index.store.write_lock(self._index.name, self._listener):
                if values := _own_values(old, record):
                    collection.update_metadata(
                        {record.id: values}, {record.id: dict.fromkeys(values)}
                    )
                collection.delete([key])
            del self._gone[key]

    def _is_there(self, path: str) -> bool:
        """Return whether the watched folder of a path exists and is not empty.

        False also if the file system that the path was on is not mounted any more.
        """
        folder = self._folder_of(path)
        if any(path.startswith(os.path.join(each, "")) for each in self._unmounted()):
            return False
        try:
            return folder is not None and any(True for _ in _entries(folder))
        except OSError:
            return False

    def _settle_gone(self) -> None:
        """Forget, or remove, the records whose files have not appeared at another place."""
        if not self._gone or self._pending:
            return
        limit = time.monotonic() - _RENAME_SECONDS
        late = [record for record, since in self._gone.values() if since <= limit]
        for record in late:
            del self._gone[record.id]
        if not late or not self._options.prune:
            return
        if len(late) >= MIN_MISSING:  # a drive may be missing: pruning decides that
            self._due.update(filter(None, (self._folder_of(each.path) for each in late)))
            self._prune_due = True
            return
        doomed = [each for each in late if is_deleted(each) and self._is_there(each.path)]
        if doomed:
            removed = self._index.remove([each.id for each in doomed])
            self._listener(Note(f"{removed:,} removed, as their files were deleted"))


def _entries(folder: str) -> Iterator["os.DirEntry[str]"]:
    with os.scandir(folder) as entries:
        yield from entries


def _own_values(old: ImageRecord, new: ImageRecord) -> dict[str, Value | None]:
    """Return the values of a record that no table has set, and the new one does not have."""
    owned = old.origins or {}
    return {
        name: value
        for name, value in old.metadata.items()
        if name not in owned and name not in new.metadata
    }
