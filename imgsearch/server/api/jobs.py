"""Uploads of many images, and the jobs that ingest them."""

from typing import Annotated

from fastapi import File, Form, Response, UploadFile
from fastapi.responses import StreamingResponse

from imgsearch.server.api.models import IngestJob
from imgsearch.server.api.routing import CollectionName, Router, ServiceDep, Text

router = Router(prefix="/v1", tags=["uploads"])


@router.post("/collections/{collection}/uploads", status_code=202)
async def upload(
    service: ServiceDep,
    response: Response,
    collection: CollectionName,
    files: Annotated[list[UploadFile], File(description="Images, or zips of images.")],
    description: Annotated[
        Text, Form(max_length=10_000, description="Searchable description of all the images.")
    ] = "",
) -> IngestJob:
    """Upload images. A background job ingests them; `Location` is the path of its progress.

    Creates the collection if needed. Names within a zip appear only in the report.
    """
    uploads = [(file.filename or "", file.file) for file in files]
    job = await service.submit(uploads, description, collection)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return IngestJob.from_job(job, service)


@router.get("/jobs")
def jobs(service: ServiceDep) -> list[IngestJob]:
    """List jobs, newest first."""
    return [IngestJob.from_job(job, service) for job in service.jobs.list()]


@router.get("/jobs/{job_id}")
def job(service: ServiceDep, job_id: str) -> IngestJob:
    """Return a job's state and progress."""
    return IngestJob.from_job(service.jobs.get(job_id), service)


@router.delete("/jobs/{job_id}")
async def cancel(service: ServiceDep, job_id: str) -> IngestJob:
    """Cancel a job. Images that it has indexed stay."""
    return IngestJob.from_job(await service.cancel(job_id), service)


@router.get("/jobs/{job_id}/report", response_class=StreamingResponse)
def report(service: ServiceDep, job_id: str) -> StreamingResponse:
    """Stream a line of JSON for each file: name, status, reason and record id."""
    service.jobs.get(job_id)
    return StreamingResponse(service.jobs.report(job_id), media_type="application/jsonl")
