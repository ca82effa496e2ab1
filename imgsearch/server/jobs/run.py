"""Run a job that ingests: unpack its files, store them by content, and ingest them in groups."""

import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from imgsearch import config
from imgsearch.errors import (
    CollectionMismatchError,
    ImageError,
    NothingFoundError,
    StoreError,
    VerificationError,
)
from imgsearch.events import Event, Outcome
from imgsearch.index import ImageIndex
from imgsearch.server.errors import ApiError
from imgsearch.server.indexes import Indexes
from imgsearch.server.jobs.files import JobFile, iter_files
from imgsearch.server.jobs.job import REPORT, Job
from imgsearch.server.models import Models
from imgsearch.server.settings import ArchiveLimits
from imgsearch.server.storage import StagedFile, UploadStorage
from imgsearch.server.uploads import DESCRIPTION_FIELD
from imgsearch.types import Stamp
from imgsearch.uris import record_id, uri_to_path

# Files ingested under one lock; others may write between two groups.
_GROUP_SIZE = 64
# Small, so that searches do not wait for a batch of an ingest.
BATCH_SIZE = 8
_RETRY_SECONDS = 2.0
# How often a job that waits for its model checks whether it must stop.
_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class _ReportLine:
    """The outcome of one file. `name` is the name that a client sent."""

    name: str
    status: str
    reason: str
    id: str | None


@dataclass(frozen=True, slots=True)
class _Staged:
    """A staged file, and the names that clients sent for it."""

    file: StagedFile
    names: list[str]


_Group = dict[str, _Staged]
"""By SHA-256."""


@dataclass(frozen=True, slots=True)
class JobRunner:
    """Runs jobs. `max_bytes` limits one image's file; `writer` is the service's write pool."""

    indexes: Indexes
    models: Models
    storage: UploadStorage
    writer: Executor
    limits: ArchiveLimits
    max_bytes: int

    def __call__(self, job: Job, folder: Path, stop: threading.Event) -> None:
        """Run a job until it has ended or `stop` is set.

        Raises StoreError if the store is unavailable for too long, EncoderError, or ApiError for a
        zip bomb or a full disk.
        """
        previous = _read_report(folder / REPORT)
        with (folder / REPORT).open("w", encoding="utf-8") as file:
            report = _Report(job, file, previous)
            for group in self._groups(iter_files(folder, self.limits), report):
                try:
                    if stop.is_set():
                        return
                    for sha256, outcome in self._ingest_retrying(job, group, stop):
                        for name in group[sha256].names:
                            report.write(name, outcome)
                finally:
                    _discard(group)

    def _groups(self, files: Iterable[JobFile], report: "_Report") -> Iterator[_Group]:
        """Stage files, and yield them in groups; report those that are rejected."""
        group: _Group = {}
        try:
            for member in files:
                try:
                    if isinstance(member.content, ImageError):
                        raise member.content
                    staged = self.storage.stage(member.content, self.max_bytes)
                except ImageError as error:
                    report.write(member.name, Outcome("", "rejected", str(error)))
                    continue
                if staged.sha256 in group:
                    staged.discard()
                group.setdefault(staged.sha256, _Staged(staged, [])).names.append(member.name)
                if len(group) >= _GROUP_SIZE:
                    yield group
                    group = {}
        except ApiError:  # the files before it are ingested nevertheless
            if group:
                yield group
            raise
        except BaseException:
            _discard(group)
            raise
        if group:
            yield group

    def _ingest_retrying(
        self, job: Job, group: _Group, stop: threading.Event
    ) -> list[tuple[str, Outcome]]:
        """Return the outcome of each file, by SHA-256; retry while the store is unavailable."""
        deadline = time.monotonic() + config.DEFAULT_STORE_TIMEOUT
        while True:
            try:
                if not wait_for_model(self.models, self.indexes.stamp(job.collection), stop):
                    return []
                return self.writer.submit(self._ingest, job, group, stop).result()
            except (CollectionMismatchError, VerificationError):
                raise
            except StoreError:
                if time.monotonic() > deadline or stop.wait(_RETRY_SECONDS):
                    raise

    def _ingest(self, job: Job, group: _Group, stop: threading.Event) -> list[tuple[str, Outcome]]:
        outcomes: list[tuple[str, Outcome]] = []
        with self.storage.lock(job.collection):
            digests = {
                str(self.storage.place(staged.file, job.collection)): sha256
                for sha256, staged in group.items()
            }

            def listen(event: Event) -> None:
                if isinstance(event, Outcome):
                    outcomes.append((digests[uri_to_path(event.uri)], event))

            index = self.indexes.create(job.collection)
            with suppress(NothingFoundError):  # all were rejected, as the outcomes say
                index.add("-", stdin=digests, listener=listen, stop=stop, batch_size=BATCH_SIZE)
            self._delete_rejected(index, outcomes)
            used = [record_id(each.uri) for _, each in outcomes if each.status != "rejected"]
            if job.description and used:
                _describe(index, used, job.description)
        return outcomes

    def _delete_rejected(self, index: ImageIndex, outcomes: list[tuple[str, Outcome]]) -> None:
        """Delete the files of rejected images, except those that a record has."""
        rejected = [each.uri for _, each in outcomes if each.status == "rejected"]
        if not rejected:
            return
        known = index.get_many([record_id(uri) for uri in rejected]) if index.exists() else {}
        for uri in rejected:
            if record_id(uri) not in known:
                Path(uri_to_path(uri)).unlink(missing_ok=True)


def wait_for_model(models: Models, stamp: Stamp | None, stop: threading.Event) -> bool:
    """Wait in this thread, which blocks no other write; False if stopped."""
    loading = models.get(stamp)
    while not stop.is_set():
        with suppress(TimeoutError):
            loading.result(_POLL_SECONDS)
            return True
    return False


def _discard(group: _Group) -> None:
    for staged in group.values():
        staged.file.discard()


def _describe(index: ImageIndex, ids: list[str], description: str) -> None:
    with index.store.write_lock(index.name):
        index.collection.add_fields({DESCRIPTION_FIELD: "str"})
        described = {DESCRIPTION_FIELD: description}
        index.collection.update_metadata(dict.fromkeys(ids, described))


def _read_report(report: Path) -> dict[tuple[str, str | None], _ReportLine]:
    lines = {}
    with suppress(FileNotFoundError):
        for text in report.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError, TypeError):  # the last line may be incomplete
                line = _ReportLine(**json.loads(text))
                lines[line.name, line.id] = line
    return lines


class _Report:
    """Writes a line for each file, and counts."""

    def __init__(
        self, job: Job, file: TextIO, previous: Mapping[tuple[str, str | None], _ReportLine]
    ) -> None:
        """`previous` are the lines of an interrupted run."""
        self._job = job
        self._file = file
        self._previous = previous
        job.finished = job.rejected = job.skipped = 0
        job.error = None

    def write(self, name: str, outcome: Outcome) -> None:
        rejected = outcome.status == "rejected"
        record = None if rejected else record_id(outcome.uri)
        line = _ReportLine(name, outcome.status, outcome.reason, record)
        if outcome.status == "skipped":  # perhaps indexed by an interrupted run of this job
            line = self._previous.get((name, record), line)
        self._file.write(json.dumps(asdict(line)) + "\n")
        self._file.flush()
        self._job.rejected += rejected
        self._job.skipped += line.status == "skipped"
        self._job.finished += 1
