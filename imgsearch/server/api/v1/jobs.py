"""Uploads of many pictures, which become jobs."""

from typing import Annotated

from fastapi import APIRouter, File, Form, Response, UploadFile
from fastapi.responses import StreamingResponse

from imgsearch.server.api.dependencies import TheService
from imgsearch.server.api.v1.models import CollectionName, IngestJob, Text

router = APIRouter(prefix="/v1", tags=["uploads"])


@router.post("/collections/{collection}/uploads", status_code=202)
async def upload(
    service: TheService,
    response: Response,
    collection: CollectionName,
    files: Annotated[list[UploadFile], File(description="Pictures, or zips of pictures.")],
    description: Annotated[
        Text, Form(max_length=10_000, description="Of all of them, to search for by words.")
    ] = "",
) -> IngestJob:
    """Take pictures in. They are indexed by a job, whose progress is told where `Location` says.

    The collection is made if need be. Names within a zip are only told in the report.
    """
    given = [(file.filename or "", file.file) for file in files]
    job = await service.submit(given, description, collection)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return IngestJob.of(job, service)


@router.get("/jobs")
async def jobs(service: TheService) -> list[IngestJob]:
    """The jobs, the newest first."""
    return [IngestJob.of(job, service) for job in service.jobs.list()]


@router.get("/jobs/{job_id}")
async def job(service: TheService, job_id: str) -> IngestJob:
    """How far a job has come."""
    return IngestJob.of(service.jobs.get(job_id), service)


@router.delete("/jobs/{job_id}")
async def cancel(service: TheService, job_id: str) -> IngestJob:
    """Let a job end soon. What it has indexed by then stays."""
    return IngestJob.of(await service.cancel(job_id), service)


@router.get("/jobs/{job_id}/report", response_class=StreamingResponse)
async def report(service: TheService, job_id: str) -> StreamingResponse:
    """A line of JSON for each file: name, status, reason, and the id of its record."""
    service.jobs.get(job_id)
    return StreamingResponse(service.jobs.report(job_id), media_type="application/jsonl")
