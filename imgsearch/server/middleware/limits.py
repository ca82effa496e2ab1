"""Limits on requests: their number, and the size, rate and memory of their bodies."""

import asyncio
import contextlib

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imgsearch.server.errors import (
    ApiError,
    bad_request,
    error_response,
    not_ready,
    overloaded,
    too_large,
)
from imgsearch.server.service import Service

# Admitted under any load, so that no orchestrator restarts a busy service.
_ALWAYS_ADMITTED = frozenset({"/", "/healthz", "/readyz", "/metrics"})
# The page's only endpoint for large bodies, a form.
_PAGE = "/ui/"
_PAGE_UPLOAD = "/ui/gradio_api/upload"

_DRAIN_SECONDS = 2.0
# Memory that the framework needs for each part of a form: it spools larger files to the disk, and
# rejects larger fields.
_PART_BYTES = 1 << 20
# Bytes after the end of a form, which are ignored.
_EPILOGUE_BYTES = 1024


class LimitMiddleware:
    """Bounds the requests being processed, and so their memory and the time to a response.

    A request is processed from when it has arrived completely until its response begins. Before
    that, its size and rate are bounded, whatever length it announces. After that, the protocol
    disconnects clients that stall, and a response holds only an open file and a chunk of it.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        load = self._service.load
        load.requests += 1
        try:
            request = _Request(self._service, scope, receive, send)
            try:
                request.admit()
                await self._app(scope, request.receive, request.send)
            except _RejectedError:
                pass  # the app may have caught it
            finally:
                request.release()
            if request.error:
                await request.drain()
                await error_response(request.error)(scope, receive, send)
        finally:
            load.requests -= 1


class _RejectedError(Exception):
    """Stops a request whose `error` says why."""


class _Request:
    """Receives the body of one request, and sends its response.

    Once there is an `error`, it receives nothing more, and drops what the app sends.
    """

    def __init__(self, service: Service, scope: Scope, receive: Receive, send: Send) -> None:
        self._service = service
        self._limits = service.settings.limits
        self._receive = receive
        self._send = send
        headers = Headers(scope=scope)
        self._length = headers.get("content-length", "0")
        self._has_body = (  # that an endpoint reads
            scope["method"] in ("POST", "PUT", "PATCH")
            and (self._length != "0" or "transfer-encoding" in headers)
        )
        self._is_limited = scope["path"] not in _ALWAYS_ADMITTED
        boundary = _boundary(scope, headers)
        self._delimiter = b"--" + boundary if boundary else b""
        self._max_bytes = self._limits.body
        if not boundary:
            self._max_bytes = min(self._limits.plain_body, self._limits.body)
        self._began_in_time = service.state == "ready"
        self._in_flight = False
        self._size = 0
        self._in_memory = 0
        self._parts = 0
        self._tail = b""
        self._waited = 0.0
        self._complete = False
        self._responding = False
        self.error: ApiError | None = None

    def admit(self) -> None:
        """Check what is known before the body arrives."""
        if self._length.isdigit() and int(self._length) > self._max_bytes:
            raise self._reject(self._too_large())
        load = self._service.load
        if load.is_full and (self._is_limited or self._has_body):
            raise self._reject(_too_many_requests(load.requests))
        if not self._has_body:
            self._enter()

    def _enter(self) -> None:
        """Count the request, which has arrived, among those being processed.

        Further calls do nothing: a streamed response listens for its client to disconnect, as if
        more of the body were to come.
        """
        service = self._service
        if not self._is_limited or self._in_flight or self._responding:
            return
        # A request that began to arrive before the service was asked to stop is still answered.
        if service.state != "ready" and not (self._began_in_time and service.state == "draining"):
            raise self._reject(not_ready(f"the service is {service.state}; try again in a moment"))
        if service.in_flight >= self._limits.requests:
            raise self._reject(_too_many_requests(service.in_flight))
        service.in_flight += 1
        self._in_flight = True

    def _leave(self) -> None:
        self._service.in_flight -= self._in_flight
        self._in_flight = False

    async def receive(self) -> Message:
        if self._complete:  # the next message is that the client disconnects
            return await self._receive()
        message = await self._next()
        self._complete = not message.get("more_body", False)
        self._count(message.get("body", b""))
        if self._complete and message["type"] == "http.request":
            if self._delimiter and self._delimiter + b"--" not in self._tail:
                raise self._reject(
                    bad_request("the form is incomplete: it was cut off", close=True)
                )
            self._enter()
        return message

    async def _next(self) -> Message:
        """Return the next part of the body; only the wait for the client counts as its time."""
        limits = self._limits
        loop = asyncio.get_running_loop()
        began = loop.time()
        # The time that the slowest accepted client needs for what has arrived, and one pause.
        left = limits.stall_seconds + self._size / limits.min_rate - self._waited
        try:
            async with asyncio.timeout(min(limits.stall_seconds, left)):
                message = await self._receive()
        except TimeoutError:
            detail = (
                f"the body stopped arriving for {limits.stall_seconds:g} s (--stall-timeout), or "
                f"arrived at less than {limits.min_rate:,} bytes per second"
            )
            raise self._reject(ApiError(408, "too-slow", detail, close=True)) from None
        self._waited += loop.time() - began
        return message

    def _count(self, data: bytes) -> None:
        """Reject a body that is too large, or that does not fit into the memory of all bodies."""
        self._size += len(data)
        if self._size > self._max_bytes:
            raise self._reject(self._too_large())
        in_memory = self._size
        if self._delimiter:
            overlap = len(self._delimiter) - 1
            self._parts += (self._tail[-overlap:] + data).count(self._delimiter)
            self._tail = (self._tail + data)[-len(self._delimiter) - 2 - _EPILOGUE_BYTES :]
            in_memory = min(in_memory, self._parts * _PART_BYTES)
        if not self._service.load.acquire(in_memory - self._in_memory):
            detail = "the bodies of other requests fill the memory; try again in a moment"
            raise self._reject(overloaded(detail, close=True))
        self._in_memory = in_memory

    async def send(self, message: Message) -> None:
        if self.error is None:
            self._responding = True
            self._leave()
            await self._send(message)

    def release(self) -> None:
        """Release the body's memory and the place among the requests being processed."""
        self._leave()
        self._service.load.release(self._in_memory)
        self._in_memory = 0

    async def drain(self) -> None:
        """Let the client finish sending a body that is too large, for a short time.

        If the connection closed earlier, the client would never read the response.
        """
        assert self.error
        is_large = self.error.status == 413 or (self.error.status == 429 and self._size)
        if self._complete or not is_large:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                while (await self._receive()).get("more_body", False):
                    pass

    def _too_large(self) -> ApiError:
        is_largest = self._max_bytes == self._limits.body
        which = "a request (--max-body)" if is_largest else "a request that is no form"
        return too_large(f"{which} may have {self._max_bytes:,} bytes", close=True)

    def _reject(self, error: ApiError) -> _RejectedError:
        if not self._responding:
            self.error = error
        return _RejectedError()


def _too_many_requests(number: int) -> ApiError:
    return overloaded(f"{number} requests are in progress; try again in a moment")


def _boundary(scope: Scope, headers: Headers) -> bytes:
    """Return the boundary of a multipart form; empty for any other body.

    Only POST endpoints parse forms, and of the page's only its upload. Any other body is read into
    memory, whatever type it claims to have.
    """
    path = scope["path"]
    if scope["method"] != "POST" or (path.startswith(_PAGE) and path != _PAGE_UPLOAD):
        return b""
    kind, options = parse_options_header(headers.get("content-type"))
    return options.get(b"boundary", b"") if kind == b"multipart/form-data" else b""
