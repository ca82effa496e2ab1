"""How much a request may send, and how long that may take; checked while it arrives."""

import asyncio
import contextlib
from collections.abc import Callable

from starlette.responses import Response
from starlette.types import Message, Receive, Send

from imgsearch.server.problems import problem
from imgsearch.server.settings import Limits

# Whoever was refused may still be sending: the connection is of no more use.
_CLOSE = {"Connection": "close"}
_DRAIN_SECONDS = 2.0
# Bytes that may stand behind the end of a form, which nobody reads.
_EPILOGUE = 1024


def too_large(limits: Limits) -> Response:
    detail = f"a request may have {limits.body:,} bytes (--max-body)"
    return problem(413, "too-large", detail, _CLOSE)


def _too_slow(limits: Limits) -> Response:
    detail = (
        f"a request must arrive within {limits.body_seconds:g} s, and without a pause of "
        f"{limits.pause_seconds:g} s"
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

    `arrived` is called when all of the body is in, and may refuse it. Once there is a `refusal`,
    nothing more is read, and nothing that the app answers is sent.
    """

    def __init__(
        self,
        receive: Receive,
        send: Send,
        limits: Limits,
        arrived: Callable[[], Response | None],
        end: bytes = b"",
    ) -> None:
        """`end` must be among the last of the body: a form without it has been cut off."""
        self._receive = receive
        self._send = send
        self._limits = limits
        self._arrived = arrived
        self._left = limits.body
        self._end = end
        self._tail = b""
        self._until: float | None = None
        self._complete = False
        self._answering = False
        self.refusal: Response | None = None

    async def receive(self) -> Message:
        if self._complete:  # what comes now is that the client goes away
            return await self._receive()
        now = asyncio.get_running_loop().time()
        self._until = self._until or now + self._limits.body_seconds
        try:
            async with asyncio.timeout_at(min(self._until, now + self._limits.pause_seconds)):
                message = await self._receive()
        except TimeoutError:
            raise self._broken_off(_too_slow(self._limits)) from None
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise self._broken_off(too_large(self._limits))
        if self._end:
            self._tail = (self._tail + message.get("body", b""))[-len(self._end) - _EPILOGUE :]
        if not message.get("more_body", False):
            self._complete = True
            if message["type"] == "http.request" and self._end not in self._tail:
                raise self._broken_off(_cut_off())
            if message["type"] == "http.request" and (refusal := self._arrived()):
                raise self._broken_off(refusal)
        return message

    def _broken_off(self, refusal: Response) -> BrokenOffError:
        if not self._answering:
            self.refusal = refusal
        return BrokenOffError()

    async def send(self, message: Message) -> None:
        """Raises TimeoutError for a client that does not read its answer."""
        if self.refusal is None:
            self._answering = True
            async with asyncio.timeout(self._limits.body_seconds):
                await self._send(message)
