"""Single uploads: kept, encoded with what else arrives, and written with what else waits."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from imgsearch.encoders import EncoderRequest
from imgsearch.encoders.base import Encoder, Vectors
from imgsearch.errors import CollectionNotFoundError, StaleCollectionError, StoreError
from imgsearch.records import FieldType, ImageRecord, path_to_uri
from imgsearch.server.encoding import Encoding
from imgsearch.server.indexes import Indexes
from imgsearch.server.kept import KeptFiles
from imgsearch.server.pools import Pools, run
from imgsearch.server.settings import Settings
from imgsearch.stores import check_name

DESCRIPTION_FIELD = "description"
# Written together: more would make the first of them wait too long.
_TOGETHER = 64
# Many small writes slow a store's reads, until it has put them together.
_WRITES_BEFORE_OPTIMIZING = 64


@dataclass(frozen=True, slots=True)
class _Upload:
    """A record on its way into the store; `done` tells it as it is there, or why it cannot be."""

    record: ImageRecord
    picture: bytes
    vector: Vectors
    done: "asyncio.Future[ImageRecord]"


class Uploads:
    """Takes pictures in one by one. Those that wait for the store are written together."""

    def __init__(
        self, settings: Settings, pools: Pools, indexes: Indexes, encoding: Encoding
    ) -> None:
        self.files = KeptFiles(settings.uploads)
        self._settings = settings
        self._pools = pools
        self._indexes = indexes
        self._encoding = encoding
        self._waiting: dict[str, list[_Upload]] = {}
        self._writers: dict[str, asyncio.Task[None]] = {}
        self._writes = 0

    async def add(self, picture: bytes, description: str, collection: str) -> ImageRecord:
        """Keep and index a picture; the same content again replaces its description.

        The collection is made if need be. Raises ImageError if it is no usable picture,
        EncoderError, RefusedError if the disk is full, or StoreError: the file is there for the
        next try then.
        """
        check_name(collection)
        encoder = await run(self._pools.store, self._encoder, collection)
        decoded, vector = await self._encoding.vector(picture, encoder)
        path = await run(self._pools.files, self.files.keep_bytes, picture, collection)
        status = os.stat(path)
        record = ImageRecord(
            uri=path_to_uri(str(path)),
            sha256=path.stem,
            size=status.st_size,
            mtime_ns=status.st_mtime_ns,
            width=decoded.width,
            height=decoded.height,
            metadata={DESCRIPTION_FIELD: description} if description else {},
        )
        return await self._written(record, picture, vector, collection, encoder)

    def _encoder(self, collection: str) -> Encoder:
        """The collection's own model, or the one that makes a new collection."""
        try:
            return self._indexes.of(collection).encoder
        except CollectionNotFoundError:
            return self._indexes.encoder(
                EncoderRequest(self._settings.model, self._settings.weights)
            )

    async def _written(
        self,
        record: ImageRecord,
        picture: bytes,
        vector: Vectors,
        collection: str,
        encoder: Encoder,
    ) -> ImageRecord:
        upload = _Upload(record, picture, vector, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(collection, []).append(upload)
        writer = self._writers.get(collection)
        if writer is None or writer.done():
            writing = self._write_all(collection, encoder)
            self._writers[collection] = asyncio.create_task(writing)
        return await upload.done

    async def _write_all(self, collection: str, encoder: Encoder) -> None:
        """Until none waits any more."""
        while waiting := self._waiting.pop(collection, []):
            for start in range(0, len(waiting), _TOGETHER):
                part = waiting[start : start + _TOGETHER]
                try:
                    ends = await run(self._pools.write, self._write, collection, encoder, part)
                except Exception as error:  # each client is told
                    ends = {upload.record.id: error for upload in part}
                for upload in part:
                    _end(upload, ends[upload.record.id])

    def _write(
        self, name: str, encoder: Encoder, uploads: Sequence[_Upload]
    ) -> dict[str, ImageRecord | Exception]:
        """By id, the record as it is in the store, or why the store refused it."""
        store = self._indexes.store
        # The later of two uploads of one content counts.
        latest = {upload.record.id: upload for upload in uploads}
        with store.writing(name):
            fresh = name not in store.names()
            collection = store.create(name, encoder.stamp) if fresh else store.open(name)
            if collection.stamp != encoder.stamp:
                raise StaleCollectionError(
                    f"collection {name} has just been replaced by one of another model: try again"
                )
            known = collection.lookup(list(latest))
            for upload in latest.values():
                if not os.path.exists(upload.record.path):  # removed with a record of the same
                    self.files.keep_bytes(upload.picture, name)
            records = [_merged(upload.record, known) for upload in latest.values()]
            collection.add_fields(_fields_of(records))
            vectors = np.stack([upload.vector for upload in latest.values()])
            refused = collection.upsert(records, vectors)
            self._writes += 1
            if self._writes % _WRITES_BEFORE_OPTIMIZING == 0:
                collection.optimize()
        written: dict[str, ImageRecord | Exception] = {each.id: each for each in records}
        return written | {each: StoreError(reason) for each, reason in refused.items()}


def _end(upload: _Upload, end: ImageRecord | Exception) -> None:
    if upload.done.done():  # its client has gone
        return
    if isinstance(end, Exception):
        upload.done.set_exception(end)
    else:
        upload.done.set_result(end)


def _merged(record: ImageRecord, known: Mapping[str, ImageRecord]) -> ImageRecord:
    """With what is known of this very content already, where the upload says nothing of it."""
    before = known.get(record.id)
    return replace(record, metadata={**before.metadata, **record.metadata}) if before else record


def _fields_of(records: Sequence[ImageRecord]) -> dict[str, FieldType]:
    """Of what uploads can say, which is text."""
    described = any(DESCRIPTION_FIELD in record.metadata for record in records)
    return {DESCRIPTION_FIELD: "str"} if described else {}
