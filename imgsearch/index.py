"""`ImageIndex`: one collection, to add pictures to and to search. What users call stands on it."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Self, TypeVar, cast, get_args

import numpy as np

from imgsearch import config
from imgsearch.encoders.base import Encoder, Vectors
from imgsearch.encoders.factory import last_used_encoder, open_encoder
from imgsearch.encoders.request import EncoderRequest, Precision
from imgsearch.errors import (
    ImageError,
    RecordNotFoundError,
    StaleCollectionError,
    StoreError,
    UsageError,
)
from imgsearch.events import Listener, Note, both, ignore
from imgsearch.filters import check_condition, comparisons_of_texts, parse_where
from imgsearch.images import Region, Source, decode
from imgsearch.metadata.values import type_of, validate
from imgsearch.search import (
    DEFAULT_K,
    Searcher,
    SearchRequest,
    search_records,
    search_text,
    search_vector,
)
from imgsearch.stores import check_name, open_store
from imgsearch.stores.base import Collection, VectorStore
from imgsearch.types import (
    CollectionInfo,
    Condition,
    FieldType,
    Hit,
    ImageRecord,
    Stamp,
    Value,
)

if TYPE_CHECKING:
    from imgsearch.ingest import IngestReport
    from imgsearch.progress import ProgressBars

T = TypeVar("T")

AnyPicture = Source | os.PathLike[str]
Where = Sequence[str | Condition]


@dataclass(frozen=True, slots=True)
class _Ahead:
    """A picture that is being encoded before it is searched for."""

    source: Source
    version: tuple[int, ...] | None
    stamp: Stamp
    vectors: Future[Vectors]


class ImageIndex:
    """One collection of a store, which `add` makes if need be.

    Any number of threads may share one. Store, collection and model are opened when they are first
    needed. What other processes write is seen at once, also if they put a collection of another
    model in its place. Methods raise the errors of `imgsearch.errors`: CollectionNotFoundError
    while there is no collection, StoreError if the store fails, EncoderError if the model cannot
    be had. Use it as a context manager, or close it.

    `where` takes texts such as `"year >= 2012"`, or conditions; all must hold.
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
        max_pixels: int = config.DEFAULT_MAX_PIXELS,
        timeout: float = config.DEFAULT_STORE_TIMEOUT,
        listener: Listener = ignore,
        encoder_opener: Callable[..., Encoder] = open_encoder,
    ) -> None:
        """What is left out comes from the IMGSEARCH_* variables, or is the default.

        `store` is a URL or a folder, or an open store, which the caller closes. `model`, `weights`
        and `precision` are for a collection that is yet to be made: another one knows its own. A
        search runs the model on the CPU unless `device` says otherwise. `max_pixels` are width x
        height of a picture; `timeout` is how many seconds to wait for a store that goes away or is
        another writer's. Raises UsageError for a name that no collection can have.
        """
        name = config.setting(collection, config.ENV_COLLECTION, config.DEFAULT_COLLECTION)
        self._name = check_name(name)
        url: str | None = None
        self._given_store: VectorStore | None = None
        if isinstance(store, str | os.PathLike):
            url = os.fspath(store)
        else:
            self._given_store = store
        self._url = config.setting(url, config.ENV_STORE, "") or None
        self._request = EncoderRequest(
            config.setting(model, config.ENV_MODEL, config.DEFAULT_MODEL),
            weights,
            config.setting(device, config.ENV_DEVICE, config.DEFAULT_DEVICE),
            _precision(precision),
        )
        self._max_pixels = max_pixels
        self._timeout = timeout
        self._listener = listener
        self._open_encoder = encoder_opener
        self._opening = threading.Lock()
        self._loading = threading.Lock()
        self._opened_store: VectorStore | None = None
        self._collection: Collection | None = None
        self._encoder: Encoder | None = None
        self._ahead: _Ahead | None = None
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the store. Nothing can be asked afterwards."""
        with self._opening:
            self._closed = True
            if self._opened_store:
                self._opened_store.close()

    @property
    def name(self) -> str:
        """The collection's name."""
        return self._name

    @property
    def store(self) -> VectorStore:
        """The store, connected to by now."""
        with self._opening:
            return self._store()

    def _store(self) -> VectorStore:
        if self._closed:
            raise StoreError("the index has been closed")
        if self._given_store is not None:
            return self._given_store
        if self._opened_store is None:
            self._opened_store = open_store(self._url, self._timeout, self._listener)
        return self._opened_store

    @property
    def collection(self) -> Collection:
        """The collection as the store has it. A handle on it ages; `ImageIndex` renews its own."""
        with self._opening:
            store = self._store()
            if self._collection is None:
                self._collection = store.open(self._name)
            return self._collection

    @property
    def encoder(self) -> Encoder:
        """The model that made the collection."""
        return self.encoder_of(self.collection.stamp)

    def encoder_of(self, stamp: Stamp) -> Encoder:
        """The model for vectors of a stamp. The last one is kept."""
        with self._loading:
            if self._encoder is None or self._encoder.stamp != stamp:
                request = EncoderRequest(
                    weights=self._request.weights, device=self._searching_device
                )
                self._encoder = self._open_encoder(request, stamp, self._listener)
            return self._encoder

    @property
    def _searching_device(self) -> str:
        """For one picture, the CPU is done before a GPU's libraries are loaded."""
        return "cpu" if self._request.device == config.DEFAULT_DEVICE else self._request.device

    def warm_up(self, picture: AnyPicture) -> None:
        """Begin to encode the picture of the first search, before the collection is opened.

        By the model that ran last on this machine: it is most likely the right one. What goes
        wrong is told by the search.
        """
        if (
            self._searching_device != "cpu"
            or self._request.weights is not None
            or self._open_encoder is not open_encoder
            or (guess := last_used_encoder()) is None
        ):
            return
        with suppress(ImageError):
            source = _source(picture)
            version = _version(source)
            decoded = decode(source, guess.preprocessing, self._max_pixels)
            thread = ThreadPoolExecutor(1, "imgsearch-ahead")
            vectors = thread.submit(guess.encode, decoded.pixels[np.newaxis])
            thread.shutdown(wait=False)
            self._encoder, self._ahead = guess, _Ahead(source, version, guess.stamp, vectors)

    def _encoded_ahead(self, request: SearchRequest, stamp: Stamp) -> Vectors | None:
        """What `warm_up` has encoded: for the first search only, and only what it asks for."""
        ahead, self._ahead = self._ahead, None
        if (
            ahead is None
            or request.region
            or request.records
            or [ahead.source] != request.images
            or ahead.stamp != stamp
        ):
            return None
        return ahead.vectors.result() if ahead.version == _version(ahead.source) else None

    def _use(self, action: Callable[[Collection], T]) -> T:
        """What an action makes of the collection, which is opened anew if its handle has aged."""
        collection = self.collection
        try:
            return action(collection)
        except StaleCollectionError:
            with self._opening:
                if self._collection is collection:
                    self._collection = None
        return action(self.collection)

    # Searching.

    def search(
        self,
        picture: AnyPicture | Sequence[AnyPicture] | None = None,
        *,
        text: str = "",
        k: int = DEFAULT_K,
        where: Where = (),
        min_score: float | None = None,
        exclude_self: bool = False,
        collapse: bool = True,
        region: Region | None = None,
    ) -> list[Hit]:
        """The k pictures most like a picture, or of the words in `text`, or both; best first.

        A picture is a path, the bytes of a file, or Pillow's. Of several, what they have in common
        is searched for: the mean of their vectors. `region` searches with a part of the picture.
        Hits are of at least `min_score`, a cosine similarity. `exclude_self` leaves out the
        picture itself and its exact copies; `collapse` makes equal pictures one hit.

        `text` is looked for in all texts of the metadata, word by word. Beside a picture, hits are
        ordered by the ranks they have in both answers, and `score` is still the cosine. Words alone
        need no model; `score` is their relevance then. Raises ImageError for what is no usable
        picture, UsageError for conditions or words that make no sense.
        """
        return self.find(
            SearchRequest(
                images=() if picture is None else _sources(picture),
                text=text,
                region=region,
                k=k,
                where=where,
                min_score=min_score,
                exclude_self=exclude_self,
                collapse=collapse,
            )
        )

    def find(
        self,
        request: SearchRequest,
        *,
        stamp: Stamp | None = None,
        encoded: Vectors | None = None,
    ) -> list[Hit]:
        """Return the hits for a request, best first.

        `encoded` are the vectors of the request's images, of shape (n, dimension), if they are
        known already. `stamp` is that of the encoder which made them, or the request's vector:
        StaleCollectionError is raised if the collection has another one by now. Raises UsageError
        for a request that makes no sense, ImageError for an unusable image, RecordNotFoundError for
        an unknown record.
        """
        if request.k < 1:
            raise UsageError(f"k is {request.k}: it must be at least 1")
        if request.vector is not None and (request.images or request.records):
            raise UsageError("a vector cannot be combined with images or records")
        if not request.is_visual:
            if not request.text.strip():
                raise UsageError("nothing to search for: provide an image, a record id, or text")
            if request.exclude_self or request.region:
                raise UsageError("region and exclude_self need an image or a record")

        def search(collection: Collection) -> list[Hit]:
            if stamp not in (None, collection.stamp):
                raise StaleCollectionError(
                    f"collection {self._name} has been replaced by one of another model: encode "
                    "the image again"
                )
            parsed = replace(request, where=self._conditions(collection, request.where))
            if request.vector is not None:
                self._check_shape(request.vector, collection.stamp)
                return search_vector(collection, request.vector, parsed)
            if request.images:
                encoder = self.encoder_of(collection.stamp)
                vectors = encoded
                if vectors is None:
                    vectors = self._encoded_ahead(request, collection.stamp)
                return Searcher(collection, encoder, self._max_pixels).search(parsed, vectors)
            if request.records:
                return search_records(collection, parsed)
            return search_text(collection, parsed)

        try:
            return self._use(search)
        except ImageError as error:
            named = [each for each in request.images if isinstance(each, str)]
            if len(named) == 1 == len(request.images):
                raise ImageError(f"{named[0]}: {error}", *error.remedies) from error
            raise

    def _check_shape(self, vector: Vectors, stamp: Stamp) -> None:
        if vector.shape != (stamp.dimension,):
            raise UsageError(
                f"a vector of shape {vector.shape} cannot be searched for: collection "
                f"{self._name} has vectors of shape ({stamp.dimension},)"
            )

    def search_vector(
        self,
        vector: Vectors,
        *,
        text: str = "",
        stamp: Stamp | None = None,
        k: int = DEFAULT_K,
        where: Where = (),
        min_score: float | None = None,
        collapse: bool = True,
        without: Sequence[str] = (),
    ) -> list[Hit]:
        """The k pictures nearest to a vector, float32 of shape (dimension,), L2-normalised.

        `stamp` is that of the encoder which made the vector: StaleCollectionError is raised if the
        collection is of another one by now. `without` are the SHA-256s of contents to leave out.
        Raises UsageError for a vector of another shape.
        """
        return self.find(
            SearchRequest(
                vector=vector,
                text=text,
                k=k,
                where=where,
                min_score=min_score,
                exclude_digests=without,
                collapse=collapse,
            ),
            stamp=stamp,
        )

    def search_record(
        self,
        record_id: str | Sequence[str],
        *,
        text: str = "",
        k: int = DEFAULT_K,
        where: Where = (),
        min_score: float | None = None,
        exclude_self: bool = False,
        collapse: bool = True,
    ) -> list[Hit]:
        """The k pictures most like one, or several, of the collection's own; as `search`.

        No picture is read and no model is loaded. Raises RecordNotFoundError for an unknown id.
        """
        ids = [record_id] if isinstance(record_id, str) else list(record_id)
        if not ids:
            raise UsageError("no record to search with")
        return self.find(
            SearchRequest(
                records=ids,
                text=text,
                k=k,
                where=where,
                min_score=min_score,
                exclude_self=exclude_self,
                collapse=collapse,
            )
        )

    def _conditions(self, collection: Collection, where: Where) -> list[Condition]:
        given = [where] if isinstance(where, str) else list(where)
        try:
            conditions = _parsed(given, collection.fields)
        except UsageError:  # of a field that another writer may have added, say
            conditions = _parsed(given, collection.refresh_fields())
        written = [
            condition
            for each, condition in zip(given, conditions, strict=True)
            if isinstance(each, str)
        ]
        for sentence in comparisons_of_texts(written, collection.fields):
            self._listener(Note(sentence))
        return conditions

    # Records.

    def get(self, record_id: str) -> ImageRecord:
        """The record of an id. Raises RecordNotFoundError."""
        found = self.get_many([record_id])
        if record_id not in found:
            raise self._no_record(record_id)
        return found[record_id]

    def get_many(self, ids: Sequence[str]) -> dict[str, ImageRecord]:
        """The records of those of the ids that have one."""
        return self._use(lambda collection: collection.lookup(ids))

    def _no_record(self, record_id: str) -> RecordNotFoundError:
        return RecordNotFoundError(f"collection {self._name} has no record {record_id}")

    def records(self) -> Iterator[ImageRecord]:
        """All records, as `Collection.scan` gives them; read batch by batch.

        Raises StaleCollectionError if the collection is replaced while the iteration lasts.
        """
        for batch in self._use(lambda collection: _started(collection.scan())):
            yield from batch

    def page(self, limit: int, *, after: str = "", where: Where = ()) -> list[ImageRecord]:
        """The first `limit` records by id that come after the id `after` and meet all conditions.

        So pages do not shift when records come and go. Raises UsageError if `after` is no id.
        """
        return self._use(
            lambda collection: collection.page(limit, after, self._conditions(collection, where))
        )

    def count(self, where: Where = ()) -> int:
        """How many records meet all conditions."""
        return self._use(lambda collection: collection.count(self._conditions(collection, where)))

    @property
    def fields(self) -> Mapping[str, FieldType]:
        """The metadata fields that records can have, and filters can be about."""
        return self._use(lambda collection: dict(collection.refresh_fields()))

    def info(self) -> CollectionInfo:
        return self._use(lambda collection: collection.info())

    # Writing.

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
        """Bring pictures into the collection, which is made if need be; what is known is skipped.

        `sources` are folders with all below them, files, globs, or "-" for the paths in `stdin`;
        `metadata` is a CSV, by default the styles.csv of each folder; `batch_size` is by default
        what suits the device. `limit` counts files found. `prune` removes the records of files
        that are gone, except in folders most of whose files are (see `IngestReport.unpruned`),
        where `prune_missing` is needed too. `replace` embeds again with the index's `model`. With
        `count_ahead` the listener receives the total. `progress` shows tqdm's progress bars, in
        notebooks too. Setting `stop` ends the run
        early, with what is in flight written. Raises SourceError if a source cannot be read,
        NothingFoundError if there is no picture, MetadataError, EncoderError, or StoreError; what
        was written until then stays. Single pictures that cannot be used are in the report.
        """
        from imgsearch.ingest import IngestOptions, ingest  # a search does not need it

        options = IngestOptions(
            batch_size=batch_size,
            workers=workers or config.default_workers(),
            metadata=metadata,
            limit=limit,
            prune=prune,
            prune_missing=prune_missing,
            replace=replace,
            max_pixels=self._max_pixels,
            count_ahead=count_ahead or progress,
        )
        listener = listener or self._listener
        with _bars() if progress else nullcontext() as bars:
            return ingest(
                [os.fspath(source) for source in sources],
                self.store,
                self._name,
                self._request,
                options,
                stdin=stdin,
                listener=both(listener, bars) if bars else listener,
                stop=stop,
                encoder_opener=self._open_encoder,
            )

    def set_metadata(self, record_id: str, changes: Mapping[str, Value | None]) -> ImageRecord:
        """Set some of a record's fields, and remove those that are None; returns it as it is then.

        Fields that are new get the type of their value. A later ingest sets a field again if a
        table has a value for it, and leaves it otherwise. Raises RecordNotFoundError, and
        MetadataError for a value that is not of its field's type, or that no store keeps exactly.
        """

        def change(collection: Collection) -> ImageRecord:
            if record_id not in collection.lookup([record_id]):
                raise self._no_record(record_id)
            values = {name: value for name, value in changes.items() if value is not None}
            fields = _fields(collection, values)
            known = {name: validate(name, value, fields) for name, value in values.items()}
            collection.add_fields({name: type_of(value) for name, value in known.items()})
            given = {name: known.get(name) for name in changes}
            collection.update_metadata({record_id: given}, {record_id: dict.fromkeys(changes)})
            found = collection.lookup([record_id]).get(record_id)
            if found is None:  # removed in between
                raise self._no_record(record_id)
            return found

        with self.store.write_lock(self._name, self._listener):
            return self._use(change)

    def remove(self, ids: Sequence[str]) -> int:
        """Remove records; the files stay. Returns how many there were."""
        with self.store.write_lock(self._name, self._listener):
            return self._use(lambda collection: collection.delete(ids))

    def remove_paths(self, paths: Sequence[str | os.PathLike[str]]) -> int:
        """Remove the records of files, and of folders with all below them; the files stay.

        They need not exist any more. Returns how many records there were. Raises
        RecordNotFoundError, with nothing removed, if a path has none.
        """
        from imgsearch.removal import remove_paths  # here, as a search has no need of it

        with self.store.write_lock(self._name, self._listener):
            return self._use(lambda collection: remove_paths(collection, paths))

    def drop(self) -> int:
        """Remove the whole collection. Returns how many records it had."""
        records = self.count()
        self.store.drop(self._name)
        with self._opening:
            self._collection = None
        return records

    def exists(self) -> bool:
        """Whether there is a collection of this name."""
        return self._name in self.store.names()


