"""Look files up in the collection, and skip those that are unchanged.

A file is unchanged if the record of its URI has its size and mtime, and the metadata that the
tables give it.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from imgsearch.ingest import limits
from imgsearch.ingest.items import Item
from imgsearch.ingest.progress import Progress
from imgsearch.ingest.stopwatch import Stopwatch
from imgsearch.ingest.target import Target
from imgsearch.metadata import origins
from imgsearch.metadata.own import fitted
from imgsearch.metadata.table import MetadataTable
from imgsearch.sources import Candidate, Unusable
from imgsearch.system.pipeline import Flush, flush_when_slow, timed_batches
from imgsearch.types import ImageRecord, Metadata


class Lookup:
    """Yields files that are new or changed, or whose metadata has changed."""

    def __init__(
        self,
        target: Target,
        tables: Sequence[MetadataTable],
        progress: Progress,
        stopwatch: Stopwatch,
        is_ending: Callable[[], bool],
    ) -> None:
        self._target = target
        self._tables = tables
        self._progress = progress
        self._stopwatch = stopwatch
        self._is_ending = is_ending

    def __call__(self, entries: Iterable[Candidate | Unusable]) -> Iterator[Item | Flush]:
        """Yield items, and `FLUSH` when the search for the next one takes long."""
        chunks = timed_batches(
            entries,
            limits.LOOKUP_FILES,
            limits.ALERT_SECONDS,
            lambda seconds: self._stopwatch.add("scan", seconds),
        )
        with contextlib.closing(chunks):
            yield from flush_when_slow(self._changed(chunks), limits.WRITE_SECONDS)

    def _changed(self, chunks: Iterable[list[Candidate | Unusable]]) -> Iterator[Item | None]:
        """Yield the items of each chunk, then None, also for a chunk without any."""
        for chunk in chunks:
            if self._is_ending():
                return
            if not (sites := self._target.sites).at_home:
                chunk = [replace(entry, sites=sites) for entry in chunk]
            with self._stopwatch("lookup"):
                unchanged, known, previous = self._look_up(chunk)
            for entry in chunk:
                if self._is_ending():
                    return
                self._progress.found += 1
                if isinstance(entry, Unusable):
                    item = Item(Candidate(entry.path, 0, 0))
                    item.reject(entry.reason)
                    yield item
                elif entry.uri in unchanged:
                    self._progress.finish(entry.uri, "skipped")
                elif changed := self._if_changed(
                    entry, known.get(entry.id), previous.get(entry.id)
                ):
                    yield changed
                else:
                    self._progress.finish(entry.uri, "skipped")
            yield None

    def _look_up(
        self, entries: Sequence[Candidate | Unusable]
    ) -> tuple[set[str], dict[str, ImageRecord], dict[str, ImageRecord]]:
        """Return URIs that are unchanged without a look at metadata, and records of the others.

        The records are those of `Target.lookup`, by id.
        """
        candidates = [entry for entry in entries if isinstance(entry, Candidate)]
        stats = self._target.file_stats([each.uri for each in candidates])
        unchanged, ids = set[str](), list[str]()
        for each in candidates:
            stat = stats.get(each.uri)
            if stat == (each.size, each.mtime_ns) and not self._has_tables(each):
                unchanged.add(each.uri)
            elif stat or self._target.previous:
                ids.append(each.id)
        return unchanged, *self._target.lookup(ids)

    def _has_tables(self, candidate: Candidate) -> bool:
        return any(table.covers(candidate.path) for table in self._tables)

    def _if_changed(
        self, candidate: Candidate, known: ImageRecord | None, previous: ImageRecord | None
    ) -> Item | None:
        """Return an item to process, or None if the file and its metadata are unchanged.

        `previous` is the record in the collection that is being replaced, if any, else `known`.
        """
        path = candidate.path
        rows: list[tuple[origins.Table, Metadata | None]] = []
        if candidate.own:
            rows.append((candidate.own, fitted(candidate.own, self._target.fields)))
        rows += [(table, table.lookup(path)) for table in self._tables if table.covers(path)]
        metadata, owners = origins.apply_tables(known or previous, rows)
        item = Item(candidate, metadata=metadata, origins=owners, replaces=known)
        if known is None or (known.size, known.mtime_ns) != (candidate.size, candidate.mtime_ns):
            return item
        # Records of earlier versions have no origins; they alone are no reason to rewrite them.
        same_origins = known.origins is None or owners == known.origins
        if metadata == known.metadata and same_origins:
            return None
        item.status, item.reason = "reused", "metadata changed"
        return item
