"""A job at work: files are unpacked, kept by content, and ingested part by part."""

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
from imgsearch.server.errors import RefusedError
from imgsearch.server.indexes import Indexes
from imgsearch.server.jobs.archives import Member
from imgsearch.server.jobs.job import REPORT, Job, Line, files_of
from imgsearch.server.settings import ArchiveLimits
from imgsearch.server.storage import KeptFiles, Staged
from imgsearch.server.uploads import DESCRIPTION_FIELD
from imgsearch.types import record_id, uri_to_path

# Ingested at once; in between others may write.
_PART = 64
# Small, so that searches do not wait for a batch of an ingest.
_BATCH = 8
_RETRY_SECONDS = 2.0
# How often a job that waits for its model looks whether it is to stop.
_LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class _Arrived:
    """A staged file, and the names that clients gave it."""

    staged: Staged
    names: list[str]


_Part = dict[str, _Arrived]
"""By SHA-256."""


@dataclass(frozen=True, slots=True)
class JobRunner:
    """Runs jobs. `most` are the bytes of one picture's file; `writer` is the service's own pool."""

    indexes: Indexes
    files: KeptFiles
    writer: Executor
    limits: ArchiveLimits
    most: int

    def __call__(self, job: Job, folder: Path, stop: threading.Event) -> None:
        """Do a job, until it has ended or `stop` is set.

        Raises StoreError if the store has been away for too long, EncoderError, or RefusedError for
        a bomb or a full disk.
        """
        before = _told_before(folder / REPORT)
        with (folder / REPORT).open("w", encoding="utf-8") as file:
            report = _Report(job, file, before)
            for part in self._parts(files_of(folder, self.limits), report):
                try:
                    if stop.is_set():
                        return
                    for sha256, outcome in self._ingested(job, part, stop):
                        for name in part[sha256].names:
                            report.tell(name, outcome)
                finally:
                    _discard(part)

    def _parts(self, files: Iterable[Member], report: "_Report") -> Iterator[_Part]:
        """Staged files, some at a time."""
        part: _Part = {}
        try:
            for member in files:
                try:
                    if isinstance(member.content, ImageError):
                        raise member.content
                    staged = self.files.stage(member.content, self.most)
                except ImageError as error:
                    report.tell(member.name, Outcome("", "rejected", str(error)))
                    continue
                if staged.sha256 in part:
                    staged.discard()
                part.setdefault(staged.sha256, _Arrived(staged, [])).names.append(member.name)
                if len(part) >= _PART:
                    yield part
                    part = {}
        except RefusedError:  # what came before is taken in all the same
            if part:
                yield part
            raise
        except BaseException:
            _discard(part)
            raise
        if part:
            yield part

    def _ingested(self, job: Job, part: _Part, stop: threading.Event) -> list[tuple[str, Outcome]]:
        """The outcome of each staged file, by SHA-256. Waits for a store that goes away."""
        until = time.monotonic() + config.DEFAULT_STORE_TIMEOUT
        while True:
            try:
                if not self._has_model(job, stop):
                    return []
                return self.writer.submit(self._ingest, job, part, stop).result()
            except (CollectionMismatchError, VerificationError):
                raise
            except StoreError:
                if time.monotonic() > until or stop.wait(_RETRY_SECONDS):
                    raise

    def _has_model(self, job: Job, stop: threading.Event) -> bool:
        """Wait for the model here, not in the writer's thread; False if stopped meanwhile."""
        loading = self.indexes.models.of(self.indexes.stamp_of(job.collection))
        while not stop.is_set():
            with suppress(TimeoutError):
                loading.result(_LOOK_SECONDS)
                return True
        return False

    def _ingest(self, job: Job, part: _Part, stop: threading.Event) -> list[tuple[str, Outcome]]:
        outcomes: list[tuple[str, Outcome]] = []
        with self.files.turn(job.collection):
            digests = {
                str(self.files.place(arrived.staged, job.collection)): sha256
                for sha256, arrived in part.items()
            }

            def listen(event: Event) -> None:
                if isinstance(event, Outcome):
                    outcomes.append((digests[uri_to_path(event.uri)], event))

            index = self.indexes.new(job.collection)
            with suppress(NothingFoundError):  # all of them were rejected, as the outcomes tell
                index.add("-", stdin=digests, listener=listen, stop=stop, batch_size=_BATCH)
            self._remove_useless(index, outcomes)
            used = [record_id(each.uri) for _, each in outcomes if each.status != "rejected"]
            if job.description and used:
                _describe(index, used, job.description)
        return outcomes

    def _remove_useless(self, index: ImageIndex, outcomes: list[tuple[str, Outcome]]) -> None:
        """Delete the files of rejected images, except those that a record has."""
        rejected = [each.uri for _, each in outcomes if each.status == "rejected"]
        if not rejected:
            return
        known = index.get_many([record_id(uri) for uri in rejected]) if index.exists() else {}
        for uri in rejected:
            if record_id(uri) not in known:
                Path(uri_to_path(uri)).unlink(missing_ok=True)


def _discard(part: _Part) -> None:
    for arrived in part.values():
        arrived.staged.discard()


def _describe(index: ImageIndex, ids: list[str], description: str) -> None:
    with index.store.write_lock(index.name):
        index.collection.add_fields({DESCRIPTION_FIELD: "str"})
        described = {DESCRIPTION_FIELD: description}
        index.collection.update_metadata(dict.fromkeys(ids, described))


def _told_before(report: Path) -> dict[tuple[str, str | None], Line]:
    lines = {}
    with suppress(FileNotFoundError):
        for text in report.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError, TypeError):  # the last one may be there in part
                line = Line(**json.loads(text))
                lines[line.name, line.id] = line
    return lines


class _Report:
    """Writes a line for each file, and counts."""

    def __init__(
        self, job: Job, file: TextIO, before: Mapping[tuple[str, str | None], Line]
    ) -> None:
        """`before` are the lines of a run that was broken off."""
        self._job = job
        self._file = file
        self._before = before
        job.finished = job.rejected = job.skipped = 0
        job.error = None

    def tell(self, name: str, outcome: Outcome) -> None:
        rejected = outcome.status == "rejected"
        record = None if rejected else record_id(outcome.uri)
        line = Line(name, outcome.status, outcome.reason, record)
        if outcome.status == "skipped":  # by this very job, if it has been begun before
            line = self._before.get((name, record), line)
        self._file.write(json.dumps(asdict(line)) + "\n")
        self._file.flush()
        self._job.rejected += rejected
        self._job.skipped += line.status == "skipped"
        self._job.finished += 1
