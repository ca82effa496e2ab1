"""Add, change and remove records."""

import copy
import dataclasses
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from imgsearch import config
from imgsearch.editing import set_metadata
from imgsearch.encoders.base import Encoder
from imgsearch.encoders.request import EncoderRequest
from imgsearch.events import Listener, ignore
from imgsearch.index.core import IndexCore
from imgsearch.types import (
    ImageRecord,
    Stamp,
    Value,
)

if TYPE_CHECKING:
    from imgsearch.ingest import IngestReport


class Changing(IndexCore):
    """The changes of an index."""

    def add(
        self,
        *sources: str | os.PathLike[str],
        metadata: str | None = None,
        batch_size: int | None = None,
        workers: int | None = None,
        limit: int | None = None,
        prune: bool = False,
        prune_missing: bool = False,
        replace: bool = False,
        count_ahead: bool = False,
        on: str | None = None,
        stdin: Iterable[str] = (),
        progress: bool = False,
        listener: Listener | None = None,
        stop: threading.Event | None = None,
    ) -> "IngestReport":
        """Add images to the collection, which is created if necessary; skip unchanged ones.

        Args:
            sources: Folders, which are searched recursively, files, globs, or `"-"` for the paths
                in `stdin`.
            metadata: A CSV file; by default, the `styles.csv` of each folder.
            batch_size: Images per batch of the model; the default depends on the device.
            workers: Threads that read and decode; by default, one per core, at most 16.
            limit: The maximum number of files to read from the sources.
            prune: Remove the records of deleted files. A folder most of whose files are missing is
                left alone; see `IngestReport.unpruned`.
            prune_missing: Prune such folders too.
            replace: Make the collection again with the index's `model`, `precision` and
                `vector_dtype`. Another model or precision embeds all images again.
            count_ahead: Count the files while they are processed, and report the total to the
                listener.
            on: `"ray"`, `"HOST:PORT"` of a Ray cluster or `"local"`: read, decode and encode there,
                with `workers` cores for each worker; by default, in this process.
            stdin: Paths of files, for the source `"-"`.
            progress: Show progress bars, in a terminal or a notebook.
            listener: Receives events, instead of the index's own listener.
            stop: When set, the run ends early; images in progress are still written.

        Returns:
            What was found, and what happened to it. An unusable image is not an error; it is
            reported with the reason.

        Raises:
            SourceError: A source cannot be read.
            NothingFoundError: The sources contain no image.
            MetadataError: The CSV file is invalid or does not fit the collection.
            CollectionMismatchError: The collection was made with another model, precision or
                number format.
            StoreError: The store fails. Images written before stay.
            ClusterError: The cluster cannot be used, or its workers die one after the other.
            MissingLibraryError: The extra `ray` is not installed.
        """
        from imgsearch.ingest import IngestOptions, ingest  # not needed by searches

        options = IngestOptions(
            batch_size=batch_size,
            workers=workers or config.default_workers(),
            metadata=metadata,
            limit=limit,
            prune=prune,
            prune_missing=prune_missing,
            replace=replace,
            vector_dtype=self._vector_dtype,
            max_pixels=self._max_pixels,
            count_ahead=count_ahead or progress,
        )
        names = [os.fspath(source) for source in sources]
        with self._reporting(listener, progress) as reporting, ExitStack() as cleanup:
            request, elsewhere = self._request, None
            if on:
                from imgsearch.cluster import open_cluster

                elsewhere = cleanup.enter_context(
                    open_cluster(
                        on,
                        self._encoder_opener,
                        request,
                        cores=workers,
                        folders=[os.path.realpath(name) for name in names if os.path.isdir(name)],
                        batch_size=batch_size,
                        max_pixels=self._max_pixels,
                        listener=reporting,
                    )
                )
                # Here the model is only prepared, on a machine that may have no GPU.
                request = dataclasses.replace(request, device="cpu")
            return ingest(
                names,
                self.store,
                self._name,
                request,
                options,
                stdin=stdin,
                listener=reporting,
                stop=stop,
                encoder_opener=self._encoder_opener,
                elsewhere=elsewhere,
            )

    def watch(
        self,
        *folders: str | os.PathLike[str],
        prune: bool = False,
        settle: float = 0.5,
        rescan: float = 3600.0,
        reported: "Callable[[IngestReport], None]" = lambda _: None,
        listener: Listener | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        """Add the images of folders, then what changes in them, until `stop` is set.

        A renamed file keeps its vector and metadata. The model stays loaded.

        Args:
            folders: Folders, which are watched recursively.
            prune: Remove the records of deleted files, unless a folder is missing or empty, or
                most of its files are missing.
            settle: Seconds for which the size and mtime of a file must not change before it is
                read.
            rescan: Seconds between two scans of all folders, in case events were lost.
            reported: Receives the report of each ingest that changed something.
            listener: Receives events, instead of the index's own listener.
            stop: When set, it returns after the images in progress are written.

        Raises:
            SourceError: A folder does not exist, or cannot be watched.
            StoreError: The first ingest fails, as in `add`. Later errors are passed to the listener
                as notes, and the ingest is tried again.
        """
        from imgsearch.watching import WatchOptions, watch  # not needed by searches

        index = copy.copy(self)
        index._encoder_opener = _opening_once(self._encoder_opener)
        listener = listener or self._listener
        watch(
            index,
            [os.fspath(folder) for folder in folders],
            WatchOptions(prune=prune, settle=settle, rescan=rescan),
            listener=listener,
            reported=reported,
            stop=stop or threading.Event(),
        )

    def set_metadata(self, record_id: str, changes: Mapping[str, Value | None]) -> ImageRecord:
        """Set metadata fields of a record, and remove those whose value is None.

        A new field gets the type of its value. A later ingest overwrites a field only if a table
        has a value for it.

        Args:
            record_id: The id of the record.
            changes: Values by field.

        Returns:
            The changed record.

        Raises:
            RecordNotFoundError: There is no record with this id.
            MetadataError: A value is not of its field's type, or cannot be stored exactly.
        """
        with self.store.write_lock(self._name, self._listener):
            return self._handles.use(
                lambda collection: set_metadata(collection, record_id, changes)
            )

    def remove(self, ids: str | Sequence[str]) -> int:
        """Remove the records with these ids, or this id, but not their files.

        Returns how many existed. See `remove_paths` for those of files.
        """
        ids = [ids] if isinstance(ids, str) else ids
        with self.store.write_lock(self._name, self._listener):
            return self._handles.use(lambda collection: collection.delete(ids))

    def remove_paths(self, paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> int:
        """Remove the records of files, and of all files in folders, but not the files.

        The files need not exist any more. Returns the number of removed records. Raises
        RecordNotFoundError, and removes nothing, if there is no record for one of the paths.
        """
        from imgsearch.removal import remove_paths  # not needed by searches

        paths = [paths] if isinstance(paths, str | os.PathLike) else paths
        with self.store.write_lock(self._name, self._listener):
            return self._handles.use(lambda collection: remove_paths(collection, paths))

    def drop(self) -> int:
        """Delete the whole collection, but no files. Returns the number of its records."""
        records = self._handles.use(lambda collection: collection.count())
        self._handles.drop()
        return records


def _opening_once(opener: Callable[..., Encoder]) -> Callable[..., Encoder]:
    """Return an opener that keeps the encoders of collections open."""
    opened: dict[Stamp, Encoder] = {}

    def open_encoder(
        request: EncoderRequest, stamp: Stamp | None = None, listener: Listener = ignore
    ) -> Encoder:
        if stamp is not None and stamp in opened:
            return opened[stamp]
        encoder = opener(request, stamp, listener)
        return opened.setdefault(encoder.stamp, encoder)

    return open_encoder
