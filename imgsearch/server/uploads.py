"""Single uploads: encoded in batches with other requests, and written in groups."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from imgsearch.encoders.base import Encoder, Vectors
from imgsearch.errors import CollectionMismatchError, StaleCollectionError, StoreError
from imgsearch.images import DecodedImage
from imgsearch.server.capacity import Pools, run
from imgsearch.server.indexes import Indexes
from imgsearch.server.models import Models
from imgsearch.server.storage import StagedFile, UploadStorage
from imgsearch.sites import Sites
from imgsearch.stores import check_name
from imgsearch.types import ImageRecord, mtime_of

DESCRIPTION_FIELD = "description"
# Uploads written together; with more, the first ones would wait for too long.
_GROUP_SIZE = 64
# Many small writes slow down a store's reads until it merges them.
_WRITES_BEFORE_OPTIMIZE = 64


@dataclass(frozen=True, slots=True)
class _Upload:
    """An image to be written. `done` gets its record, or the error that prevented it."""

    staged: StagedFile
    image: DecodedImage
    vector: Vectors
    description: str
    done: "asyncio.Future[ImageRecord]"


class Uploads:
    """Indexes single images. Uploads that wait for the store are written together."""

    def __init__(
        self,
        pools: Pools,
        indexes: Indexes,
        models: Models,
        storage: UploadStorage,
    ) -> None:
        self._pools = pools
        self._indexes = indexes
        self._models = models
        self._storage = storage
        self._waiting: dict[str, list[_Upload]] = {}
        self._writers: dict[str, asyncio.Task[None]] = {}
        self._writes = 0

    async def add(self, image: bytes, description: str, collection: str) -> ImageRecord:
        """Store and index an image; an equal image again replaces its description.

        Creates the collection if needed. Raises ImageError for an unusable image, EncoderError,
        StoreError, or ApiError if the disk is full or the model is still being prepared.
        """
        check_name(collection)
        # The collection's own model, or the model for a new collection.
        stamp = await run(self._pools.store, self._indexes.stamp, collection)
        model = await self._models.wait(stamp)
        decoded, vector = await self._models.encode(image, model)
        staged = await run(self._pools.files, self._storage.stage_bytes, image)
        done: asyncio.Future[ImageRecord] = asyncio.get_running_loop().create_future()
        upload = _Upload(staged, decoded, vector, description, done)
        return await self._written(upload, collection, model)

    async def _written(self, upload: _Upload, collection: str, model: Encoder) -> ImageRecord:
        """Queue an upload, and return its record once it is written."""
        self._waiting.setdefault(collection, []).append(upload)
        writer = self._writers.get(collection)
        if writer is None or writer.done():
            writing = self._write_all(collection, model)
            self._writers[collection] = asyncio.create_task(writing)
        return await upload.done

    async def _write_all(self, collection: str, encoder: Encoder) -> None:
        """Write until no upload waits."""
        while waiting := self._waiting.pop(collection, []):
            for start in range(0, len(waiting), _GROUP_SIZE):
                group = waiting[start : start + _GROUP_SIZE]
                try:
                    results = await run(self._pools.write, self._write, collection, encoder, group)
                except Exception as error:  # passed on to every client
                    results = {upload.staged.sha256: error for upload in group}
                for upload in group:
                    _resolve(upload, results[upload.staged.sha256])

    def _write(
        self, name: str, encoder: Encoder, uploads: Sequence[_Upload]
    ) -> dict[str, ImageRecord | Exception]:
        """Return, by SHA-256, the record that was written, or why it could not be."""
        try:
            with self._storage.lock(name), self._indexes.store.write_lock(name):
                return self._write_locked(name, encoder, uploads)
        finally:
            for upload in uploads:
                upload.staged.discard()

    def _write_locked(
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
        latest: dict[str, _Upload] = {}
        for upload in uploads:
            before = latest.get(upload.staged.sha256)
            description = upload.description or (before.description if before else "")
            latest[upload.staged.sha256] = replace(upload, description=description)
        new = {
            digest: _record(upload, self._storage.place(upload.staged, name), sites)
            for digest, upload in latest.items()
        }
        known = collection.lookup([record.id for record in new.values()])
        written = {digest: _merge(record, known) for digest, record in new.items()}
        records = list(written.values())
        if any(DESCRIPTION_FIELD in record.metadata for record in records):
            collection.add_fields({DESCRIPTION_FIELD: "str"})
        vectors = np.stack([upload.vector for upload in latest.values()])
        rejected = collection.upsert(records, vectors)
        for record in records:
            if record.id in rejected and record.id not in known:
                Path(record.path).unlink(missing_ok=True)
        self._writes += 1
        if self._writes % _WRITES_BEFORE_OPTIMIZE == 0:
            collection.optimize()
        return {
            digest: StoreError(rejected[record.id]) if record.id in rejected else record
            for digest, record in written.items()
        }


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


def _resolve(upload: _Upload, result: ImageRecord | Exception) -> None:
    if upload.done.done():  # its client has disconnected
        return
    if isinstance(result, Exception):
        upload.done.set_exception(result)
    else:
        upload.done.set_result(result)


def _merge(record: ImageRecord, known: Mapping[str, ImageRecord]) -> ImageRecord:
    """Add the metadata that the store has for an equal image, where the upload has none."""
    before = known.get(record.id)
    return replace(record, metadata={**before.metadata, **record.metadata}) if before else record
