"""Limits on the size, the rate and the memory of request bodies, checked as they arrive."""

import asyncio
import contextlib
from typing import Protocol

from starlette.types import Message, Receive, Send

from imgsearch.server.budget import RequestLoad
from imgsearch.server.errors import ApiError, bad_request, overloaded, too_large, too_slow
from imgsearch.server.settings import Limits

_DRAIN_SECONDS = 2.0
# What the framework holds of each form part in memory: it spools larger files to the disk, and
# rejects larger fields.
_PART_BYTES = 1 << 20
# Bytes after the end of a form, which nobody reads.
_EPILOGUE_BYTES = 1024


def body_too_large(max_bytes: int, limits: Limits) -> ApiError:
    which = "a request (--max-body)" if max_bytes == limits.body else "a request that is no form"
    return too_large(f"{which} may have {max_bytes:,} bytes", close=True)


async def drain(receive: Receive) -> None:
    """Let the client of a rejected request finish sending, for a short time.

    If the connection closed earlier, the client would never read the response.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            while (await receive()).get("more_body", False):
                pass


class BodyRejectedError(Exception):
    """Stops the reader of a body; `LimitedBody.error` says why."""


class Slot(Protocol):
    """What admits a request once its body has arrived, until its response begins."""

    def enter(self) -> ApiError | None: ...
    def leave(self) -> None: ...


class LimitedBody:
    """Receives the body of one request, and sends its response.

    Once there is an `error`, it receives nothing more, and drops what the app sends.
    """

    def __init__(
        self,
        receive: Receive,
        send: Send,
        limits: Limits,
        max_bytes: int,
        load: RequestLoad,
        slot: Slot,
        boundary: bytes = b"",
    ) -> None:
        """`boundary` is that of a multipart form."""
        self._receive = receive
        self._send = send
        self._limits = limits
        self._max_bytes = max_bytes
        self._load = load
        self._slot = slot
        self._size = 0
        self._in_memory = 0
        self._delimiter = b"--" + boundary if boundary else b""
        self._parts = 0
        self._tail = b""
        self._waited = 0.0
        self._complete = False
        self._responding = False
        self.error: ApiError | None = None

    async def receive(self) -> Message:
        if self._complete:  # what follows is that the client disconnects
            return await self._receive()
        message = await self._next()
        self._complete = not message.get("more_body", False)
        self._count(message.get("body", b""))
        if self._complete and message["type"] == "http.request":
            end = self._delimiter and self._delimiter + b"--"
            if end not in self._tail:
                raise self._reject(
                    bad_request("the form is incomplete: it was cut off", close=True)
                )
            if error := self._slot.enter():
                raise self._reject(error)
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
            raise self._reject(
                too_slow(
                    f"the body stopped arriving for {limits.stall_seconds:g} s (--stall-timeout), "
                    f"or arrived at less than {limits.min_rate:,} bytes per second"
                )
            ) from None
        self._waited += loop.time() - began
        return message

    def _count(self, data: bytes) -> None:
        """Reject a body that is too large, or that does not fit into the memory of all bodies."""
        self._size += len(data)
        if self._size > self._max_bytes:
            raise self._reject(body_too_large(self._max_bytes, self._limits))
        in_memory = self._size
        if self._delimiter:
            overlap = len(self._delimiter) - 1
            self._parts += (self._tail[-overlap:] + data).count(self._delimiter)
            self._tail = (self._tail + data)[-len(self._delimiter) - 2 - _EPILOGUE_BYTES :]
            in_memory = min(in_memory, self._parts * _PART_BYTES)
        if not self._load.acquire(in_memory - self._in_memory):
            detail = "the bodies of other requests fill the memory; try again in a moment"
            raise self._reject(overloaded(detail, close=True))
        self._in_memory = in_memory

    async def drain(self) -> None:
        """Let the client finish sending, for a short time."""
        if not self._complete:
            await drain(self._receive)

    def release(self) -> None:
        """Release the body's memory."""
        self._load.release(self._in_memory)
        self._in_memory = 0

    def _reject(self, error: ApiError) -> BodyRejectedError:
        if not self._responding:
            self.error = error
        return BodyRejectedError()

    async def send(self, message: Message) -> None:
        if self.error is None:
            if not self._responding:
                self._responding = True
                self._slot.leave()
            await self._send(message)
