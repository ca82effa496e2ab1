"""Ingests of many uploads at once: queued, run one after the other, resumed after a stop."""

import contextlib
import json
import logging
import os
import queue
import re
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO

from imgsearch.errors import ImgsearchError
from imgsearch.server.errors import RefusedError
from imgsearch.server.jobs.job import ENDED, REPORT, Job, State, drop_files, take_files
from imgsearch.server.jobs.leases import Lease
from imgsearch.server.settings import ArchiveLimits
from imgsearch.server.storage import disk_full_told
from imgsearch.stores import check_name

# Maximum number of queued jobs; further submissions get 429.
_MOST_WAITING = 16
# Ended jobs whose reports are kept.
_MOST_KEPT = 100
# A job during which the service was killed this often in a row fails.
_MOST_CRASHES = 5
_STATE = "job.json"
# How often an idle worker looks for jobs that another service left behind, and for how long such a
# job must have been without a service: one that restarts takes its own jobs back.
_LOOK_SECONDS = 10.0
_PATIENCE_SECONDS = 60.0

log = logging.getLogger("imgsearch.server")


@dataclass(frozen=True, slots=True)
class _Held:
    """A job that this service has the lease on, until its end has been saved."""

    job: Job
    lease: Lease
    stop: threading.Event = field(default_factory=threading.Event)


