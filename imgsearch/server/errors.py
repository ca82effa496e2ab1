"""Error responses of the service: RFC 9457 problem documents."""

import errno
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
    MissingEncoderError,
    MissingLibraryError,
    RecordNotFoundError,
    SourceError,
    StoreBusyError,
    StoreError,
    StoreFullError,
    UsageError,
)

log = logging.getLogger("imgsearch.server")

MEDIA_TYPE = "application/problem+json"
DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT)
# The `Retry-After` of a 429 or 503 that names no other, in seconds.
_RETRY_SECONDS = 2
# Validation errors reported for one request.
_MAX_VALIDATION_ERRORS = 20

# Status and problem name of the core's errors; the first class that matches decides.
_CORE_ERRORS: tuple[tuple[type[ImgsearchError], int, str], ...] = (
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
    (MissingEncoderError, 409, "no-encoder"),
    (EncoderError, 503, "model-unavailable"),
    (MissingLibraryError, 501, "missing-library"),
    (ImgsearchError, 500, "failed"),
)


class ApiError(ImgsearchError):
    """An error of the service itself, with its HTTP status and the problem's name."""

    def __init__(
        self,
        status: int,
        name: str,
        detail: str,
        headers: Mapping[str, str] | None = None,
        *,
        retry_after: int | None = None,
        close: bool = False,
    ) -> None:
        """`retry_after` is in seconds.

        `close` closes the connection: the client may still be sending the rejected body.
        """
        super().__init__(detail)
        self.status = status
        self.name = name
        self.headers = dict(headers or {})
        if retry_after is None and status in (429, 503):
            retry_after = _RETRY_SECONDS
        if retry_after is not None:
            self.headers["Retry-After"] = str(retry_after)
        if close:
            self.headers["Connection"] = "close"


def bad_request(detail: str, *, close: bool = False) -> ApiError:
    return ApiError(400, "bad-request", detail, close=close)


def not_found(name: str, detail: str) -> ApiError:
    return ApiError(404, name, detail)


def conflict(name: str, detail: str) -> ApiError:
    return ApiError(409, name, detail)


def too_large(detail: str, *, close: bool = False) -> ApiError:
    return ApiError(413, "too-large", detail, close=close)


def unusable_archive(reason: str) -> ApiError:
    return ApiError(422, "unusable-archive", f"the zip is rejected: {reason}")


def overloaded(detail: str, *, retry_after: int = _RETRY_SECONDS, close: bool = False) -> ApiError:
    """The 429 of every limit on load."""
    return ApiError(429, "overloaded", detail, retry_after=retry_after, close=close)


def not_ready(detail: str, *, retry_after: int = _RETRY_SECONDS) -> ApiError:
    return ApiError(503, "not-ready", detail, retry_after=retry_after)


def disk_full() -> ApiError:
    detail = "the disk is full; existing data is unchanged: free some space, then try again"
    return ApiError(507, "disk-full", detail)


def classify(error: ImgsearchError) -> ApiError:
    """Return the API error for an error of the core; an API error is returned as it is."""
    if isinstance(error, ApiError):
        return error
    status, name = next(
        (status, name) for kind, status, name in _CORE_ERRORS if isinstance(error, kind)
    )
    return ApiError(status, name, str(error))


def error_response(error: ImgsearchError, detail: str | None = None) -> JSONResponse:
    """Return the response to an error; `detail` replaces the error's own text."""
    found = classify(error)
    return problem(
        found.status, found.name, str(error) if detail is None else detail, found.headers
    )


def problem(
    status: int,
    name: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> JSONResponse:
    """Return a problem document. `more` are further members."""
    body = {
        "type": f"urn:imgsearch:problem:{name}",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **more,
    }
    return JSONResponse(body, status, dict(headers or {}), MEDIA_TYPE)


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error of an app's endpoints with a problem document."""

    @app.exception_handler(ImgsearchError)
    async def handle_known(request: Request, error: ImgsearchError) -> JSONResponse:
        return error_response(error, request.app.state.service.redact(error))

    @app.exception_handler(RequestValidationError)
    async def handle_invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        errors = [
            {"where": ".".join(map(str, each["loc"])), "message": each["msg"]}
            for each in error.errors()[:_MAX_VALIDATION_ERRORS]
        ]
        detail = "; ".join(f"{each['where']}: {each['message']}" for each in errors)
        return problem(422, "invalid-request", detail, errors=errors)

    @app.exception_handler(HTTPException)
    async def handle_http(_: Request, error: HTTPException) -> JSONResponse:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in DISK_FULL_ERRNOS:
            return error_response(disk_full())  # while the framework spooled the body
        name = http.HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
        return problem(error.status_code, name, str(error.detail), error.headers)


def internal_error(error: BaseException) -> JSONResponse:
    """Log an unexpected error, and return a 500 that does not describe it."""
    log.error(
        "internal error, please report it: %s: %s (IMGSEARCH_DEBUG=1 shows where)",
        type(error).__name__,
        error,
        exc_info=error if os.environ.get("IMGSEARCH_DEBUG") else None,
    )
    return problem(500, "internal-error", "internal error; see the server's log")
