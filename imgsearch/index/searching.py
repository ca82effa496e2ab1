"""Search with images, records, vectors and words: one query or many."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Unpack

from imgsearch import config
from imgsearch.encoders.base import Encoder, Vectors
from imgsearch.encoders.request import EncoderRequest
from imgsearch.errors import ImageError, StaleCollectionError, UsageError
from imgsearch.events import Listener
from imgsearch.images import Region, Source
from imgsearch.index.core import IndexCore
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
from imgsearch.stores.base import Collection
from imgsearch.types import (
    Hit,
    Stamp,
)

if TYPE_CHECKING:
    from imgsearch.bulk import QueryResult

Image = Source | os.PathLike[str]
"""The path of an image file, the content of one as bytes, or a Pillow image."""


class Searching(IndexCore):
    """The searches of an index."""

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
            with self._reporting(listener, progress) as reporting:
                yield from search_images(
                    collection,
                    open_encoder,
                    resolved,
                    request,
                    bulk_options,
                    stdin=stdin,
                    listener=reporting,
                    stop=stop,
                )

        return results()

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


def _sources(images: Image | Sequence[Image]) -> list[Source]:
    if isinstance(images, Sequence) and not isinstance(images, str | bytes):
        if not images:
            raise UsageError("no image to search with")
        return [_source(each) for each in images]
    return [_source(images)]


def _source(image: Image) -> Source:
    return os.path.expanduser(image) if isinstance(image, str | os.PathLike) else image
