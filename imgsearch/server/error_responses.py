"""What goes wrong, as RFC 9457 `application/problem+json`, in the words of the command line."""

import http
import logging
import os
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from imgsearch.errors import (
    CollectionMismatchError,
    CollectionNotFoundError,
    EncoderError,
    ImageError,
    ImgsearchError,
    MetadataError,
    RecordNotFoundError,
    SourceError,
    StoreBusyError,
    StoreError,
    StoreFullError,
    UsageError,
)
from imgsearch.server.errors import FULL, RefusedError, disk_full

log = logging.getLogger("imgsearch.server")

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 2
# Maximum number of errors reported for one request.
_MOST_ERRORS = 20

# The first class that fits decides.
_BY_ERROR: tuple[tuple[type[ImgsearchError], int, str], ...] = (
    (UsageError, 400, "wrong-usage"),
    (ImageError, 422, "unusable-picture"),
    (MetadataError, 422, "unusable-metadata"),
    (SourceError, 422, "unusable-source"),
    (CollectionNotFoundError, 404, "collection-not-found"),
    (CollectionMismatchError, 409, "collection-mismatch"),
    (RecordNotFoundError, 404, "record-not-found"),
    (StoreBusyError, 503, "store-busy"),
    (StoreFullError, 507, "disk-full"),
    (StoreError, 503, "store-unavailable"),
    (EncoderError, 503, "model-unavailable"),
    (ImgsearchError, 500, "failed"),
)


def kind_of(error: ImgsearchError) -> tuple[int, str]:
    """The HTTP status of an error and the problem's name."""
    if isinstance(error, RefusedError):
        return error.status, error.name
    return next((status, name) for kind, status, name in _BY_ERROR if isinstance(error, kind))


def response_to(error: ImgsearchError, detail: str | None = None) -> JSONResponse:
    """The answer to an error; `detail` in place of its own words."""
    status, name = kind_of(error)
    retry = error.retry_after if isinstance(error, RefusedError) else None
    if retry is None and status in (429, 503):
        retry = RETRY_SECONDS
    headers = {} if retry is None else {"Retry-After": str(retry)}
    return problem(status, name, str(error) if detail is None else detail, headers)


def problem(
    status: int,
    name: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> JSONResponse:
    body = {
        "type": f"urn:imgsearch:problem:{name}",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **more,
    }
    return JSONResponse(body, status, dict(headers or {}), MEDIA_TYPE)


def handle_problems(app: FastAPI) -> None:
    """Let every error of the app's end as a problem."""

    @app.exception_handler(ImgsearchError)
    async def known(request: Request, error: ImgsearchError) -> JSONResponse:
        return response_to(error, request.app.state.service.told(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        errors = [
            {"where": ".".join(map(str, each["loc"])), "message": each["msg"]}
            for each in error.errors()[:_MOST_ERRORS]
        ]
        detail = "; ".join(f"{each['where']}: {each['message']}" for each in errors)
        return problem(422, "invalid-request", detail, errors=errors)

    @app.exception_handler(HTTPException)
    async def by_status(_: Request, error: HTTPException) -> JSONResponse:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in FULL:
            return response_to(disk_full())  # while the framework laid the body onto the disk
        name = http.HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
        return problem(error.status_code, name, str(error.detail), error.headers)


def unexpected(error: BaseException) -> JSONResponse:
    """An error that should not be: told to the operator, not to the client."""
    log.error(
        "internal error, please report it: %s: %s (IMGSEARCH_DEBUG=1 shows where)",
        type(error).__name__,
        error,
        exc_info=error if os.environ.get("IMGSEARCH_DEBUG") else None,
    )
    return problem(500, "internal-error", "internal error; the server's log tells more")
