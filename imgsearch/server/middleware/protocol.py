"""HTTP as uvicorn speaks it, with a time limit for every wait for the client."""

import asyncio
import socket
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from imgsearch.server.settings import Limits

# Bytes of answers that the kernel holds for one connection. By default Linux takes up to 4 MiB for
# each client that does not read, and a slow client's progress shows only once much of that is sent.
# More would be needed only beyond some 3 MB/s at a round trip of 100 ms.
_SEND_BUFFER = 1 << 18


class PromptProtocol(H11Protocol):
    """Closes connections whose client stalls, whatever it is that it does not do.

    uvicorn itself limits the time between two requests only. Here are limited, too: the time for
    the head of a request; the time for the rest of a body that was answered before it had
    arrived; and how long a client may read nothing of an answer. (`Body` limits a body that the
    app reads.) uvicorn also closes connections gracefully, which waits for a stalled client for
    ever: here they are aborted.

    Answers are sent without Nagle's algorithm: uvicorn writes head and body separately, and the
    body would wait until the client has acknowledged the head, up to 40 ms on Linux. asyncio
    disables it only for sockets with an explicit protocol, which `socket.create_server` does not
    set.
    """

    def __init__(self, *args: Any, limits: Limits, **more: Any) -> None:
        super().__init__(*args, **more)
        self._limits = limits
        self._reading: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        accepted = transport.get_extra_info("socket")
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        # Any data that the kernel does not take pauses writing, so that it is watched.
        transport.set_write_buffer_limits(high=0)
        self._limit_reading()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        answered = self.conn.our_state in (h11.DONE, h11.MUST_CLOSE)
        if self.conn.their_state is h11.IDLE or answered:
            self._limit_reading()
        else:
            self._unlimit_reading()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._limit_reading()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._limit_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unlimit_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unlimit_reading()
        self._unlimit_writing()
        super().connection_lost(exc)

    def _limit_reading(self) -> None:
        if self._reading is None:
            self._reading = self.loop.call_later(self._limits.head_seconds, self.transport.abort)

    def _unlimit_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _limit_writing(self) -> None:
        before = self.transport.get_write_buffer_size()
        self._writing = self.loop.call_later(
            self._limits.stall_seconds, self._check_progress, before
        )

    def _unlimit_writing(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    def _check_progress(self, before: int) -> None:
        """Abort if the client has not read enough since there were `before` bytes to send."""
        read = before - self.transport.get_write_buffer_size()
        if read < max(1, self._limits.min_rate * self._limits.stall_seconds):
            self.transport.abort()
        else:
            self._limit_writing()