class Jobs:
    """Runs one job at a time, in a thread of its own.

    Each job has a folder below `root` until its report is dropped, so that the next start resumes
    it; that does no work twice, as an ingest skips what is known. Several services may share
    `root`: each holds leases on its own jobs, and takes over jobs that nobody holds a lease on.
    """

    def __init__(
        self,
        root: Path,
        run: Callable[[Job, Path, threading.Event], None],
        limits: ArchiveLimits,
        told: Callable[[ImgsearchError], str] = str,
        *,
        look_seconds: float = _LOOK_SECONDS,
        patience_seconds: float = _PATIENCE_SECONDS,
    ) -> None:
        """`run` runs a job whose files lie in a folder, until it has ended or the event is set.

        `told` returns the text of an error that clients may see.
        """
        self._root = root
        self._run_job = run
        self._limits = limits
        self._told = told
        self._look_seconds = look_seconds
        self._patience_seconds = patience_seconds
        self._waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._saving = threading.Lock()
        # When the worker first found a job without a service, in seconds; used by one thread.
        self._free_since: dict[str, float] = {}
        # Guards all below, and every change of a job's state.
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._held: dict[str, _Held] = {}
        # Jobs whose files are being copied.
        self._arriving = 0

    # For clients.

    def list(self) -> list[Job]:
        """The jobs of this service and all ended jobs, newest first."""
        with self._lock:
            jobs = [*self._jobs.values()]
        return sorted(jobs, key=lambda job: job.created, reverse=True)

    def get(self, job_id: str) -> Job:
        """Raises RefusedError if there is no such job."""
        with self._lock:
            job = self._jobs.get(job_id)
        if job is None and re.fullmatch("[0-9a-f]{32}", job_id):
            job = _saved(self._root / job_id)  # another service has it
        if job is None:
            raise RefusedError(404, "job-not-found", f"there is no job {job_id}")
        return job

    def submit(
        self, files: Sequence[tuple[str, BinaryIO]], description: str, collection: str
    ) -> Job:
        """Create a job for files (names and contents), which are images or zips of images.

        Raises RefusedError if too many jobs wait, a zip is not to be taken, or the disk is full,
        and UsageError for a name that no collection can have.
        """
        check_name(collection)
        with self._lock:
            queued = sum(held.job.state == "queued" for held in self._held.values())
            waiting = queued + self._arriving
            if waiting >= _MOST_WAITING:
                raise RefusedError(429, "overloaded", f"{waiting} jobs wait; try again later", 30)
            self._arriving += 1
        try:
            job = Job(uuid.uuid4().hex, collection, description)
            self._hold(_Held(job, self._laid_down(job, files)))
        finally:
            with self._lock:
                self._arriving -= 1
        return job

    def _laid_down(self, job: Job, files: Sequence[tuple[str, BinaryIO]]) -> Lease:
        """Write a new job and its files; returns the lease on it."""
        folder = self._folder(job)
        with disk_full_told():
            self._root.mkdir(parents=True, exist_ok=True)
            # Before the folder exists, so that no other service takes it for abandoned.
            lease = Lease.take(folder)
            assert lease is not None  # the id is new
            try:
                job.found = take_files(folder, files, self._limits)
                self._save(job)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                lease.end()
                raise
        return lease

    def check_idle(self, collection: str) -> None:
        """Raises RefusedError while there are jobs for a collection, of any service."""
        with self._lock:
            known = dict(self._jobs)
        jobs = [known.get(name) or _saved(self._root / name) for name in _names(self._root)]
        if busy := [job.id for job in jobs if job and _is_for(job, collection)]:
            raise RefusedError(
                409,
                "collection-busy",
                f"jobs bring images into collection {collection}: wait for them, or cancel them: "
                f"{', '.join(busy)}",
            )

    def cancel(self, job_id: str) -> Job:
        """Let a job end soon; what it has written stays.

        Raises RefusedError if there is no such job, or another service runs it.
        """
        job = self.get(job_id)
        with self._lock:
            held = self._held.get(job_id)
            if held:
                held.stop.set()
                job.cancelled = True
                if waits := job.state == "queued":
                    job.state = "cancelled"
            elif job.state in ENDED:
                return job
        if held is None:
            raise RefusedError(
                409,
                "job-elsewhere",
                f"another service on this data directory runs job {job_id}: cancel it there",
            )
        if waits:
            self._conclude(held)
        else:
            self._try_to_save(job)
        return job

    def report(self, job_id: str) -> Iterator[str]:
        """A line of JSON for each file that has an outcome."""
        place = self._folder(self.get(job_id)) / REPORT
        if place.is_file():
            with place.open(encoding="utf-8") as lines:
                yield from lines

    # Life cycle.

    def resume(self) -> None:
        """Start the worker, with the jobs that have no service."""
        self._adopt(patience=0.0)
        self._thread = threading.Thread(target=self._work, name="imgsearch-jobs")
        self._thread.start()

    def stop(self) -> None:
        """Let the running job write what is in flight; the next start resumes it."""
        self._stopping.set()
        with self._lock:
            for held in self._held.values():
                held.stop.set()
        self._waiting.put(None)

    def close(self) -> None:
        """Wait until the running job has stopped."""
        self.stop()
        if self._thread:
            self._thread.join()
        with self._lock:
            for held in self._held.values():
                held.lease.release()
            self._held.clear()

    def _folder(self, job: Job) -> Path:
        return self._root / job.id

    def _hold(self, held: _Held) -> None:
        with self._lock:
            self._jobs[held.job.id] = held.job
            self._held[held.job.id] = held
            if self._stopping.is_set():
                held.stop.set()
        self._waiting.put(held.job.id)

    def _adopt(self, patience: float) -> None:
        """Take over the jobs that have had no service for `patience` seconds; list ended ones."""
        found: list[_Held] = []
        for name in _names(self._root):
            if name in self._jobs:
                continue
            try:
                lease = Lease.take(self._root / name)
            except OSError:  # not writable: the next upload reports it
                continue
            if lease is None:
                self._free_since.pop(name, None)
                continue
            free_since = self._free_since.setdefault(name, time.monotonic())
            job = _saved(self._root / name)
            if job and job.state in ENDED:
                with self._lock:
                    self._jobs[name] = job
                lease.end()
            elif time.monotonic() - free_since < patience:
                lease.release()
            elif job:
                found.append(_Held(job, lease))
            elif (self._root / name / _STATE).exists():  # of another version, or damaged
                lease.release()
            else:  # its files had not all arrived
                shutil.rmtree(self._root / name, ignore_errors=True)
                lease.end()
        for held in sorted(found, key=lambda held: held.job.created):
            self._take_over(held)
        self._forget_old()
        self._free_since = {
            name: since for name, since in self._free_since.items() if name not in self._jobs
        }

    def _take_over(self, held: _Held) -> None:
        job = held.job
        job.state = "queued"
        if job.crashes >= _MOST_CRASHES:
            job.error = f"the service was killed {job.crashes} times while it ran this job"
            job.state = "failed"
        elif job.cancelled:
            job.state = "cancelled"
        if job.state == "queued":
            self._hold(held)
        else:
            with self._lock:
                self._jobs[job.id] = job
                self._held[job.id] = held
            self._conclude(held)

    def _work(self) -> None:
        while not self._stopping.is_set():
            # Whatever goes wrong, the next job has a worker.
            try:
                job_id = self._waiting.get(timeout=self._look_seconds)
                if job_id is not None:
                    self._run(job_id)
            except queue.Empty:
                self._look()
            except Exception as error:
                _log_internal("jobs", error)

    def _look(self) -> None:
        try:
            self._adopt(self._patience_seconds)
        except Exception as error:
            _log_internal("jobs", error)

    def _run(self, job_id: str) -> None:
        with self._lock:
            held = self._held.get(job_id)
            if held is None or held.job.state != "queued":
                return
            job = held.job
            job.state = "running"
            job.crashes += 1
        self._try_to_save(job)
        error = self._error_of(held)
        with self._lock:
            job.crashes = 0
            interrupted = self._stopping.is_set() and not job.cancelled
            job.error = None if interrupted else error
            job.state = _state_after(held, error, interrupted=interrupted)
        if interrupted:
            self._try_to_save(job)
        else:
            self._conclude(held)

    def _error_of(self, held: _Held) -> str | None:
        """Run a job; returns what went wrong."""
        try:
            self._run_job(held.job, self._folder(held.job), held.stop)
        except ImgsearchError as error:
            return self._told(error)
        except Exception as error:
            _log_internal(f"job {held.job.id}", error)
            return f"internal error: {type(error).__name__}"
        return None

    def _conclude(self, held: _Held) -> None:
        """Save the state of a job that has just ended, and drop what it does not need any more."""
        saved = self._try_to_save(held.job)
        drop_files(self._folder(held.job))
        with self._lock:
            if saved:
                del self._held[held.job.id]
                held.lease.end()
            # Otherwise the lease stays: no other service may run the job again.
        self._forget_old()

    def _forget_old(self) -> None:
        """Drop the reports of all but the newest of the ended jobs."""
        with self._lock:
            ended = [job for name, job in self._jobs.items() if name not in self._held]
            ended.sort(key=lambda job: job.created, reverse=True)
            for job in ended[_MOST_KEPT:]:
                del self._jobs[job.id]
        for job in ended[_MOST_KEPT:]:
            shutil.rmtree(self._folder(job), ignore_errors=True)

    def _try_to_save(self, job: Job) -> bool:
        """Whether the job's state is on disk; on a full one it is known to this process alone."""
        try:
            self._save(job)
        except OSError:
            return False
        return True

    def _save(self, job: Job) -> None:
        place = self._folder(job) / _STATE
        part = place.with_suffix(".part")
        with self._saving:  # so that the last one to write has the last state
            part.write_text(json.dumps(asdict(job)))
            os.replace(part, place)


def _names(root: Path) -> list[str]:
    """The ids of all jobs that have a folder."""
    with contextlib.suppress(OSError):
        return sorted(each.name for each in root.iterdir() if each.is_dir())
    return []


def _saved(folder: Path) -> Job | None:
    """The job of a folder, as it was last saved."""
    try:
        return Job(**json.loads((folder / _STATE).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _is_for(job: Job, collection: str) -> bool:
    return job.collection == collection and job.state not in ENDED


def _state_after(held: _Held, error: str | None, *, interrupted: bool) -> State:
    if interrupted:
        return "queued"
    if error:
        return "failed"
    return "cancelled" if held.stop.is_set() else "done"


def _log_internal(where: str, error: Exception) -> None:
    log.error("%s: internal error: %s: %s", where, type(error).__name__, error)
