"""The queue of jobs: one runs at a time, and a restart resumes them.

Job libraries need a broker, or a database; here a folder holds the job's files, state and report.
"""

import contextlib
import logging
import queue
import re
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from filelock import BaseFileLock

from imgsearch.errors import ImgsearchError
from imgsearch.server.errors import conflict, not_found, overloaded
from imgsearch.server.jobs.files import delete_files, store_files
from imgsearch.server.jobs.job import (
    ENDED,
    REPORT,
    STATE,
    Job,
    MapJob,
    SearchOptions,
    acquire_lock,
    delete_lock,
    load_job,
    result_file,
    save_job,
)
from imgsearch.server.settings import ArchiveLimits
from imgsearch.server.storage import translate_disk_errors
from imgsearch.stores import check_name

# Queued jobs; further submissions get 429.
_MAX_QUEUED = 16
_RETRY_SECONDS = 30
# Ended jobs whose reports are retained.
_MAX_REPORTS = 100
# A job fails after this many consecutive runs during which the service was killed.
_MAX_CRASHES = 5
# How often an idle worker looks for jobs that another service left, and for how long such a job
# must have been without a service: a restarting service resumes its own jobs.
_POLL_SECONDS = 10.0
_GRACE_SECONDS = 60.0

log = logging.getLogger("imgsearch.server")


@dataclass(frozen=True, slots=True)
class _OwnJob:
    """A job whose lock this service holds, until its final state is saved."""

    job: Job
    folder: Path
    lock: BaseFileLock
    stop: threading.Event = field(default_factory=threading.Event)


