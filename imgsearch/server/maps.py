"""Maps of collections: drawn by jobs, and kept in the data directory until they are drawn again."""

import asyncio
import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from imgsearch import config
from imgsearch.errors import UsageError
from imgsearch.map.layout import check_installed
from imgsearch.server.capacity import Pools, run
from imgsearch.server.errors import not_found
from imgsearch.server.indexes import Indexes
from imgsearch.server.jobs.job import ENDED, Job, MapJob
from imgsearch.server.jobs.queue import JobQueue
from imgsearch.server.media import ImageFile
from imgsearch.server.settings import Settings
from imgsearch.system import atomic

MOST_IMAGES = 300_000
"""Drawing a map takes some kilobytes of memory per image, and time that uploads wait for."""

_DOCUMENT = "map.html"
_LAYOUT = "layout.parquet"
_ABOUT = "about.json"


@dataclass(frozen=True, slots=True)
class About:
    """What a map was drawn from: `fingerprint` is that of the records (`imgsearch.map`).

    `drawn` is in seconds since the epoch, and `version` that of imgsearch.
    """

    drawn: float
    images: int
    fingerprint: str
    version: str


class MapFolder:
    """The folder of one collection's map: the document, the layout, and what they show."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.document = path / _DOCUMENT
        self.layout = path / _LAYOUT

    @classmethod
    def of(cls, settings: Settings, collection: str) -> Self:
        """Services that share a data directory may have stores of their own."""
        store = settings.store or config.default_store()
        key = hashlib.sha256(f"{store}\n{collection}".encode()).hexdigest()[:32]
        return cls(settings.data / "maps" / key)

    @property
    def about(self) -> About | None:
        """None without a map, or with one of another version that cannot be read."""
        try:
            about = About(**json.loads((self._path / _ABOUT).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return about if self.document.is_file() else None

    def create(self) -> None:
        self._path.mkdir(parents=True, exist_ok=True)

    def keep(self, about: About) -> None:
        atomic.write_text(self._path / _ABOUT, json.dumps(asdict(about)))

    def delete(self) -> None:
        shutil.rmtree(self._path, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class MapState:
    """The map of a collection, if it has one, and the job that draws one, if there is one.

    `images` are in the collection now.
    """

    about: About | None
    images: int
    job: Job | None


class Maps:
    """The maps of all collections. Its methods are for one event loop."""

    def __init__(self, settings: Settings, indexes: Indexes, jobs: JobQueue, pools: Pools) -> None:
        self._settings = settings
        self._indexes = indexes
        self._jobs = jobs
        self._pools = pools
        self._submitting = asyncio.Lock()

    async def draw(self, collection: str, *, new_layout: bool = False) -> Job:
        """Return a job that draws the map of a collection: the one in progress, or a new one.

        It ends at once if nothing has changed since the last one. With `new_layout`, all images get
        new places. Raises CollectionNotFoundError, MissingLibraryError, UsageError for a collection
        that is too large, or ApiError if the queue is full.
        """

        def check() -> None:
            check_installed()
            images = self._indexes.get(collection).count()
            if images > MOST_IMAGES:
                raise UsageError(
                    f"collection {collection} has {images:,} images: the service draws maps of at "
                    f"most {MOST_IMAGES:,}; `imgsearch map` draws larger ones"
                )
            if not images:
                raise UsageError(f"collection {collection} has no images to draw")

        await run(self._pools.store, check)
        async with self._submitting:
            if job := await run(self._pools.files, self._active, collection):
                return job
            task = MapJob(new_layout)
            return await run(self._pools.files, self._jobs.submit, (), "", collection, drawing=task)

    def _active(self, collection: str) -> Job | None:
        """Return the job that draws a collection's map, or waits to do so."""
        jobs = self._jobs.list()
        found = (job for job in jobs if job.kind == "map" and job.collection == collection)
        return next((job for job in found if job.state not in ENDED), None)

    async def state(self, collection: str) -> MapState:
        """Raises CollectionNotFoundError or StoreError."""
        images = await run(self._pools.store, lambda: self._indexes.get(collection).count())
        return await run(
            self._pools.files,
            lambda: MapState(
                MapFolder.of(self._settings, collection).about, images, self._active(collection)
            ),
        )

    async def open(self, collection: str) -> ImageFile:
        """Open the document of a collection's map. Raises CollectionNotFoundError or ApiError."""
        await run(self._pools.store, lambda: self._indexes.get(collection).collection)
        return await run(self._pools.files, self._open, collection)

    def _open(self, collection: str) -> ImageFile:
        try:
            file = MapFolder.of(self._settings, collection).document.open("rb")
        except OSError:
            raise not_found(
                "map-not-found",
                f"no map of collection {collection} has been drawn: POST to its path draws one",
            ) from None
        status = os.fstat(file.fileno())
        return ImageFile(file, "text/html; charset=utf-8", status.st_size, status.st_mtime_ns)

    def delete(self, collection: str) -> None:
        """Delete the map of a collection that is dropped."""
        MapFolder.of(self._settings, collection).delete()
