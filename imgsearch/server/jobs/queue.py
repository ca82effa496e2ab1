"""The queue of jobs: one runs at a time, and a restart resumes them."""

import contextlib
import logging
import queue
import re
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from imgsearch.errors import ImgsearchError
from imgsearch.server.errors import conflict, not_found, overloaded
from imgsearch.server.jobs.job import (
    ENDED,
    REPORT,
    STATE,
    Job,
    JobLock,
    State,
    delete_files,
    load_job,
    save_job,
    store_files,
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
# must have been without a service: a restarting service takes its own jobs back.
_POLL_SECONDS = 10.0
_GRACE_SECONDS = 60.0

log = logging.getLogger("imgsearch.server")


@dataclass(frozen=True, slots=True)
class _OwnJob:
    """A job whose lock this service holds, until its final state is saved."""

    job: Job
    lock: JobLock
    stop: threading.Event = field(default_factory=threading.Event)


class JobQueue:
    """Runs one job at a time, in a thread of its own.

    Each job has a folder below `root` until its report is dropped, and the next start resumes it.
    That repeats no work, as an ingest skips known images. Several services may share `root`: each
    locks its own jobs, and takes over jobs that nobody has locked.
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
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._saving = threading.Lock()
        # When the worker first found a job without a service, in seconds; only for its thread.
        self._orphaned_since: dict[str, float] = {}
        # Guards everything below, and every change of a job's state.
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._own: dict[str, _OwnJob] = {}
        # Jobs whose files are being copied.
        self._arriving = 0

    # For clients.

    def list(self) -> list[Job]:
        """Return this service's jobs and all ended jobs, newest first."""
        with self._lock:
            jobs = [*self._jobs.values()]
        return sorted(jobs, key=lambda job: job.created, reverse=True)

    def get(self, job_id: str) -> Job:
        """Return a job. Raises ApiError if there is none of this id."""
        with self._lock:
            job = self._jobs.get(job_id)
        if job is None and re.fullmatch("[0-9a-f]{32}", job_id):
            job = load_job(self._root / job_id)  # another service may have it
        if job is None:
            raise not_found("job-not-found", f"there is no job {job_id}")
        return job

    def submit(
        self, files: Sequence[tuple[str, BinaryIO]], description: str, collection: str
    ) -> Job:
        """Create a job for files (names and contents), which are images or zips of images.

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
            job = Job(uuid.uuid4().hex, collection, description)
            self._enqueue(_OwnJob(job, self._write(job, files)))
        finally:
            with self._lock:
                self._arriving -= 1
        return job

    def _write(self, job: Job, files: Sequence[tuple[str, BinaryIO]]) -> JobLock:
        """Write a new job and its files to the disk, and return its lock."""
        folder = self._folder(job)
        with translate_disk_errors():
            self._root.mkdir(parents=True, exist_ok=True)
            # Before the folder exists, so that no other service considers it abandoned.
            lock = JobLock.acquire(folder)
            assert lock is not None  # the id is new
            try:
                job.found = store_files(folder, files, self._limits)
                self._save(job)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                lock.delete()
                raise
        return lock

    def check_idle(self, collection: str) -> None:
        """Raise ApiError while a job of any service writes to a collection."""
        with self._lock:
            known = dict(self._jobs)
        jobs = [known.get(name) or load_job(self._root / name) for name in _job_ids(self._root)]
        active = (job for job in jobs if job and job.state not in ENDED)
        if busy := [job.id for job in active if job.collection == collection]:
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
                own.stop.set()
                job.cancelled = True
                if was_queued := job.state == "queued":
                    job.state = "cancelled"
            elif job.state in ENDED:
                return job
        if own is None:
            raise conflict(
                "job-elsewhere",
                f"another service on this data directory runs job {job_id}: cancel it there",
            )
        if was_queued:
            self._finish(own)
        else:
            self._try_save(job)
        return job

    def report(self, job_id: str) -> Iterator[str]:
        """Yield a line of JSON for each file that has an outcome."""
        path = self._folder(self.get(job_id)) / REPORT
        if path.is_file():
            with path.open(encoding="utf-8") as lines:
                yield from lines

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
        self._queue.put(None)

    def close(self) -> None:
        """Stop, and wait for the running job."""
        self.stop()
        if self._thread:
            self._thread.join()
        with self._lock:
            for own in self._own.values():
                own.lock.release()
            self._own.clear()

    def _folder(self, job: Job) -> Path:
        return self._root / job.id

    def _enqueue(self, own: _OwnJob) -> None:
        with self._lock:
            self._jobs[own.job.id] = own.job
            self._own[own.job.id] = own
            if self._stopping.is_set():
                own.stop.set()
        self._queue.put(own.job.id)

    def _adopt(self, grace: float) -> None:
        """Take over jobs that have had no service for `grace` seconds; list ended ones."""
        found: list[_OwnJob] = []
        for name in _job_ids(self._root):
            if name in self._jobs:
                continue
            try:
                lock = JobLock.acquire(self._root / name)
            except OSError:  # not writable, which the next upload reports
                continue
            if lock is None:
                self._orphaned_since.pop(name, None)
                continue
            since = self._orphaned_since.setdefault(name, time.monotonic())
            job = load_job(self._root / name)
            if job and job.state in ENDED:
                with self._lock:
                    self._jobs[name] = job
                lock.delete()
            elif time.monotonic() - since < grace:
                lock.release()
            elif job:
                found.append(_OwnJob(job, lock))
            elif (self._root / name / STATE).exists():  # of another version, or damaged
                lock.release()
            else:  # its files had not arrived completely
                shutil.rmtree(self._root / name, ignore_errors=True)
                lock.delete()
        for own in sorted(found, key=lambda own: own.job.created):
            self._take_over(own)
        self._drop_old_reports()
        self._orphaned_since = {
            name: since for name, since in self._orphaned_since.items() if name not in self._jobs
        }

    def _take_over(self, own: _OwnJob) -> None:
        job = own.job
        job.state = "queued"
        if job.crashes >= _MAX_CRASHES:
            job.error = f"the service was killed {job.crashes} times while it ran this job"
            job.state = "failed"
        elif job.cancelled:
            job.state = "cancelled"
        if job.state == "queued":
            self._enqueue(own)
        else:
            with self._lock:
                self._jobs[job.id] = job
                self._own[job.id] = own
            self._finish(own)

    def _work(self) -> None:
        while not self._stopping.is_set():
            # No error ends the worker.
            try:
                try:
                    job_id = self._queue.get(timeout=self._poll_seconds)
                except queue.Empty:
                    self._adopt(self._grace_seconds)
                else:
                    if job_id is not None:
                        self._run(job_id)
            except Exception as error:
                _log_internal("jobs", error)

    def _run(self, job_id: str) -> None:
        with self._lock:
            own = self._own.get(job_id)
            if own is None or own.job.state != "queued":
                return
            job = own.job
            job.state = "running"
            job.crashes += 1
        self._try_save(job)
        error = self._run_catching(own)
        with self._lock:
            job.crashes = 0
            interrupted = self._stopping.is_set() and not job.cancelled
            job.error = None if interrupted else error
            job.state = _next_state(own, error, interrupted=interrupted)
        if interrupted:
            self._try_save(job)
        else:
            self._finish(own)

    def _run_catching(self, own: _OwnJob) -> str | None:
        """Run a job, and return the text of its error."""
        try:
            self._run_job(own.job, self._folder(own.job), own.stop)
        except ImgsearchError as error:
            return self._redact(error)
        except Exception as error:
            _log_internal(f"job {own.job.id}", error)
            return f"internal error: {type(error).__name__}"
        return None

    def _finish(self, own: _OwnJob) -> None:
        """Save the state of an ended job, and delete its files."""
        saved = self._try_save(own.job)
        delete_files(self._folder(own.job))
        with self._lock:
            if saved:
                del self._own[own.job.id]
                own.lock.delete()
            # Otherwise the lock stays: no other service may run the job again.
        self._drop_old_reports()

    def _drop_old_reports(self) -> None:
        """Delete the folders of all but the newest ended jobs."""
        with self._lock:
            ended = [job for name, job in self._jobs.items() if name not in self._own]
            ended.sort(key=lambda job: job.created, reverse=True)
            for job in ended[_MAX_REPORTS:]:
                del self._jobs[job.id]
        for job in ended[_MAX_REPORTS:]:
            shutil.rmtree(self._folder(job), ignore_errors=True)

    def _try_save(self, job: Job) -> bool:
        """Save a job's state if possible; on a full disk only this process knows it."""
        try:
            self._save(job)
        except OSError:
            return False
        return True

    def _save(self, job: Job) -> None:
        with self._saving:  # the last writer has the last state
            save_job(job, self._folder(job))


def _job_ids(root: Path) -> list[str]:
    """Return the ids of all jobs that have a folder."""
    with contextlib.suppress(OSError):
        return sorted(each.name for each in root.iterdir() if each.is_dir())
    return []


def _next_state(own: _OwnJob, error: str | None, *, interrupted: bool) -> State:
    if interrupted:
        return "queued"
    if error:
        return "failed"
    return "cancelled" if own.stop.is_set() else "done"


def _log_internal(where: str, error: Exception) -> None:
    log.error("%s: internal error: %s: %s", where, type(error).__name__, error)
