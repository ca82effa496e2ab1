"""`JobQueue` alone: its worker, its locks, and orphaned jobs."""

import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path

import pytest

from imgsearch.server.errors import ApiError
from imgsearch.server.jobs import queue as jobs_module
from imgsearch.server.jobs.job import ENDED, Job, acquire_lock, delete_lock
from imgsearch.server.jobs.queue import JobQueue
from imgsearch.server.settings import ArchiveLimits

Run = Callable[[Job, Path, threading.Event], None]


def do_nothing(job: Job, folder: Path, stop: threading.Event) -> None:
    pass


def until_stopped(job: Job, folder: Path, stop: threading.Event) -> None:
    assert stop.wait(60)


def submitted(jobs: JobQueue) -> str:
    return jobs.submit([("a.png", io.BytesIO(b"any"))], "", "images").id


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def ended(jobs: JobQueue, job_id: str) -> str:
    wait_for(lambda: jobs.get(job_id).state in ENDED)
    return jobs.get(job_id).state


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., JobQueue]]:
    """Return a function that starts a queue on a shared data directory."""
    with ExitStack() as cleanup:

        def start(run: Run = do_nothing, grace_seconds: float = 0.0) -> JobQueue:
            jobs = JobQueue(
                tmp_path / "jobs",
                run,
                ArchiveLimits(),
                poll_seconds=0.01,
                grace_seconds=grace_seconds,
            )
            cleanup.callback(jobs.close)
            jobs.resume()
            return jobs

        yield start


def files_left(tmp_path: Path) -> list[str]:
    # Unlike pathlib, os.walk ignores folders that are deleted during the walk.
    return sorted(name for _, _, files in os.walk(tmp_path / "jobs") for name in files)


