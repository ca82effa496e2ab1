"""How much a request may send, and how long that may take; checked while it arrives."""

import asyncio
import contextlib

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imgsearch.server.problems import problem
from imgsearch.server.settings import Limits


class Bodies:
    """Ends requests whose body is too large or too slow, whatever they said its length was."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "")
        if length.isdigit() and int(length) > self._limits.body:
            await self._too_large()(scope, receive, send)
            return
        body = _Body(receive, send, self._limits)
        with contextlib.suppress(_BrokenOffError):
            await self._app(scope, body.receive, body.send)
        if body.trouble is not None:
            answer = self._too_large() if body.trouble == "large" else self._too_slow()
            await answer(scope, receive, send)

    def _too_large(self) -> Response:
        limit = f"{self._limits.body:,} bytes"
        return problem(
            413, "too-large", f"a request may have {limit} (--max-body)", {"Connection": "close"}
        )

    def _too_slow(self) -> Response:
        seconds = f"{self._limits.body_seconds:g} s"
        return problem(
            408, "too-slow", f"a request must arrive within {seconds}", {"Connection": "close"}
        )


class _BrokenOffError(Exception):
    """Ends whoever reads the body; the answer to it is made outside."""


class _Body:
    """One request's body on its way. Once `trouble` is set, nothing more is read or sent."""

    def __init__(self, receive: Receive, send: Send, limits: Limits) -> None:
        self._receive = receive
        self._send = send
        self._left = limits.body
        self._seconds = limits.body_seconds
        self._until: float | None = None
        self._arrived = False
        self._answering = False
        self.trouble: str | None = None

    async def receive(self) -> Message:
        if self._arrived:  # what comes now is that the client goes away
            return await self._receive()
        loop = asyncio.get_running_loop()
        self._until = self._until or loop.time() + self._seconds
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            raise self._broken_off("slow") from None
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise self._broken_off("large")
        self._arrived = not message.get("more_body", False)
        return message

    def _broken_off(self, trouble: str) -> _BrokenOffError:
        if not self._answering:
            self.trouble = trouble
        return _BrokenOffError()

    async def send(self, message: Message) -> None:
        """Nothing of what the app makes of a body that was broken off."""
        if self.trouble is None:
            self._answering = True
            await self._send(message)
