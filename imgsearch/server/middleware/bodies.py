"""How much a request may send, and how long that may take; checked while it arrives."""

import asyncio
import contextlib
from collections.abc import Callable

from starlette.responses import Response
from starlette.types import Message, Receive, Send

from imgsearch.server.error_responses import RETRY_SECONDS, problem
from imgsearch.server.middleware.arrivals import Arrivals
from imgsearch.server.settings import Limits

# Whoever was refused may still be sending: the connection is of no more use.
_CLOSE = {"Connection": "close"}
_DRAIN_SECONDS = 2.0
# What the framework holds in memory of each part of a form at most: files beyond that are on the
# disk, other fields are refused.
_PART_BYTES = 1 << 20
# Bytes that may stand behind the end of a form, which nobody reads.
_EPILOGUE = 1024


def too_large(most: int, limits: Limits) -> Response:
    """The answer to a body of more than `most` bytes."""
    which = "a request (--max-body)" if most == limits.body else "a request that is no form"
    return problem(413, "too-large", f"{which} may have {most:,} bytes", _CLOSE)


def _no_memory() -> Response:
    detail = "too many bodies are held in memory; try again in a moment"
    return problem(429, "overloaded", detail, {"Retry-After": str(RETRY_SECONDS), **_CLOSE})


def _too_slow(limits: Limits) -> Response:
    detail = (
        f"the body stopped arriving for {limits.stall_seconds:g} s (--stall-timeout), or came at "
        f"less than {limits.min_rate:,} bytes per second"
    )
    return problem(408, "too-slow", detail, _CLOSE)


def _cut_off() -> Response:
    return problem(400, "bad-request", "the form has no end: it was cut off on its way", _CLOSE)


async def drain(receive: Receive) -> None:
    """Let a client that was refused finish sending, for a while.

    If its connection were closed under its hands, it would never read why.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            while (await receive()).get("more_body", False):
                pass


class BrokenOffError(Exception):
    """Ends whoever reads the body; the answer to the client is made outside."""


class Body:
    """One request on its way in, and its answer on its way out.

    `arrived` is called when the whole body is here, and may refuse it; `answered` is called when
    the answer begins. Once there is a `refusal`, nothing more is read, and nothing that the app
    answers is sent.
    """

    def __init__(
        self,
        receive: Receive,
        send: Send,
        limits: Limits,
        most: int,
        arrivals: Arrivals,
        arrived: Callable[[], Response | None],
        answered: Callable[[], None],
        boundary: bytes = b"",
    ) -> None:
        """The body may have `most` bytes; `boundary` is that of a multipart form."""
        self._receive = receive
        self._send = send
        self._limits = limits
        self._arrived = arrived
        self._answered = answered
        self._most = most
        self._arrivals = arrivals
        self._size = 0
        self._held = 0
        self._delimiter = b"--" + boundary if boundary else b""
        self._parts = 0
        self._tail = b""
        self._waited = 0.0
        self._complete = False
        self._answering = False
        self.refusal: Response | None = None

    async def receive(self) -> Message:
        if self._complete:  # what comes now is that the client goes away
            return await self._receive()
        message = await self._next()
        self._complete = not message.get("more_body", False)
        self._count(message.get("body", b""))
        if self._complete:
            end = self._delimiter and self._delimiter + b"--"
            if message["type"] == "http.request" and end not in self._tail:
                raise self._broken_off(_cut_off())
            if message["type"] == "http.request" and (refusal := self._arrived()):
                raise self._broken_off(refusal)
        return message

    async def _next(self) -> Message:
        """The next part of the body.

        Only the wait for the client counts, not what is done with its data in between.
        """
        limits = self._limits
        loop = asyncio.get_running_loop()
        began = loop.time()
        # As much time as the slowest connection needs for what has arrived, and one pause.
        budget = limits.stall_seconds + self._size / limits.min_rate - self._waited
        try:
            async with asyncio.timeout(min(limits.stall_seconds, budget)):
                message = await self._receive()
        except TimeoutError:
            raise self._broken_off(_too_slow(limits)) from None
        self._waited += loop.time() - began
        return message

    def _count(self, data: bytes) -> None:
        """Refuse what is too much of one body, or too much for the memory."""
        self._size += len(data)
        if self._size > self._most:
            raise self._broken_off(too_large(self._most, self._limits))
        held = self._size
        if self._delimiter:
            before = len(self._delimiter) - 1
            self._parts += (self._tail[-before:] + data).count(self._delimiter)
            self._tail = (self._tail + data)[-len(self._delimiter) - 2 - _EPILOGUE :]
            held = min(held, self._parts * _PART_BYTES)
        if not self._arrivals.take(held - self._held):
            raise self._broken_off(_no_memory())
        self._held = held

    async def drain(self) -> None:
        """Let the client finish sending what is refused, for a while."""
        if not self._complete:
            await drain(self._receive)

    def release(self) -> None:
        """Nothing of the body is held any more."""
        self._arrivals.give_back(self._held)
        self._held = 0

    def _broken_off(self, refusal: Response) -> BrokenOffError:
        if not self._answering:
            self.refusal = refusal
        return BrokenOffError()

    async def send(self, message: Message) -> None:
        if self.refusal is None:
            if not self._answering:
                self._answering = True
                self._answered()
            await self._send(message)
