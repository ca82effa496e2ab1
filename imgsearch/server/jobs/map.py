"""Run a job that draws the map of a collection."""

import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from imgsearch import __version__
from imgsearch.errors import UsageError
from imgsearch.events import Counted, Event, Outcome, Stage
from imgsearch.map import MapOptions, fingerprint, make_map
from imgsearch.map.saved import read
from imgsearch.server.indexes import Indexes
from imgsearch.server.jobs.job import Job
from imgsearch.server.maps import About, MapFolder
from imgsearch.server.settings import Settings
from imgsearch.server.storage import translate_disk_errors
from imgsearch.stores.base import Collection


@dataclass(frozen=True, slots=True)
class MapRunner:
    """Runs such jobs."""

    indexes: Indexes
    settings: Settings

    def __call__(self, job: Job, _: Path, stop: threading.Event) -> None:
        """Draw a map, unless the last one shows the same; setting `stop` leaves that as it is.

        Raises StoreError, NothingFoundError, MissingLibraryError, or ApiError for a full disk.
        """
        assert job.drawing is not None
        job.error = None
        collection = self.indexes.get(job.collection).collection
        folder = MapFolder.of(self.settings, job.collection)
        shown = fingerprint(collection, stop)
        about = folder.about
        is_current = about and (about.fingerprint, about.version) == (shown, __version__)
        if stop.is_set() or (is_current and not job.drawing.new_layout):
            return
        with translate_disk_errors():
            folder.create()
            if job.drawing.new_layout or not _fits(folder.layout, collection):
                folder.layout.unlink(missing_ok=True)
            options = MapOptions(
                output=str(folder.document),
                layout=str(folder.layout),
                max_pixels=self.settings.limits.pixels,
                paths=self.settings.show_paths,
                ids=True,
            )
            report = make_map(collection, (), options, _Progress(job), stop)
            if report:
                folder.keep(About(time.time(), report.images, shown, __version__))
                job.step, job.found, job.finished = "", report.images, report.images


def _fits(layout: Path, collection: Collection) -> bool:
    """Return whether a layout can be used: not that of a former collection of the same name."""
    with suppress(UsageError):
        read(str(layout), collection.stamp)
        return True
    return False


class _Progress:
    """Writes into a job what it does: `found` and `finished` are those of its present step."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def __call__(self, event: Event) -> None:
        if isinstance(event, Stage):
            self._job.step = event.text
            self._job.found = self._job.finished = 0
        elif isinstance(event, Counted):
            self._job.found = event.total
        elif isinstance(event, Outcome):
            self._job.finished += 1