def _bars() -> "ProgressBars":
    from tqdm.auto import tqdm  # takes a while to load

    from imgsearch.progress import ProgressBars

    return ProgressBars(tqdm)


def _started(batches: Iterator[T]) -> Iterator[T]:
    """The same batches, the first of which has been read: a stale collection shows by then."""
    first = list(islice(batches, 1))
    return chain(first, batches)


def _precision(given: Precision | None) -> Precision | None:
    value = config.setting(given, config.ENV_PRECISION, "")
    if value not in ("", *get_args(Precision)):
        raise UsageError(
            f"{config.ENV_PRECISION}={value}: must be {' or '.join(get_args(Precision))}"
        )
    return cast(Precision, value) if value else None


def _sources(picture: AnyPicture | Sequence[AnyPicture]) -> list[Source]:
    if isinstance(picture, Sequence) and not isinstance(picture, str | bytes):
        if not picture:
            raise UsageError("no picture to search with")
        return [_source(each) for each in picture]
    return [_source(picture)]


def _source(picture: AnyPicture) -> Source:
    return os.path.expanduser(picture) if isinstance(picture, str | os.PathLike) else picture


def _version(source: Source) -> tuple[int, ...] | None:
    """Tells a file from what its path names later; None for an image that is no file."""
    if not isinstance(source, str):
        return None
    with suppress(OSError, ValueError):
        status = os.stat(source)
        return (status.st_ino, status.st_size, status.st_mtime_ns)
    return ()


def _parsed(where: Sequence[str | Condition], fields: Mapping[str, FieldType]) -> list[Condition]:
    return [
        parse_where([each], fields)[0] if isinstance(each, str) else check_condition(each, fields)
        for each in where
    ]


def _fields(collection: Collection, names: Iterable[str]) -> Mapping[str, FieldType]:
    """The collection's fields, looked up again if one of the names is not among them."""
    known = collection.fields
    return known if all(name in known for name in names) else collection.refresh_fields()
