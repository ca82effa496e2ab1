"""Look at a collection as a whole: duplicates, differences, a map."""

import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from imgsearch import config
from imgsearch.encoders.base import Encoder
from imgsearch.encoders.request import EncoderRequest
from imgsearch.errors import SourceError
from imgsearch.events import Listener
from imgsearch.index.core import Where
from imgsearch.index.searching import Searching
from imgsearch.search import (
    parse_conditions,
)
from imgsearch.stores.base import Collection

if TYPE_CHECKING:
    from imgsearch.analysis.diff import Diff
    from imgsearch.duplicates import DuplicateGroup
    from imgsearch.index import ImageIndex
    from imgsearch.map import MapReport


class Overview(Searching):
    """What an index says about all its images."""

    def duplicates(
        self,
        *sources: str | os.PathLike[str],
        min_score: float | None = None,
        keep: str = "largest",
        exact_only: bool = False,
        where: Where = (),
        workers: int | None = None,
        stdin: Iterable[str] = (),
        progress: bool = False,
        listener: Listener | None = None,
        stop: threading.Event | None = None,
    ) -> "Iterator[DuplicateGroup]":
        """Yield groups of exact copies and near-duplicates. Nothing is ever removed.

        Near-duplicates are images that were encoded again, resized, recolored, or cropped by up to
        20 %. Candidates have similar vectors; then their files are compared, so that different
        images with similar vectors are not among them. Each member has been compared with the image
        to keep. With sources, finds which of their images are in the collection already: each
        has a group of its own, whose image to keep is in the collection.

        Args:
            sources: Folders, files, globs, or `"-"` for the paths in `stdin`. Without any, the
                images of the collection are compared with each other.
            min_score: The least cosine similarity of candidates. By default it is calibrated on a
                sample of the collection, for which the model is opened.
            keep: Which image of a group to keep: `largest` (most pixels, then the largest file,
                then the oldest), `largest-file`, `oldest`, `newest` or `first-path`.
            exact_only: Find only images with the same content.
            where: Conditions on the metadata of the images of the collection; all must hold.
            workers: Threads that read, decode and compare; by default, one per core, at most 16.
            stdin: Paths of files, for the source `"-"`.
            progress: Show progress bars, in a terminal or a notebook.
            listener: Receives events, instead of the index's own listener. An `Outcome` whose
                status is `rejected` has the reason why a file cannot be compared.
            stop: When set, the search ends early.

        Returns:
            The groups, those of the collection in the order of the images to keep.

        Raises:
            SourceError: A source cannot be read.
            NothingFoundError: The sources contain no image.
            ScratchError: There is no room for temporary files.
            UsageError: A condition or `keep` is invalid.
        """
        from imgsearch.duplicates import DuplicateOptions, find_duplicates, find_in_collection
        from imgsearch.duplicates.calibrate import calibrated_score
        from imgsearch.duplicates.find import NEIGHBORS
        from imgsearch.stores.factory import is_server

        listener = listener or self._listener
        workers = workers or config.default_workers()
        collection = self.collection
        conditions = parse_conditions(collection, where, listener)
        options = DuplicateOptions(1.0, keep, exact_only, workers, self._max_pixels)

        def groups(listener: Listener) -> "Iterator[DuplicateGroup]":
            score = min_score
            if score is None:
                score = 1.0
                if not exact_only:
                    score = calibrated_score(collection, self.encoder, self._max_pixels, listener)
            chosen = replace(options, min_score=score)
            if not sources:
                url = self.store.url
                places = [] if is_server(url) else [Path(url)]
                yield from find_duplicates(
                    collection, chosen, conditions, places=places, listener=listener, stop=stop
                )
                return
            results = self.search_many(
                *sources,
                k=NEIGHBORS,
                where=where,
                min_score=score - 1e-4,  # identical images reach 1 only as far as rounding allows
                collapse=False,
                workers=workers,
                count_ahead=True,
                stdin=stdin,
                listener=listener,
                stop=stop,
            )
            yield from find_in_collection(results, chosen, listener)

        def shown() -> "Iterator[DuplicateGroup]":
            with self._reporting(listener, progress) as reporting:
                yield from groups(reporting)

        return shown()

    def diff(
        self,
        other: "ImageIndex | str | os.PathLike[str]",
        *,
        near: bool = True,
        reverse: bool = False,
        listener: Listener | None = None,
        stop: threading.Event | None = None,
    ) -> "Diff":
        """Compare the collection with another one, or with a folder.

        Args:
            other: Another index, or a folder, which is compared with the records below it.
            near: Look for near-copies among the added and removed images. The new files of a folder
                are encoded for that.
            reverse: Return the differences from the other to this one, instead of those from this
                to the other.
            listener: Receives events, instead of the index's own listener.
            stop: When set, the comparison ends early.

        Returns:
            An iterable of `Difference`, which compares while it is iterated over. Its `counts` and
            `differs` are complete afterwards.

        Raises:
            SourceError: The folder cannot be read.
        """
        from imgsearch.analysis.diff import Diff  # not needed by searches
        from imgsearch.sources import resolve

        there: Collection | str
        if isinstance(other, str | os.PathLike):
            [there] = resolve([os.fspath(other)]).folders or [""]
            if not there:
                raise SourceError(f"{os.fspath(other)}: is not a folder")
        else:
            there = other.collection

        def open_encoder(collection: Collection) -> Encoder:
            wanted = EncoderRequest(weights=self._request.weights, device=self._request.device)
            return self._encoder_opener(wanted, collection.stamp, self._listener)

        first, second = (there, self.collection) if reverse else (self.collection, there)
        return Diff(
            first,
            second,
            open_encoder,
            near=near,
            listener=listener or self._listener,
            stop=stop,
        )

    def map(
        self,
        output: str | os.PathLike[str] | None = None,
        *,
        png: str | os.PathLike[str] | None = None,
        layout: str | os.PathLike[str] | None = None,
        color_by: str | None = None,
        where: Where = (),
        thumbnails: int | None = None,
        max_bytes: int = 50_000_000,
        listener: Listener | None = None,
        stop: threading.Event | None = None,
    ) -> "MapReport | None":
        """Write a two-dimensional map of the images, on which similar ones are close, as HTML.

        Memory holds the paths and the metadata of all images.

        Args:
            output: The HTML file, which needs no server and no network.
            png: A PNG file for a picture.
            layout: A Parquet file for the places of the images. If it exists, they keep their
                places, and only new images are placed.
            color_by: The metadata field whose colors are shown first; by default, the groups that
                the map finds.
            where: Conditions on the metadata; all must hold.
            thumbnails: The maximum number of images with a thumbnail; by default, as many as fit.
            max_bytes: About the size that the file may have.
            listener: Receives events, instead of the index's own listener.
            stop: When set, the run ends without a file.

        Returns:
            What was made, or None after a stop.

        Raises:
            MissingLibraryError: The extra `map` is not installed.
            NothingFoundError: No image matches.
            SourceError: The file cannot be written.
            UsageError: A field or a condition is invalid, no file is given, or one exists and is
                of another kind.
        """
        from imgsearch.map import MapOptions, make_map  # not needed by searches

        listener = listener or self._listener
        options = MapOptions(
            output=None if output is None else os.fspath(output),
            png=None if png is None else os.fspath(png),
            layout=None if layout is None else os.fspath(layout),
            color_by=color_by,
            thumbnails=thumbnails,
            max_bytes=max_bytes,
            max_pixels=self._max_pixels,
        )
        conditions = parse_conditions(self.collection, where, listener)
        return make_map(self.collection, conditions, options, listener, stop)
