"""Run a job that searches with uploaded images, and writes a row for each hit to a file."""

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from imgsearch.bulk import QueryResult
from imgsearch.bulk.output import ResultFile
from imgsearch.errors import ImageError, NothingFoundError
from imgsearch.server.indexes import Indexes
from imgsearch.server.jobs.files import JobFile, empty_folder, iter_files
from imgsearch.server.jobs.job import Job, result_file
from imgsearch.server.jobs.run import BATCH_SIZE, wait_for_model
from imgsearch.server.models import Models
from imgsearch.server.settings import ArchiveLimits
from imgsearch.server.storage import Readable, translate_disk_errors

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class SearchRunner:
    """Runs such jobs. `max_bytes` limits one image's file.

    `show_paths` says whether the result may name paths of this machine.
    """

    indexes: Indexes
    models: Models
    limits: ArchiveLimits
    max_bytes: int
    show_paths: bool

    def __call__(self, job: Job, folder: Path, stop: threading.Event) -> None:
        """Run a job until it has ended or `stop` is set; a stopped one has no result.

        Raises StoreError, EncoderError, or ApiError for a zip bomb or a full disk.
        """
        assert job.search is not None
        job.finished = job.rejected = 0
        job.error = None
        index = self.indexes.get(job.collection)
        if not wait_for_model(self.models, index.collection.stamp, stop):
            return
        known, search = index.fields, job.search
        fields = {name: known[name] for name in search.show if name in known}
        work, target = empty_folder(folder), result_file(folder, search)
        queries = _Queries(work, iter_files(folder, self.limits), self.max_bytes)
        with ResultFile(str(work / target.name), {}, fields, places=self.show_paths) as file:
            results = index.search_many(
                "-",
                stdin=queries,
                text=search.text,
                k=search.k,
                where=search.where,
                min_score=search.min_score,
                confident=search.confident,
                exclude_self=search.exclude_self,
                collapse=not search.copies,
                batch_size=BATCH_SIZE,
                stop=stop,
            )
            with suppress(NothingFoundError), closing(results):  # type: ignore[type-var]
                for each in results:
                    result = queries.named(each)
                    file.add(result)
                    job.rejected += result.error is not None
                    job.finished += 1
            if not stop.is_set():
                file.finish()
                os.replace(work / target.name, target)


class _Queries:
    """The paths of a job's images, each written to a folder when it is asked for."""

    def __init__(self, folder: Path, files: Iterable[JobFile], max_bytes: int) -> None:
        self._folder = folder
        self._files = files
        self._max_bytes = max_bytes
        # By path: the client's name, and why the image cannot be read.
        self._waiting: dict[str, tuple[str, str | None]] = {}

    def __iter__(self) -> Iterator[str]:
        for number, file in enumerate(self._files):
            path, reason = self._folder / str(number), None
            with translate_disk_errors(), path.open("wb") as part:
                try:
                    if isinstance(file.content, ImageError):
                        raise file.content
                    _copy(file.content, part, self._max_bytes)
                except ImageError as error:
                    reason = str(error)
                    part.truncate(0)  # an image that the search rejects, too
            self._waiting[str(path)] = file.name, reason
            yield str(path)

    def named(self, result: QueryResult) -> QueryResult:
        """Return a result with the client's name for the image, whose file is deleted."""
        name, reason = self._waiting.pop(result.path)
        Path(result.path).unlink(missing_ok=True)
        return replace(result, path=name, error=reason or result.error)


def _copy(image: Readable, part: BinaryIO, max_bytes: int) -> None:
    copied = 0
    while chunk := image.read(_CHUNK_BYTES):
        copied += len(chunk)
        if copied > max_bytes:
            raise ImageError(f"the file has more than {max_bytes:,} bytes (--max-body)")
        part.write(chunk)
