"""Ingests of many uploads at once: queued, run one after the other, and gone on with if stopped."""

import contextlib
import json
import logging
import os
import queue
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from imgsearch.errors import ImgsearchError
from imgsearch.server.job import ENDED, REPORT, Job, State, drop_files, take_files
from imgsearch.server.kept import disk_full_told
from imgsearch.server.refusals import RefusedError
from imgsearch.server.settings import ArchiveLimits
from imgsearch.stores import check_name

if TYPE_CHECKING:
    from filelock import FileLock

# Jobs that wait; whoever comes on top is told to come again.
_MOST_WAITING = 16
# Ended jobs whose reports are kept.
_MOST_KEPT = 100
_STATE = "job.json"

log = logging.getLogger("imgsearch.server")


class Jobs:
    """Runs one job at a time, in a thread of its own.

    A job lies in a folder of the data directory until it has ended, so that the next start goes on
    with it; that does no work twice, as an ingest skips what is known.
    """

    def __init__(
        self, root: Path, run: Callable[[Job, Path, threading.Event], None], limits: ArchiveLimits
    ) -> None:
        """`run` does a job whose files lie in a folder, until it has ended or the event is set."""
        self._root = root
        self._run_job = run
        self._limits = limits
        self._jobs: dict[str, Job] = {}
        self._waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._cancelled: dict[str, threading.Event] = {}
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._saving = threading.Lock()
        self._claimed: FileLock | None = None
        # Jobs whose files are being laid down.
        self._arriving = 0

    # For clients.

    def list(self) -> list[Job]:
        """All that are known, the newest first."""
        return sorted([*self._jobs.values()], key=lambda job: job.created, reverse=True)

    def get(self, job_id: str) -> Job:
        """Raises RefusedError if there is no such job."""
        if job_id not in self._jobs:
            raise RefusedError(404, "job-not-found", f"there is no job {job_id}")
        return self._jobs[job_id]

    def submit(
        self, files: Sequence[tuple[str, BinaryIO]], description: str, collection: str
    ) -> Job:
        """Take files (names and contents), pictures or zips of pictures, in for a new job.

        Raises RefusedError if too many jobs wait, a zip is not to be taken, or the disk is full,
        and UsageError for a name that no collection can have.
        """
        check_name(collection)
        with self._lock:
            queued = sum(job.state == "queued" for job in self._jobs.values())
            waiting = queued + self._arriving
            if waiting >= _MOST_WAITING:
                raise RefusedError(429, "overloaded", f"{waiting} jobs wait; try again later", 30)
            self._arriving += 1
        job = Job(uuid.uuid4().hex, collection, description)
        folder = self._folder(job)
        try:
            with disk_full_told():
                job.found = take_files(folder, files, self._limits)
                self._save(job)
            self._add(job)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            with self._lock:
                self._arriving -= 1
        return job

    def check_idle(self, collection: str) -> None:
        """Raises RefusedError while there are jobs for a collection."""
        if busy := [job.id for job in self.list() if self._is_for(job, collection)]:
            raise RefusedError(
                409,
                "collection-busy",
                f"jobs bring pictures into collection {collection}: wait for them, or cancel them: "
                f"{', '.join(busy)}",
            )

    @staticmethod
    def _is_for(job: Job, collection: str) -> bool:
        return job.collection == collection and job.state not in ENDED

    def cancel(self, job_id: str) -> Job:
        """Let a job end soon; what it has written stays."""
        job = self.get(job_id)
        with self._lock:
            if job.state not in ENDED:
                self._cancelled[job_id].set()
                job.cancelled = True
                with contextlib.suppress(OSError):  # a full disk: it is remembered until the end
                    self._save(job)
                if job.state == "queued":
                    self._end(job, "cancelled")
        return job

    def report(self, job_id: str) -> Iterator[str]:
        """A line of JSON for each file that has an outcome."""
        place = self._folder(self.get(job_id)) / REPORT
        if place.is_file():
            with place.open(encoding="utf-8") as lines:
                yield from lines

    # Its life.

    def _folder(self, job: Job) -> Path:
        return self._root / job.id

    def claim(self) -> bool:
        """Take the folder for this process, or one beside it; whether it is the first of them.

        Two services may share a data directory, but neither is to do the jobs of the other.
        """
        from filelock import FileLock, Timeout

        first = self._root
        for number in count(1):
            root = first if number == 1 else first.with_name(f"{first.name}-{number}")
            try:
                root.mkdir(parents=True, exist_ok=True)
                claimed = FileLock(root.with_name(f".{root.name}.lock"), thread_local=False)
                claimed.acquire(blocking=False)
            except Timeout:
                continue
            except OSError:  # it cannot be written to, which a job will tell
                return False
            self._root, self._claimed = root, claimed
            break
        return self._root == first

    def resume(self) -> None:
        """Go on with the jobs that the last run of the service left."""
        left = []
        for folder in self._root.glob("*/"):
            try:
                left.append(Job(**json.loads((folder / _STATE).read_text())))
            except FileNotFoundError:  # its files had not all arrived
                shutil.rmtree(folder, ignore_errors=True)
            except (OSError, ValueError, TypeError):
                continue  # of another version, or damaged
        for job in sorted(left, key=lambda job: job.created):
            if job.state == "running":
                job.state = "queued"
            self._add(job)
            if job.cancelled and job.state not in ENDED:
                self._end(job, "cancelled")

    def stop(self) -> None:
        """Let the running job write what is in flight; it goes on next time."""
        self._stopping.set()
        for each in self._cancelled.values():
            each.set()
        self._waiting.put(None)

    def close(self) -> None:
        """Wait until the running job has stopped."""
        self.stop()
        if self._thread:
            self._thread.join()
        if self._claimed:
            self._claimed.release()

    def _add(self, job: Job) -> None:
        self._jobs[job.id] = job
        if job.state in ENDED:
            return
        self._cancelled[job.id] = threading.Event()
        self._waiting.put(job)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="imgsearch-jobs")
            self._thread.start()

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None and not self._stopping.is_set():
            with self._lock:
                if job.state != "queued":
                    continue
                job.state = "running"
            self._run(job)

    def _run(self, job: Job) -> None:
        cancelled = self._cancelled[job.id]
        try:
            self._run_job(job, self._folder(job), cancelled)
        except ImgsearchError as error:
            job.error = str(error)
        except Exception as error:
            job.error = f"internal error: {type(error).__name__}"
            log.error("job %s: %s: %s", job.id, job.error, error)
        if self._stopping.is_set() and not job.cancelled:
            job.state = "queued"  # on the disk it is as it began
        elif job.error:
            self._end(job, "failed")
        else:
            self._end(job, "cancelled" if cancelled.is_set() else "done")

    def _end(self, job: Job, state: State) -> None:
        job.state = state
        with contextlib.suppress(OSError):  # a full disk: the job is remembered until the end
            self._save(job)
        drop_files(self._folder(job))
        ended = [each for each in self.list() if each.state in ENDED]
        for each in ended[_MOST_KEPT:]:
            shutil.rmtree(self._folder(each), ignore_errors=True)
            del self._jobs[each.id]

    def _save(self, job: Job) -> None:
        place = self._folder(job) / _STATE
        part = place.with_suffix(".part")
        with self._saving:
            part.write_text(json.dumps(asdict(job)))
            os.replace(part, place)
