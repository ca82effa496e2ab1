"""`ImageIndex`, the Python API: one collection, to add images to and to search."""

import copy
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar, Unpack

from imgsearch import config
from imgsearch.calibration import describe
from imgsearch.editing import set_metadata
from imgsearch.encoders.base import Encoder, Vectors
from imgsearch.encoders.factory import open_encoder
from imgsearch.encoders.request import EncoderRequest, Precision, precision_setting
from imgsearch.errors import ImageError, SourceError, StaleCollectionError, UsageError, no_record
from imgsearch.events import Listener, both, ignore
from imgsearch.handles import Handles
from imgsearch.images import Region, Source
from imgsearch.query_encoder import QueryEncoder
from imgsearch.search import (
    QueryOptions,
    Searcher,
    SearchRequest,
    check_request,
    parse_conditions,
    parsed_request,
    search_many,
    search_records,
    search_text,
    search_vector,
)
from imgsearch.stores import check_name
from imgsearch.stores.base import Collection, VectorStore
from imgsearch.types import (
    CollectionInfo,
    Condition,
    FieldType,
    Hit,
    ImageRecord,
    Stamp,
    Value,
    VectorDtype,
)

if TYPE_CHECKING:
    from imgsearch.analysis.diff import Diff
    from imgsearch.bulk import QueryResult
    from imgsearch.duplicates import DuplicateGroup
    from imgsearch.exchange import ExportReport, ImportReport
    from imgsearch.ingest import IngestReport
    from imgsearch.map import MapReport
    from imgsearch.progress import ProgressBars

T = TypeVar("T")

Image = Source | os.PathLike[str]
"""The path of an image file, the content of one as bytes, or a Pillow image."""

Where = Sequence[str | Condition]
"""Conditions, or texts such as `"year >= 2012"`; all must hold."""


