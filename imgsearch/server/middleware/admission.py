"""Limits on the number of requests; a rejected client may retry later."""

import contextlib

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from imgsearch.server.errors import ApiError, error_response, not_ready, overloaded
from imgsearch.server.middleware.bodies import BodyRejectedError, LimitedBody, body_too_large, drain
from imgsearch.server.service import Service

# Answered under any load, so that nobody restarts a service because it is busy.
_ALWAYS_ADMITTED = frozenset({"/", "/healthz", "/readyz", "/metrics"})
# The page's only endpoints for large bodies: a form, and an image as it is.
_PAGE = "/ui/"
_PAGE_UPLOAD = "/ui/gradio_api/upload"
_PAGE_IMAGE = "/ui/pictures"


class AdmissionMiddleware:
    """Bounds the requests being processed, and so their memory and the time to a response.

    A request is processed from when it has arrived completely until its response begins. Before
    that, its size and rate are bounded, whatever length it announces. After that, the protocol
    disconnects clients that stall, and a response holds only an open file and a chunk of it.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service
        self._limits = service.settings.limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        load = self._service.load
        load.requests += 1
        try:
            await self._admit(_Slot(self._service, scope), scope, receive, send)
        finally:
            load.requests -= 1

    async def _admit(self, slot: "_Slot", scope: Scope, receive: Receive, send: Send) -> None:
        boundary = _boundary(scope)
        max_bytes = self._max_bytes(scope, is_form=bool(boundary))
        error = self._check(scope, max_bytes) or (None if _has_body(scope) else slot.enter())
        if error is None:
            body = LimitedBody(
                receive, send, self._limits, max_bytes, self._service.load, slot, boundary
            )
            try:
                with contextlib.suppress(BodyRejectedError):
                    await self._app(scope, body.receive, body.send)
            finally:
                body.release()
                slot.leave()
            error = body.error
            if error is not None and error.status in (413, 429):
                await body.drain()
        elif error.status == 413:
            await drain(receive)
        if error is not None:
            await error_response(error)(scope, receive, send)

    def _max_bytes(self, scope: Scope, *, is_form: bool) -> int:
        if is_form or scope["path"] == _PAGE_IMAGE:
            return self._limits.body
        return min(self._limits.plain_body, self._limits.body)

    def _check(self, scope: Scope, max_bytes: int) -> ApiError | None:
        length = Headers(scope=scope).get("content-length", "")
        if length.isdigit() and int(length) > max_bytes:
            return body_too_large(max_bytes, self._limits)
        is_vital = scope["path"] in _ALWAYS_ADMITTED and not _has_body(scope)
        if not is_vital and self._service.load.is_full:
            return _too_many_requests(self._service.load.requests)
        return None


class _Slot:
    """The place of one request among those being processed."""

    def __init__(self, service: Service, scope: Scope) -> None:
        self._service = service
        self._counts = scope["path"] not in _ALWAYS_ADMITTED
        self._entered = False
        self._left = False
        self._began_in_time = service.state == "ready"

    def enter(self) -> ApiError | None:
        """Take the slot if there is one; otherwise return the error.

        Further calls do nothing: a streamed response listens for its client to disconnect, as if
        more of the body were to come.
        """
        if not self._counts or self._entered or self._left:
            return None
        service = self._service
        # A request that began to arrive before the service was asked to stop is still answered.
        if service.state != "ready" and not (self._began_in_time and service.state == "draining"):
            return not_ready(f"the service is {service.state}; try again in a moment")
        if service.in_flight >= service.settings.limits.requests:
            return _too_many_requests(service.in_flight)
        service.in_flight += 1
        self._entered = True
        return None

    def leave(self) -> None:
        """Give up the slot for good."""
        self._left = True
        if self._entered:
            self._entered = False
            self._service.in_flight -= 1


def _too_many_requests(number: int) -> ApiError:
    return overloaded(f"{number} requests are in progress; try again in a moment")


def _boundary(scope: Scope) -> bytes:
    """Return the boundary of a multipart form; empty for any other body.

    Only POST endpoints parse forms, and of the page's only its upload. Any other body is read into
    memory, whatever type it claims to have.
    """
    path = scope["path"]
    if scope["method"] != "POST" or (path.startswith(_PAGE) and path != _PAGE_UPLOAD):
        return b""
    kind, options = parse_options_header(Headers(scope=scope).get("content-type"))
    return options.get(b"boundary", b"") if kind == b"multipart/form-data" else b""


def _has_body(scope: Scope) -> bool:
    if scope["method"] not in ("POST", "PUT", "PATCH"):  # no endpoint reads it
        return False
    headers = Headers(scope=scope)
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
