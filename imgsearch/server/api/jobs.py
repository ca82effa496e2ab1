"""Uploads of many images, and the jobs that ingest them or search with them."""

from typing import Annotated

from fastapi import File, Form, Response, UploadFile
from fastapi.responses import FileResponse, StreamingResponse

from imgsearch.server.api.models import JobStatus
from imgsearch.server.api.routing import CollectionName, Router, ServiceDep, Text, file_name
from imgsearch.server.api.search import (
    ConfidentForm,
    CopiesForm,
    ExcludeSelfForm,
    HitsForm,
    MinScoreForm,
    TextForm,
    WhereForm,
)
from imgsearch.server.jobs.job import ResultFormat, SearchOptions

router = Router(prefix="/v1", tags=["uploads"])

_RESULT_TYPES = {
    ".jsonl": "application/jsonl",
    ".csv": "text/csv",
    ".parquet": "application/vnd.apache.parquet",
}


@router.post("/collections/{collection}/uploads", status_code=202)
async def upload(
    service: ServiceDep,
    response: Response,
    collection: CollectionName,
    files: Annotated[list[UploadFile], File(description="Images, or zips of images.")],
    description: Annotated[
        Text, Form(max_length=10_000, description="Searchable description of all the images.")
    ] = "",
) -> JobStatus:
    """Upload images. A background job ingests them; `Location` is the path of its progress.

    Creates the collection if needed. Names within a zip appear only in the report.
    """
    uploads = [(file.filename or "", file.file) for file in files]
    job = await service.submit(uploads, description, collection)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return JobStatus.from_job(job, service)


@router.post("/collections/{collection}/search-jobs", status_code=202, tags=["search"])
async def search_job(
    service: ServiceDep,
    response: Response,
    collection: CollectionName,
    files: Annotated[
        list[UploadFile], File(description="Images, or zips of images; each is searched for.")
    ],
    text: TextForm = "",
    k: HitsForm = 10,
    where: WhereForm = None,
    min_score: MinScoreForm = None,
    confident: ConfidentForm = False,
    copies: CopiesForm = False,
    exclude_self: ExcludeSelfForm = False,
    show: Annotated[
        list[Text] | None,
        Form(description="Metadata fields of the result.", examples=[["articleType"]]),
    ] = None,
    format: Annotated[ResultFormat, Form(description="Format of the result.")] = "jsonl",  # noqa: A002
) -> JobStatus:
    """Search with each of many images in a background job; `Location` is the path of its progress.

    The result has a row for each hit. The service deletes the images when the job has ended.
    """
    uploads = [(file_name(file) or "", file.file) for file in files]
    search = SearchOptions(
        text=text,
        k=k,
        where=tuple(where or ()),
        min_score=min_score,
        confident=confident,
        copies=copies,
        exclude_self=exclude_self,
        show=tuple(show or ()),
        format=format,
    )
    job = await service.submit_search(uploads, search, collection)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return JobStatus.from_job(job, service)


@router.get("/jobs")
def jobs(service: ServiceDep) -> list[JobStatus]:
    """List jobs, newest first."""
    return [JobStatus.from_job(job, service) for job in service.jobs.list()]


@router.get("/jobs/{job_id}")
def job(service: ServiceDep, job_id: str) -> JobStatus:
    """Return a job's state and progress."""
    return JobStatus.from_job(service.jobs.get(job_id), service)


@router.delete("/jobs/{job_id}")
async def cancel(service: ServiceDep, job_id: str) -> JobStatus:
    """Cancel a job. Images that it has indexed stay."""
    return JobStatus.from_job(await service.cancel(job_id), service)


@router.get("/jobs/{job_id}/report", response_class=StreamingResponse)
def report(service: ServiceDep, job_id: str) -> StreamingResponse:
    """Stream a line of JSON for each file: name, status, reason and record id."""
    service.jobs.get(job_id)
    return StreamingResponse(service.jobs.report(job_id), media_type="application/jsonl")


@router.get("/jobs/{job_id}/result", response_class=FileResponse)
def result(service: ServiceDep, job_id: str) -> FileResponse:
    """Return the hits of a search: a row each, in the format that was asked for.

    The columns are query, rank, score, percentile, id, sha256, the fields of `show`, and error. An
    image without a hit has one row without a rank.
    """
    path = service.jobs.result(job_id)
    return FileResponse(path, media_type=_RESULT_TYPES[path.suffix], filename=path.name)