class ImageIndex:
    """One collection of a store, to add images to and to search.

    `add` creates the collection. The store, the collection and the model are opened on first use.
    Changes by other processes are visible at once, even if they replace the collection by one of
    another model. An index may be shared by any number of threads. Use it as a context manager, or
    call `close`.

    Methods raise the errors of `imgsearch.errors`. In addition to those listed with a method, these
    are CollectionNotFoundError if the collection does not exist, StoreError if the store fails, and
    EncoderError if a model is needed and cannot be opened.
    """

    def __init__(
        self,
        collection: str | None = None,
        *,
        store: str | os.PathLike[str] | VectorStore | None = None,
        model: str | None = None,
        weights: str | None = None,
        device: str | None = None,
        precision: Precision | None = None,
        vector_dtype: VectorDtype | None = None,
        max_pixels: int = config.DEFAULT_MAX_PIXELS,
        timeout: float = config.DEFAULT_STORE_TIMEOUT,
        listener: Listener = ignore,
        encoder_opener: Callable[..., Encoder] = open_encoder,
    ) -> None:
        """Configure an index. Nothing is opened yet.

        Omitted arguments are taken from the `IMGSEARCH_*` environment variables, else from the
        defaults. `model`, `precision` and `vector_dtype` matter only for a new collection; an
        existing one determines its own.

        Args:
            collection: The name of the collection.
            store: The URL or folder of a store, or an open store, which the caller closes.
            model: The name of the model.
            weights: A file or URL of weights, instead of the model's own.
            device: The device that runs the model: `cpu`, `cuda`, `cuda:1`, `cuda:all`, `mps` or
                `auto`, which is the CPU for searches.
            precision: `fp32` or `int8`.
            vector_dtype: How the embedded store keeps the vectors: `float32`, or `float16`, which
                takes half the space.
            max_pixels: The largest width x height of an image; larger ones raise ImageError.
            timeout: Seconds to wait for an unreachable store, or for another writer.
            listener: Receives the events of `imgsearch.events`.
            encoder_opener: Replaces `open_encoder`, for example in tests.

        Raises:
            UsageError: The name of the collection or a setting is invalid.
        """
        name = config.setting(collection, config.ENV_COLLECTION, config.DEFAULT_COLLECTION)
        self._name = check_name(name)
        self._request = EncoderRequest(
            config.setting(model, config.ENV_MODEL, config.DEFAULT_MODEL),
            weights,
            config.setting(device, config.ENV_DEVICE, config.DEFAULT_DEVICE),
            precision_setting(precision),
        )
        self._vector_dtype = vector_dtype
        self._max_pixels = max_pixels
        self._listener = listener
        self._encoder_opener = encoder_opener
        if store is None or isinstance(store, str | os.PathLike):
            url = None if store is None else os.fspath(store)
            store = config.setting(url, config.ENV_STORE, "") or None
        self._handles = Handles(self._name, store, timeout, listener)
        self._encoder = QueryEncoder(self._request, max_pixels, listener, encoder_opener)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the store. All other methods raise StoreError afterwards."""
        self._handles.close()

    @property
    def name(self) -> str:
        """The name of the collection."""
        return self._name

    @property
    def store(self) -> VectorStore:
        """The open store."""
        return self._handles.store

    @property
    def collection(self) -> Collection:
        """The collection in the store.

        The object becomes stale when another process replaces the collection; the methods of the
        index then open a new one.
        """
        return self._handles.collection

    @property
    def encoder(self) -> Encoder:
        """The encoder that made the collection."""
        return self._encoder.get(self.collection.stamp)

    # Search

    def search(
        self,
        image: Image | Sequence[Image] | None = None,
        *,
        region: Region | None = None,
        exclude_self: bool = False,
        **options: Unpack[QueryOptions],
    ) -> list[Hit]:
        """Return the images most similar to an image, the most relevant to a text, or both.

        With an image, the score is the cosine similarity to it. With a text as well, hits are
        ranked by reciprocal rank fusion of both searches. With a text alone, the score is its BM25
        relevance, and no model is loaded.

        Args:
            image: The query image. With several, the mean of their vectors is searched for.
            region: Search with this part of the query image.
            exclude_self: Exclude the query image and its exact copies.
            options: `text`, `k`, `where`, `min_score`, `confident` and `collapse`; see
                `QueryOptions`.

        Returns:
            At most `k` hits, best first.

        Raises:
            ImageError: A query image cannot be read or decoded.
            UsageError: The arguments contradict each other, a condition is invalid, or `text`
                contains no word.
        """
        return self.find(
            SearchRequest(
                images=() if image is None else _sources(image),
                region=region,
                exclude_self=exclude_self,
                **options,
            )
        )

    def search_record(
        self,
        record_id: str | Sequence[str],
        *,
        exclude_self: bool = False,
        **options: Unpack[QueryOptions],
    ) -> list[Hit]:
        """Return the images most similar to an image of the collection; see `search`.

        The stored vector is used, so no file is read and no model is loaded.

        Args:
            record_id: The id of a record. With several, the mean of their vectors is searched for.
            exclude_self: Exclude the image itself and its exact copies.
            options: As `search`.

        Raises:
            RecordNotFoundError: There is no record with this id.
            UsageError: As `search`.
        """
        ids = [record_id] if isinstance(record_id, str) else list(record_id)
        if not ids:
            raise UsageError("no record to search with")
        return self.find(SearchRequest(records=ids, exclude_self=exclude_self, **options))

    def search_vector(
        self,
        vector: Vectors,
        *,
        stamp: Stamp | None = None,
        exclude_digests: Sequence[str] = (),
        **options: Unpack[QueryOptions],
    ) -> list[Hit]:
        """Return the images most similar to a vector; see `search`.

        Args:
            vector: float32 of shape (dimension,), L2-normalized.
            stamp: The stamp of the encoder that made the vector.
            exclude_digests: SHA-256 digests of images to exclude, in hexadecimal.
            options: As `search`.

        Raises:
            StaleCollectionError: The collection has another stamp than `stamp`.
            UsageError: The vector has another shape; otherwise as `search`.
        """
        request = SearchRequest(vector=vector, exclude_digests=exclude_digests, **options)
        return self.find(request, stamp=stamp)

    def search_vector_file(
        self,
        file: str | os.PathLike[str],
        *,
        skip: Callable[[str], bool] = lambda _: False,
        stop: threading.Event | None = None,
        **options: Unpack[QueryOptions],
    ) -> "Iterator[QueryResult]":
        """Search with each vector of a .npy file, and yield a result for each.

        Args:
            file: Vectors of the model of the collection: floats of shape (n, dimension), or
                (dimension,) for one. They are L2-normalized.
            skip: Returns whether to leave out the vector of this name.
            stop: When set, the search ends early.
            options: As `search`, for each vector.

        Returns:
            The results in the order of the vectors. Their paths are `FILE[0]`, `FILE[1]` and so on.

        Raises:
            SourceError: The file cannot be read.
            MetadataError: The file does not hold floats.
            UsageError: The array has another shape; otherwise as `search`.
        """
        from imgsearch.exchange.querying import search_file  # not needed by other searches

        collection = self.collection
        request = parsed_request(collection, SearchRequest(**options), self._listener)
        return search_file(collection, os.fspath(file), request, skip, stop or threading.Event())

    def search_many(
        self,
        *sources: str | os.PathLike[str],
        exclude_self: bool = False,
        batch_size: int | None = None,
        workers: int | None = None,
        skip: Callable[[str], bool] = lambda _: False,
        count_ahead: bool = False,
        stdin: Iterable[str] = (),
        progress: bool = False,
        listener: Listener | None = None,
        stop: threading.Event | None = None,
        **options: Unpack[QueryOptions],
    ) -> "Iterator[QueryResult]":
        """Search with each image of folders, files, globs or lists, and yield a result for each.

        Reading, decoding, encoding and searching overlap, and searches share passes over the
        collection. An image whose content is in the collection is searched for by its stored
        vector. Unlike `search`, uses a GPU if there is one and `device` is `auto`.

        Args:
            sources: Folders, which are searched recursively, files, globs, or `"-"` for the paths
                in `stdin`.
            exclude_self: Exclude the query image and its exact copies.
            batch_size: Images per batch of the model; the default depends on the device.
            workers: Threads that read and decode; by default, one per core, at most 16.
            skip: Returns whether to leave out the image at a path.
            count_ahead: Count the files while they are processed, and report the total to the
                listener.
            stdin: Paths of files, for the source `"-"`.
            progress: Show progress bars, in a terminal or a notebook.
            listener: Receives events, instead of the index's own listener.
            stop: When set, the run ends early; images in progress still get their results.
            options: As `search`, for each image.

        Returns:
            The results in the order of the sources, as soon as they are known. An unusable image
            has a result with the reason.

        Raises:
            SourceError: A source cannot be read.
            NothingFoundError: The sources contain no image.
            StaleCollectionError: The collection has been replaced during the run.
            UsageError: As `search`.
        """
        from imgsearch.bulk import BulkOptions, search_images  # not needed by single searches
        from imgsearch.sources import resolve

        listener = listener or self._listener
        collection = self.collection
        request = SearchRequest(exclude_self=exclude_self, **options)
        request = parsed_request(collection, request, listener)
        bulk_options = BulkOptions(
            batch_size=batch_size,
            workers=workers or config.default_workers(),
            max_pixels=self._max_pixels,
            count_ahead=count_ahead or progress,
            skip=skip,
        )
        resolved = resolve([os.fspath(source) for source in sources])
        wanted = EncoderRequest(weights=self._request.weights, device=self._request.device)

        def open_encoder() -> Encoder:
            return self._encoder_opener(wanted, collection.stamp, listener)

        def results() -> "Iterator[QueryResult]":
            with _progress_bars() if progress else nullcontext() as bars:
                yield from search_images(
                    collection,
                    open_encoder,
                    resolved,
                    request,
                    bulk_options,
                    stdin=stdin,
                    listener=both(listener, bars) if bars else listener,
                    stop=stop,
                )

        return results()

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
            with _progress_bars() if progress else nullcontext() as bars:
                yield from groups(both(listener, bars) if bars else listener)

        return shown()

    def find(
        self,
        request: SearchRequest,
        *,
        stamp: Stamp | None = None,
        encoded: Vectors | None = None,
    ) -> list[Hit]:
        """Return the hits for a request, best first. All other searches are short for this one.

        Args:
            request: What to search for.
            stamp: The stamp of the encoder that made `request.vector` or `encoded`.
            encoded: The vectors of `request.images`, if they are known: float32 of shape
                (n, dimension), L2-normalized.

        Raises:
            ImageError: A query image cannot be read or decoded.
            RecordNotFoundError: A record of the request does not exist.
            StaleCollectionError: The collection has another stamp than `stamp`.
            UsageError: The request is invalid.
        """
        check_request(request)

        def search(collection: Collection) -> list[Hit]:
            self._check_stamp(collection, stamp)
            where = parse_conditions(collection, request.where, self._listener)
            return self._search(collection, replace(request, where=where), encoded)

        try:
            return self._handles.use(search)
        except ImageError as error:
            match request.images:
                case [str(path)]:
                    raise ImageError(f"{path}: {error}", *error.remedies) from error
            raise

    def find_many(
        self, requests: Sequence[SearchRequest], *, stamp: Stamp | None = None
    ) -> list[list[Hit]]:
        """Return the hits for each of many requests, in much less time than by `find` for each.

        Memory grows with the number of requests and of hits.

        Args:
            requests: What to search for. Each has a vector or records, and all have the same
                conditions.
            stamp: The stamp of the encoder that made the vectors.

        Raises:
            RecordNotFoundError: A record of a request does not exist.
            StaleCollectionError: The collection has another stamp than `stamp`.
            UsageError: A request is invalid.
        """
        for request in requests:
            check_request(request)
            if request.images or not request.is_visual:
                raise UsageError("each of many requests needs a vector or records")
            if list(request.where) != list(requests[0].where):
                raise UsageError("the conditions of many requests must be the same")

        def search(collection: Collection) -> list[list[Hit]]:
            self._check_stamp(collection, stamp)
            where = parse_conditions(collection, requests[0].where, self._listener)
            return search_many(collection, [replace(each, where=where) for each in requests])

        return self._handles.use(search) if requests else []

    def _check_stamp(self, collection: Collection, stamp: Stamp | None) -> None:
        if stamp not in (None, collection.stamp):
            raise StaleCollectionError(
                f"collection {self._name} has been replaced by one of another model: encode "
                "the image again"
            )

    def _search(
        self, collection: Collection, request: SearchRequest, encoded: Vectors | None
    ) -> list[Hit]:
        if request.vector is not None:
            return search_vector(collection, request.vector, request)
        if request.images:
            encoder = self._encoder.get(collection.stamp)
            if encoded is None:
                encoded = self._encoder.take_early(request, collection.stamp)
            return Searcher(collection, encoder, self._max_pixels).search(request, encoded)
        if request.records:
            return search_records(collection, request)
        return search_text(collection, request)

    def warm_up(self, image: Image) -> None:
        """Start to encode the query image of the first search before the collection is opened.

        Uses the model that ran last on this machine. If the collection turns out to have another
        model, or the image cannot be used, the search behaves as without this call.
        """
        self._encoder.warm_up(_source(image))

    # Records

    def get(self, record_id: str) -> ImageRecord:
        """Return the record with this id. Raises RecordNotFoundError."""
        found = self.get_many([record_id])
        if record_id not in found:
            raise no_record(self._name, record_id)
        return found[record_id]

    def get_many(self, ids: Sequence[str]) -> dict[str, ImageRecord]:
        """Return the records by id, without the ids that have none."""
        return self._handles.use(lambda collection: collection.lookup(ids))

    def records(self) -> Iterator[ImageRecord]:
        """Yield all records, read in batches.

        Raises StaleCollectionError if the collection is replaced during the iteration.
        """
        for batch in self._handles.use(lambda collection: _started(collection.scan())):
            yield from batch

    def page(self, limit: int, *, after: str = "", where: Where = ()) -> list[ImageRecord]:
        """Return the first `limit` records by id, after the id `after`, that meet all conditions.

        Added and removed records do not shift the other pages. Raises UsageError if `after` is not
        an id or a condition is invalid.
        """

        def read(collection: Collection) -> list[ImageRecord]:
            conditions = parse_conditions(collection, where, self._listener)
            return collection.page(limit, after, conditions)

        return self._handles.use(read)

    def count(self, where: Where = ()) -> int:
        """Return the number of records that meet all conditions. Raises UsageError."""

        def count(collection: Collection) -> int:
            return collection.count(parse_conditions(collection, where, self._listener))

        return self._handles.use(count)

    @property
    def fields(self) -> Mapping[str, FieldType]:
        """The metadata fields, with their types."""
        return self._handles.use(lambda collection: dict(collection.refresh_fields()))

    def info(self) -> CollectionInfo:
        """Return the model, size, fields and calibration of the collection."""
        return self._handles.use(describe)

    def exists(self) -> bool:
        """Return whether the collection exists."""
        return self._name in self.store.names()

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
        if isinstance(other, ImageIndex):
            there = other.collection
        else:
            [there] = resolve([os.fspath(other)]).folders or [""]
            if not there:
                raise SourceError(f"{os.fspath(other)}: is not a folder")

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

    # Exchange with other programs

    def export(
        self,
        file: str | os.PathLike[str],
        *,
        where: Where = (),
        progress: bool = False,
        listener: Listener | None = None,
        stop: threading.Event | None = None,
    ) -> "ExportReport":
        """Write records and vectors to a file that other programs, and `import_vectors`, read.

        Args:
            file: A .parquet file, or a .npy file, which gets a .csv file with the records and a
                .json file beside it. Earlier exports are replaced.
            where: Conditions on the metadata; all must hold.
            progress: Show a progress bar, in a terminal or a notebook.
            listener: Receives events, instead of the index's own listener.
            stop: When set, the export ends without a file.

        Raises:
            SourceError: The file cannot be written.
            UsageError: The format is unknown, or the file exists and is something else.
        """
        from imgsearch.exchange import export  # not needed by searches

        listener = listener or self._listener
        conditions = self._handles.use(
            lambda collection: parse_conditions(collection, where, listener)
        )
        with _progress_bars() if progress else nullcontext() as bars:
            return export(
                self.collection,
                self.store.url,
                os.fspath(file),
                conditions,
                listener=both(listener, bars) if bars else listener,
                stop=stop,
            )

    def import_vectors(
        self,
        source: str | os.PathLike[str],
        *,
        model_name: str | None = None,
        table: str | None = None,
        images: str | None = None,
        vector_column: str | None = None,
        progress: bool = False,
        listener: Listener | None = None,
        stop: threading.Event | None = None,
    ) -> "ImportReport":
        """Add vectors and records from files, of `export` or of another program.

        The collection is created if necessary. Vectors of another program are searched by record
        and by vector: imgsearch has no encoder for query images. They are L2-normalized.

        Args:
            source: A .parquet file with a column of vectors, a .npy file with a table beside it,
                or a folder of such files, such as the output of clip-retrieval.
            model_name: The model that made the vectors, if imgsearch did not export them.
            table: The table of a .npy file, .csv or .parquet, if it has another name.
            images: The folder that relative paths of images are relative to; by default the
                current folder.
            vector_column: The column of vectors, if a Parquet file has several.
            progress: Show a progress bar, in a terminal or a notebook.
            listener: Receives events, instead of the index's own listener.
            stop: When set, the import ends early; it can be run again.

        Returns:
            What was found, and what happened to it. A row that cannot be used is not an error; it
            is reported with the reason.

        Raises:
            SourceError: A file cannot be read.
            MetadataError: A file has no vectors, or no column that says where the images are.
            CollectionMismatchError: The collection has vectors of another model.
            UsageError: The arguments do not fit the files.
        """
        from imgsearch.exchange import ImportOptions, import_vectors  # not needed by searches

        options = ImportOptions(
            model_name=model_name,
            table=table,
            images=images,
            vector_column=vector_column,
            vector_dtype=self._vector_dtype,
        )
        listener = listener or self._listener
        with _progress_bars() if progress else nullcontext() as bars:
            return import_vectors(
                os.fspath(source),
                self.store,
                self._name,
                options,
                listener=both(listener, bars) if bars else listener,
                stop=stop,
            )

    # Overview

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

    # Changes

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
        listener = listener or self._listener
        with _progress_bars() if progress else nullcontext() as bars:
            return ingest(
                [os.fspath(source) for source in sources],
                self.store,
                self._name,
                self._request,
                options,
                stdin=stdin,
                listener=both(listener, bars) if bars else listener,
                stop=stop,
                encoder_opener=self._encoder_opener,
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

    def remove(self, ids: Sequence[str]) -> int:
        """Remove records, but not their files. Returns how many existed."""
        with self.store.write_lock(self._name, self._listener):
            return self._handles.use(lambda collection: collection.delete(ids))

    def remove_paths(self, paths: Sequence[str | os.PathLike[str]]) -> int:
        """Remove the records of files, and of all files in folders, but not the files.

        The files need not exist any more. Returns the number of removed records. Raises
        RecordNotFoundError, and removes nothing, if there is no record for one of the paths.
        """
        from imgsearch.removal import remove_paths  # not needed by searches

        with self.store.write_lock(self._name, self._listener):
            return self._handles.use(lambda collection: remove_paths(collection, paths))

    def drop(self) -> int:
        """Delete the whole collection, but no files. Returns the number of its records."""
        records = self.count()
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


def _progress_bars() -> "ProgressBars":
    from tqdm.auto import tqdm  # not needed by searches

    from imgsearch.progress import ProgressBars

    return ProgressBars(tqdm)


def _started(batches: Iterator[T]) -> Iterator[T]:
    """Return an iterator whose first item has been read, which raises for a stale collection."""
    first = list(islice(batches, 1))
    return chain(first, batches)


def _sources(images: Image | Sequence[Image]) -> list[Source]:
    if isinstance(images, Sequence) and not isinstance(images, str | bytes):
        if not images:
            raise UsageError("no image to search with")
        return [_source(each) for each in images]
    return [_source(images)]


def _source(image: Image) -> Source:
    return os.path.expanduser(image) if isinstance(image, str | os.PathLike) else image