class TestWorker:
    def test_an_error_fails_only_its_job(self, started: Callable[..., JobQueue]) -> None:
        def fail_first(job: Job, folder: Path, stop: threading.Event) -> None:
            if job.id == first:
                raise RuntimeError("failure")

        gate = threading.Event()

        def run(*given: object) -> None:
            assert gate.wait(60)
            fail_first(*given)  # type: ignore[arg-type]

        jobs = started(run)
        first, second = submitted(jobs), submitted(jobs)
        gate.set()
        assert ended(jobs, second) == "done"
        assert ended(jobs, first) == "failed"
        assert jobs.get(first).error == "internal error: RuntimeError"

    def test_an_error_after_a_job_does_not_stop_the_worker(
        self, started: Callable[..., JobQueue], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(_: Path) -> None:
            monkeypatch.undo()
            raise RuntimeError("failure")

        jobs = started()
        monkeypatch.setattr(jobs_module, "delete_files", fail)
        first, second = submitted(jobs), submitted(jobs)
        assert ended(jobs, second) == "done"
        assert ended(jobs, first) == "done"

    def test_concurrent_cancellations_do_not_stop_the_worker(
        self, started: Callable[..., JobQueue], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(jobs_module, "_MAX_REPORTS", 1)
        monkeypatch.setattr(jobs_module, "_MAX_QUEUED", 100)
        jobs = started()

        def submit_and_cancel(_: int) -> None:
            with suppress(ApiError):  # its report may have been dropped by now
                jobs.cancel(submitted(jobs))

        with ThreadPoolExecutor(8) as clients:
            list(clients.map(submit_and_cancel, range(100)))
        assert ended(jobs, submitted(jobs)) == "done"
        wait_for(lambda: files_left(tmp_path) == ["job.json"])

    def test_only_the_state_of_an_ended_job_remains(
        self, started: Callable[..., JobQueue], tmp_path: Path
    ) -> None:
        jobs = started()
        for each in [submitted(jobs) for _ in range(3)]:
            assert ended(jobs, each) == "done"
        wait_for(lambda: files_left(tmp_path) == ["job.json"] * 3)
        assert not jobs._own


class TestSharedDataDirectory:
    def test_each_runs_its_own_jobs(self, started: Callable[..., JobQueue]) -> None:
        one, other = started(until_stopped), started()
        busy = submitted(one)
        assert ended(other, submitted(other)) == "done"
        assert [job.id for job in other.list()] != [busy]
        assert other.get(busy).state in ("queued", "running")
        with pytest.raises(ApiError, match="another service"):
            other.cancel(busy)
        with pytest.raises(ApiError, match=busy):
            other.check_idle("images")
        assert one.cancel(busy).cancelled
        assert ended(one, busy) == "cancelled"

    def test_a_restarted_service_runs_the_jobs_of_all(
        self, started: Callable[..., JobQueue]
    ) -> None:
        both = [started(until_stopped) for _ in range(2)]
        orphans = [submitted(each) for each in both]
        for each in both:
            each.close()
        alone = started()
        assert [ended(alone, each) for each in orphans] == ["done", "done"]

    def test_jobs_are_resumed_in_the_order_of_submission(
        self, started: Callable[..., JobQueue]
    ) -> None:
        before = started(until_stopped)
        orphans = [submitted(before) for _ in range(8)]
        before.close()
        order: list[str] = []

        def note(job: Job, folder: Path, stop: threading.Event) -> None:
            order.append(job.id)

        after = started(note)
        assert {ended(after, each) for each in orphans} == {"done"}
        assert order == orphans

    def test_a_running_service_takes_over_orphaned_jobs(
        self, started: Callable[..., JobQueue]
    ) -> None:
        staying, leaving = started(), started(until_stopped)
        orphans = [submitted(leaving) for _ in range(2)]
        leaving.close()
        assert [ended(staying, each) for each in orphans] == ["done", "done"]

    def test_a_restarting_service_keeps_its_jobs(self, started: Callable[..., JobQueue]) -> None:
        staying = started(until_stopped, grace_seconds=3600)
        restarting = started(until_stopped)
        orphan = submitted(restarting)
        restarting.close()
        wait_for(lambda: orphan in staying._orphaned_since)
        assert staying.list() == []
        again = started()
        assert ended(again, orphan) == "done"
        wait_for(lambda: [job.id for job in staying.list()] == [orphan])

    def test_a_killed_process_releases_its_locks(self, tmp_path: Path) -> None:
        program = (
            "import pathlib, sys; from imgsearch.server.jobs.job import acquire_lock; "
            "lock = acquire_lock(pathlib.Path(sys.argv[1])); print('acquired', flush=True); input()"
        )
        command = [sys.executable, "-c", program, str(tmp_path / "job")]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout
            assert process.stdout.readline() == "acquired\n"
            assert acquire_lock(tmp_path / "job") is None
            process.kill()
        lock = acquire_lock(tmp_path / "job")
        assert lock is not None
        delete_lock(tmp_path / "job", lock)
        assert not list(tmp_path.iterdir())


class TestAfterCrashes:
    def write(self, tmp_path: Path, job: Job) -> None:
        folder = tmp_path / "jobs" / job.id
        (folder / "files").mkdir(parents=True)
        (folder / "job.json").write_text(json.dumps(asdict(job)))

    @pytest.mark.parametrize(("crashes", "state"), [(4, "done"), (5, "failed")])
    def test_a_job_that_repeatedly_kills_the_service_fails(
        self, started: Callable[..., JobQueue], tmp_path: Path, crashes: int, state: str
    ) -> None:
        job = Job("a" * 32, "images", state="running", crashes=crashes)
        self.write(tmp_path, job)
        jobs = started()
        assert ended(jobs, job.id) == state
        assert bool(jobs.get(job.id).error) == (state == "failed")

    def test_an_incomplete_job_is_deleted(
        self, started: Callable[..., JobQueue], tmp_path: Path
    ) -> None:
        (tmp_path / "jobs" / ("b" * 32) / "files").mkdir(parents=True)
        started()
        assert not list((tmp_path / "jobs").iterdir())

    def test_a_job_of_another_version_is_ignored(
        self, started: Callable[..., JobQueue], tmp_path: Path
    ) -> None:
        folder = tmp_path / "jobs" / ("c" * 32)
        folder.mkdir(parents=True)
        (folder / "job.json").write_text('{"unknown": 1}')
        assert started().list() == []
        assert (folder / "job.json").exists()
