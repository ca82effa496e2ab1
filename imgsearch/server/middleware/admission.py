"""How many requests are under way at once; who comes on top is told to come again."""

import contextlib

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from imgsearch.server.error_responses import RETRY_SECONDS, problem
from imgsearch.server.middleware.bodies import Body, BrokenOffError, drain, too_large
from imgsearch.server.service import Service

# Answered whatever the load is, so that nobody restarts a service because it is busy.
_ALWAYS = frozenset({"/", "/healthz", "/readyz", "/metrics"})
_RETRY = {"Retry-After": str(RETRY_SECONDS)}


class Admission:
    """Bounds what is worked on, and so the memory that it takes and the time until an answer.

    A request counts from when all of it has arrived until its answer begins. Before that its size
    and its rate are bounded, whatever it says its length is; after that the protocol cuts off
    readers that stall, and all that an answer holds is an open file and a chunk of it.
    """

    def __init__(
        self,
        app: ASGIApp,
        service: Service,
        *,
        takes_forms: bool = True,
        plain_body: int | None = None,
    ) -> None:
        """`plain_body` is how many bytes a body that is no form may have, if not the usual."""
        self._app = app
        self._service = service
        self._limits = service.settings.limits
        self._takes_forms = takes_forms
        self._plain_body = self._limits.plain_body if plain_body is None else plain_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        arrivals = self._service.arrivals
        arrivals.requests += 1
        try:
            await self._admit(_Visit(self._service, scope), scope, receive, send)
        finally:
            arrivals.requests -= 1

    async def _admit(self, visit: "_Visit", scope: Scope, receive: Receive, send: Send) -> None:
        boundary = _boundary(scope) if self._takes_forms else b""
        limits = self._limits
        most = limits.body if boundary else min(self._plain_body, limits.body)
        refusal = self._refusal(scope, most) or (None if _has_body(scope) else visit.enter())
        if refusal is not None and refusal.status_code == 413:
            await drain(receive)
        if refusal is None:
            arrivals = self._service.arrivals
            body = Body(receive, send, limits, most, arrivals, visit.enter, visit.leave, boundary)
            try:
                with contextlib.suppress(BrokenOffError):
                    await self._app(scope, body.receive, body.send)
            finally:
                body.release()
                visit.leave()
            refusal = body.refusal
            if refusal is not None and refusal.status_code in (413, 429):
                await body.drain()
        if refusal is not None:
            await refusal(scope, receive, send)

    def _refusal(self, scope: Scope, most: int) -> Response | None:
        length = Headers(scope=scope).get("content-length", "")
        if length.isdigit() and int(length) > most:
            return too_large(most, self._limits)
        is_vital = scope["path"] in _ALWAYS and not _has_body(scope)
        arrivals = self._service.arrivals
        if not is_vital and arrivals.are_too_many:
            return _overloaded(arrivals.requests)
        return None


class _Visit:
    """One request's place among those that are worked on."""

    def __init__(self, service: Service, scope: Scope) -> None:
        self._service = service
        self._counts = scope["path"] not in _ALWAYS
        self._inside = False
        self._left = False
        self._in_time = service.state == "ready"

    def enter(self) -> Response | None:
        """Take the place, once, or say why there is none.

        An answer that is streamed listens for its client, as if there were a body yet to come.
        """
        if not self._counts or self._inside or self._left:
            return None
        service = self._service
        # What had begun to arrive when the service was asked to stop is still answered.
        if service.state != "ready" and not (self._in_time and service.state == "draining"):
            detail = f"the service is {service.state}; try again in a moment"
            return problem(503, "not-ready", detail, _RETRY)
        if service.in_flight >= service.settings.limits.requests:
            return _overloaded(service.in_flight)
        service.in_flight += 1
        self._inside = True
        return None

    def leave(self) -> None:
        """Give the place up, for good."""
        self._left = True
        if self._inside:
            self._inside = False
            self._service.in_flight -= 1


def _overloaded(requests: int) -> Response:
    detail = f"{requests} requests are under way; try again in a moment"
    return problem(429, "overloaded", detail, _RETRY)


def _boundary(scope: Scope) -> bytes:
    """The boundary of a multipart form; nothing for any other body.

    Only POST takes forms here. Anything else is read as a whole, whatever type it claims to have.
    """
    if scope["method"] != "POST":
        return b""
    kind, options = parse_options_header(Headers(scope=scope).get("content-type"))
    return options.get(b"boundary", b"") if kind == b"multipart/form-data" else b""


def _has_body(scope: Scope) -> bool:
    if scope["method"] not in ("POST", "PUT", "PATCH"):  # nobody would read it
        return False
    headers = Headers(scope=scope)
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