class JobQueue:
    """Runs one job at a time, in a thread of its own.

    Each job has a folder below `root` until its report is dropped, and the next start resumes it.
    An ingest repeats no work then, as it skips known images; a search begins again. Several
    services may share `root`: each locks its own jobs, and takes over unlocked ones.
    """

    def __init__(
        self,
        root: Path,
        run: Callable[[Job, Path, threading.Event], None],
        limits: ArchiveLimits,
        redact: Callable[[ImgsearchError], str] = str,
        *,
        poll_seconds: float = _POLL_SECONDS,
        grace_seconds: float = _GRACE_SECONDS,
    ) -> None:
        """`run` runs the job of a folder until it has ended or the event is set.

        `redact` returns the text of an error for clients.
        """
        self._root = root
        self._run_job = run
        self._limits = limits
        self._redact = redact
        self._poll_seconds = poll_seconds
        self._grace_seconds = grace_seconds
        self._queue: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._saving = threading.Lock()
        # When the worker first found a job without a service, in seconds; only for its thread.
        self._orphaned_since: dict[str, float] = {}
        # Guards everything below, and every change of a job's state.
        self._lock = threading.Lock()
        self._own: dict[str, _OwnJob] = {}
        # Jobs whose files are being copied.
        self._arriving = 0

    # For clients.

    def list(self) -> list[Job]:
        """Return this service's jobs and all ended jobs, newest first."""
        own, others = self._jobs()
        return _newest_first((*own, *(job for job in others if job.state in ENDED)))

    def _jobs(self) -> tuple[Sequence[Job], Sequence[Job]]:
        """Return the jobs that this service runs, and all others, as they were saved."""
        with self._lock:
            own = {name: own.job for name, own in self._own.items()}
        others = (load_job(each) for each in self._folders() if each.name not in own)
        return [*own.values()], [*filter(None, others)]

    def get(self, job_id: str) -> Job:
        """Return a job. Raises ApiError if there is none of this id."""
        with self._lock:
            own = self._own.get(job_id)
        if own:
            return own.job
        if re.fullmatch("[0-9a-f]{32}", job_id) and (job := load_job(self._root / job_id)):
            return job
        raise not_found("job-not-found", f"there is no job {job_id}")

    def submit(
        self,
        files: Sequence[tuple[str, BinaryIO]],
        description: str,
        collection: str,
        search: SearchOptions | None = None,
        drawing: MapJob | None = None,
    ) -> Job:
        """Create a job for files (names and contents), which are images or zips of images.

        With `search`, it searches with the images; with `drawing`, it draws a map, and needs none;
        otherwise it ingests them.

        Raises ApiError if the queue or the disk is full, or a zip is unusable, and UsageError for
        an invalid collection name.
        """
        check_name(collection)
        with self._lock:
            queued = sum(own.job.state == "queued" for own in self._own.values())
            waiting = queued + self._arriving
            if waiting >= _MAX_QUEUED:
                detail = f"{waiting} jobs are queued; try again later"
                raise overloaded(detail, retry_after=_RETRY_SECONDS)
            self._arriving += 1
        try:
            job = Job(uuid.uuid4().hex, collection, description, search, drawing)
            self._enqueue(self._write(job, files))
        finally:
            with self._lock:
                self._arriving -= 1
        return job

    def _write(self, job: Job, files: Sequence[tuple[str, BinaryIO]]) -> _OwnJob:
        """Write a new job and its files to the disk."""
        folder = self._root / job.id
        with translate_disk_errors():
            self._root.mkdir(parents=True, exist_ok=True)
            # Before the folder exists, so that no other service considers it abandoned.
            lock = acquire_lock(folder)
            assert lock is not None  # the id is new
            try:
                job.found = store_files(folder, files, self._limits)
                save_job(job, folder)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                delete_lock(folder, lock)
                raise
        return _OwnJob(job, folder, lock)

    def check_idle(self, collection: str) -> None:
        """Raise ApiError while a job of any service writes to a collection."""
        own, others = self._jobs()
        active = (job for job in (*own, *others) if job.state not in ENDED)
        if busy := [
            job.id for job in active if job.collection == collection and job.kind == "ingest"
        ]:
            raise conflict(
                "collection-busy",
                f"jobs are writing to collection {collection}: wait for them, or cancel them: "
                f"{', '.join(busy)}",
            )

    def cancel(self, job_id: str) -> Job:
        """Cancel a job; what it has written stays.

        Raises ApiError if there is no such job, or another service runs it.
        """
        job = self.get(job_id)
        with self._lock:
            own = self._own.get(job_id)
            if own:
                job = own.job
                own.stop.set()
                job.cancelled = True
                if was_queued := job.state == "queued":
                    job.state = "cancelled"
        if own and was_queued:
            self._finish(own)
        elif own:
            self._try_save(own)
        elif job.state not in ENDED:
            raise conflict(
                "job-elsewhere",
                f"another service on this data directory runs job {job_id}: cancel it there",
            )
        return job

    def report(self, job_id: str) -> Iterator[str]:
        """Yield a line of JSON for each file that has an outcome."""
        path = self._root / self.get(job_id).id / REPORT
        if path.is_file():
            with path.open(encoding="utf-8") as lines:
                yield from lines

    def result(self, job_id: str) -> Path:
        """Return the file that a search has written. Raises ApiError if there is none."""
        job = self.get(job_id)
        if job.search is None:
            raise not_found("result-not-found", f"job {job_id} is no search")
        if job.state != "done":
            raise conflict("job-not-done", f"job {job_id} is {job.state}, and has no result")
        path = result_file(self._root / job.id, job.search)
        if not path.is_file():
            raise not_found("result-not-found", f"the result of job {job_id} is gone")
        return path

    # Life cycle.

    def resume(self) -> None:
        """Start the worker, with the jobs that have no service."""
        self._adopt(grace=0.0)
        self._thread = threading.Thread(target=self._work, name="imgsearch-jobs")
        self._thread.start()

    def stop(self) -> None:
        """Let the running job write what is in flight; the next start resumes it."""
        self._stopping.set()
        with self._lock:
            for own in self._own.values():
                own.stop.set()
        self._queue.put("")  # wakes the worker

    def close(self) -> None:
        """Stop, and wait for the running job."""
        self.stop()
        if self._thread:
            self._thread.join()
        with self._lock:
            for own in self._own.values():
                own.lock.release()
            self._own.clear()

    def _enqueue(self, own: _OwnJob) -> None:
        with self._lock:
            self._own[own.job.id] = own
            if self._stopping.is_set():
                own.stop.set()
        self._queue.put(own.job.id)

    def _folders(self) -> Iterator[Path]:
        """Yield the folders of all jobs."""
        with contextlib.suppress(OSError):
            yield from sorted(each for each in self._root.iterdir() if each.is_dir())

    def _adopt(self, grace: float) -> None:
        """Take over jobs that have had no service for `grace` seconds."""
        found: list[_OwnJob] = []
        orphaned_since, self._orphaned_since = self._orphaned_since, {}
        for folder in self._folders():
            job = load_job(folder)
            if folder.name in self._own or (job and job.state in ENDED):
                continue
            try:
                lock = acquire_lock(folder)
            except OSError:  # not writable, which the next upload reports
                continue
            if lock is None:
                continue
            since = orphaned_since.get(folder.name, time.monotonic())
            self._orphaned_since[folder.name] = since
            is_due = time.monotonic() - since >= grace
            job = load_job(folder)  # again, as its service may just have saved it
            if job and job.state in ENDED:
                delete_lock(folder, lock)
            elif job and is_due:
                found.append(_OwnJob(job, folder, lock))
            elif is_due and not (folder / STATE).exists():  # its files had not all arrived
                shutil.rmtree(folder, ignore_errors=True)
                delete_lock(folder, lock)
            else:  # not due, or of another version, or damaged
                lock.release()
        for own in sorted(found, key=lambda own: own.job.created):
            self._take_over(own)
        self._drop_old_reports()

    def _take_over(self, own: _OwnJob) -> None:
        job = own.job
        job.state = "queued"
        if job.crashes >= _MAX_CRASHES:
            job.error = f"the service was killed {job.crashes} times while it ran this job"
            job.state = "failed"
        elif job.cancelled:
            job.state = "cancelled"
        self._enqueue(own)
        if job.state in ENDED:
            self._finish(own)

    def _work(self) -> None:
        while not self._stopping.is_set():
            try:  # no error ends the worker
                self._run_next()
            except Exception as error:
                _log_internal("jobs", error)

    def _run_next(self) -> None:
        try:
            job_id = self._queue.get(timeout=self._poll_seconds)
        except queue.Empty:
            self._adopt(self._grace_seconds)
            return
        with self._lock:
            own = self._own.get(job_id)
            if own is None or own.job.state != "queued":
                return
            own.job.state = "running"
            own.job.crashes += 1
        self._try_save(own)
        self._run(own)

    def _run(self, own: _OwnJob) -> None:
        job, error = own.job, None
        try:
            self._run_job(job, own.folder, own.stop)
        except ImgsearchError as failure:
            error = self._redact(failure)
        except Exception as failure:
            _log_internal(f"job {job.id}", failure)
            error = f"internal error: {type(failure).__name__}"
        with self._lock:
            job.crashes = 0
            if self._stopping.is_set() and not job.cancelled:
                job.state = "queued"  # the next start resumes it
            else:
                job.error = error
                job.state = "failed" if error else "cancelled" if own.stop.is_set() else "done"
        if job.state in ENDED:
            self._finish(own)
        else:
            self._try_save(own)

    def _finish(self, own: _OwnJob) -> None:
        """Save the state of an ended job, and delete its files."""
        saved = self._try_save(own)
        delete_files(own.folder)
        if saved:  # otherwise the lock stays: no other service may run the job again
            with self._lock:
                self._own.pop(own.job.id, None)
            delete_lock(own.folder, own.lock)
        self._drop_old_reports()

    def _drop_old_reports(self) -> None:
        """Delete the folders of all but the newest ended jobs."""
        _, others = self._jobs()
        ended = [job for job in others if job.state in ENDED]
        for job in _newest_first(ended)[_MAX_REPORTS:]:
            shutil.rmtree(self._root / job.id, ignore_errors=True)
            delete_lock(self._root / job.id)  # of a killed service

    def _try_save(self, own: _OwnJob) -> bool:
        """Save a job's state if possible; on a full disk only this process knows it."""
        try:
            with self._saving:  # the last writer has the last state
                save_job(own.job, own.folder)
        except OSError:
            return False
        return True


def _newest_first(jobs: Iterable[Job]) -> list[Job]:
    return sorted(jobs, key=lambda job: job.created, reverse=True)


def _log_internal(where: str, error: Exception) -> None:
    log.error("%s: internal error: %s: %s", where, type(error).__name__, error)
