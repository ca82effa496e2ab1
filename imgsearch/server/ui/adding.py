"""Adds images to the collection by a job, and reports its progress."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from imgsearch.errors import ImgsearchError
from imgsearch.server.jobs.job import ENDED, Job
from imgsearch.server.service import Service
from imgsearch.server.ui.rendering import render

_POLL_SECONDS = 0.3


class Adding:
    """Adds to the default collection of a service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def add(
        self, sent: Any, description: str, progress: Callable[[Job], None]
    ) -> AsyncIterator[tuple[str, str]]:
        """Yield the job's id, and then what became of the files as HTML.

        `sent` are the paths and names of files; instead of a path, some have the reason why they
        could not be sent. Files are deleted. What is not of this form is ignored.
        """
        sent = [each for each in sent if isinstance(each, dict)] if isinstance(sent, list) else []
        files = [(each["orig_name"], Path(each["path"])) for each in sent if "path" in each]
        rejected = [
            {"name": str(each["name"]), "reason": _reason(str(each["reason"]))}
            for each in sent
            if "path" not in each and {"name", "reason"} <= each.keys()
        ]
        job = None
        error = ""
        try:
            if files:
                job = await self._submit(files, description)
                yield job.id, ""
                while job.state not in ENDED and self._service.state == "ready":
                    progress(job)
                    await asyncio.sleep(_POLL_SECONDS)
                    job = self._service.jobs.get(job.id)
                rejected += await asyncio.to_thread(self._rejected, job)
                error = self._service.redact_text(job.error or "")
        except ImgsearchError as failed:
            error = self._service.redact(failed)
        yield "", render("added.html", job=job or Job("", ""), rejected=rejected, error=error)

    async def _submit(self, files: Sequence[tuple[str, Path]], description: str) -> Job:
        with contextlib.ExitStack() as stack:
            opened = [(name, stack.enter_context(path.open("rb"))) for name, path in files]
            for _, path in files:
                stack.callback(path.unlink, missing_ok=True)
            collection = self._service.settings.collection
            return await self._service.submit(opened, description, collection)

    def _rejected(self, job: Job) -> list[dict[str, str]]:
        lines = map(json.loads, self._service.jobs.report(job.id))
        return [each for each in lines if each["status"] == "rejected"]

    async def cancel(self, job_id: str | None) -> None:
        """Cancel a job, if it has not ended."""
        with contextlib.suppress(ImgsearchError):
            await self._service.cancel(job_id or "")


def _reason(error: str) -> str:
    """Return the reason in Gradio's error for an upload, which may quote the service's response."""
    try:
        return str(json.loads(error.partition(": ")[2])["detail"])
    except (ValueError, KeyError, TypeError):
        return error
