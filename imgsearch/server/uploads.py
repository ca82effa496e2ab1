"""Single uploads: encoded with what else arrives, and written with what else waits."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from imgsearch.encoders.base import Encoder, Vectors
from imgsearch.errors import CollectionMismatchError, StaleCollectionError, StoreError
from imgsearch.images import Picture
from imgsearch.server.encoding import Encoding
from imgsearch.server.indexes import Indexes
from imgsearch.server.pools import Pools, run
from imgsearch.server.settings import Settings
from imgsearch.server.spool import Spool
from imgsearch.server.storage import KeptFiles, Staged
from imgsearch.sites import Sites
from imgsearch.stores import check_name
from imgsearch.types import FieldType, ImageRecord, mtime_of

DESCRIPTION_FIELD = "description"
# Written together: more would make the first of them wait too long.
_TOGETHER = 64
# Many small writes slow a store's reads, until it has put them together.
_WRITES_BEFORE_OPTIMIZING = 64


@dataclass(frozen=True, slots=True)
class _Upload:
    """An image on its way into the store.

    `done` gets its record once the store has it, or the error that prevents it.
    """

    staged: Staged
    image: Picture
    vector: Vectors
    description: str
    done: "asyncio.Future[ImageRecord]"


class Uploads:
    """Takes pictures in one by one. Those that wait for the store are written together."""

    def __init__(
        self,
        settings: Settings,
        pools: Pools,
        indexes: Indexes,
        encoding: Encoding,
        spool: Spool,
    ) -> None:
        self.files = KeptFiles(
            settings.uploads, spool, settings.store_timeout, lambda: indexes.store.url
        )
        self._settings = settings
        self._pools = pools
        self._indexes = indexes
        self._encoding = encoding
        self._waiting: dict[str, list[_Upload]] = {}
        self._writers: dict[str, asyncio.Task[None]] = {}
        self._writes = 0

    async def add(self, image: bytes, description: str, collection: str) -> ImageRecord:
        """Keep and index an image; the same content again replaces its description.

        Creates the collection if need be. Raises ImageError if it is no usable image, EncoderError,
        RefusedError if the disk is full or the model is still being prepared, or StoreError.
        """
        check_name(collection)
        # The collection's own model, or the one that makes a new collection.
        stamp = await run(self._pools.store, self._indexes.stamp_of, collection)
        encoder = await self._indexes.models.ready(stamp)
        decoded, vector = await self._encoding.vector(image, encoder)
        staged = await run(self._pools.files, self.files.stage_bytes, image)
        done: asyncio.Future[ImageRecord] = asyncio.get_running_loop().create_future()
        upload = _Upload(staged, decoded, vector, description, done)
        return await self._written(upload, collection, encoder)

    async def _written(self, upload: _Upload, collection: str, encoder: Encoder) -> ImageRecord:
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
                    ends = {upload.staged.sha256: error for upload in part}
                for upload in part:
                    _end(upload, ends[upload.staged.sha256])

    def _write(
        self, name: str, encoder: Encoder, uploads: Sequence[_Upload]
    ) -> dict[str, ImageRecord | Exception]:
        """By SHA-256, the record as the store has it, or why the store refused it."""
        try:
            with self.files.turn(name), self._indexes.store.write_lock(name):
                return self._write_now(name, encoder, uploads)
        finally:
            for upload in uploads:
                upload.staged.discard()

    def _write_now(
        self, name: str, encoder: Encoder, uploads: Sequence[_Upload]
    ) -> dict[str, ImageRecord | Exception]:
        store = self._indexes.store
        try:
            collection = store.open_or_create(name, encoder.stamp)
        except CollectionMismatchError as error:
            raise StaleCollectionError(
                f"collection {name} has just been replaced by one of another model: try again"
            ) from error
        collection.join_site()
        sites = collection.sites
        latest = {upload.staged.sha256: upload for upload in _described(uploads)}
        new = {
            digest: _record(upload, self.files.place(upload.staged, name), sites)
            for digest, upload in latest.items()
        }
        known = collection.lookup([record.id for record in new.values()])
        written = {digest: _merged(record, known) for digest, record in new.items()}
        records = list(written.values())
        collection.add_fields(_fields_of(records))
        vectors = np.stack([upload.vector for upload in latest.values()])
        refused = collection.upsert(records, vectors)
        for record in records:
            if record.id in refused and record.id not in known:
                Path(record.path).unlink(missing_ok=True)
        self._writes += 1
        if self._writes % _WRITES_BEFORE_OPTIMIZING == 0:
            collection.optimize()
        return {
            digest: StoreError(refused[record.id]) if record.id in refused else record
            for digest, record in written.items()
        }


def _described(uploads: Sequence[_Upload]) -> list[_Upload]:
    """The uploads, each with the last description that came with its content, if any did."""
    said = {each.staged.sha256: each.description for each in uploads if each.description}
    return [replace(each, description=said.get(each.staged.sha256, "")) for each in uploads]


def _record(upload: _Upload, path: Path, sites: Sites) -> ImageRecord:
    status = os.stat(path)
    return ImageRecord(
        uri=sites.uri(str(path)),
        sha256=upload.staged.sha256,
        size=status.st_size,
        mtime_ns=mtime_of(status),
        width=upload.image.width,
        height=upload.image.height,
        metadata={DESCRIPTION_FIELD: upload.description} if upload.description else {},
    )


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
