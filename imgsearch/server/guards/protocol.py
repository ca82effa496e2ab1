"""HTTP as uvicorn speaks it, but at once, and with an end: a head must come within some time."""

import asyncio
import socket

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

# From a connection's first moment, or a head's first byte, until the head is complete.
HEAD_SECONDS = 10.0


class PromptProtocol(H11Protocol):
    """Closes connections whose client drips, or never sends, the head of a request.

    uvicorn itself bounds the time between two requests only. And it writes an answer's head and
    body apart: the body would wait for the client to acknowledge the head, which takes 40 ms on
    Linux. asyncio forbids that wait only for sockets whose protocol is named, as that of
    `socket.create_server` is not.
    """

    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._wait()
        else:
            self._unwait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwait()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._waiting is None:
            self._waiting = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _unwait(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
