"""uvicorn's HTTP protocol with a timeout for every wait for the client."""

import asyncio
import socket
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from imgsearch.server.settings import Limits

# Bytes of responses that the kernel buffers per connection. By default Linux buffers up to 4 MiB
# for each client that does not read, and a slow client's progress shows only after much of that.
# A fast connection needs more only beyond some 3 MB/s at a round trip of 100 ms.
_SEND_BUFFER = 1 << 18


class TimeoutProtocol(H11Protocol):
    """Closes the connections of stalled clients.

    uvicorn limits only the time between two requests. This also limits the time for the head of a
    request, for the rest of a body whose response was sent before it had arrived, and for which a
    client reads nothing of its response (`limits` bounds a body that the app reads). uvicorn
    closes connections gracefully, which waits forever for a stalled client; this aborts them.

    Responses are sent without Nagle's algorithm: uvicorn writes head and body separately, and the
    body would wait until the client acknowledges the head, up to 40 ms on Linux. asyncio disables
    it only for sockets with an explicit protocol, which `socket.create_server` does not set.
    """

    def __init__(self, *args: Any, limits: Limits, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._read_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        accepted = transport.get_extra_info("socket")
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        # Data that the kernel does not accept pauses writing, which starts the timer.
        transport.set_write_buffer_limits(high=0)
        self._start_read_timer()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        responded = self.conn.our_state in (h11.DONE, h11.MUST_CLOSE)
        if self.conn.their_state is h11.IDLE or responded:
            self._start_read_timer()
        else:
            self._stop_read_timer()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._start_read_timer()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_write_timer()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_write_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_read_timer()
        self._stop_write_timer()
        super().connection_lost(exc)

    def _start_read_timer(self) -> None:
        if self._read_timer is None:
            self._read_timer = self.loop.call_later(self._limits.head_seconds, self.transport.abort)

    def _stop_read_timer(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def _start_write_timer(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        self._write_timer = self.loop.call_later(
            self._limits.stall_seconds, self._check_progress, unsent
        )

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _check_progress(self, unsent: int) -> None:
        """Abort if the client has not read enough since `unsent` bytes were left to send."""
        read = unsent - self.transport.get_write_buffer_size()
        if read < max(1, self._limits.min_rate * self._limits.stall_seconds):
            self.transport.abort()
        else:
            self._start_write_timer()
