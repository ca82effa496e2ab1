"""Run the service: sockets first, then the API, then the page, until a signal ends it."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial

import uvicorn
from starlette.types import ASGIApp

from imgsearch.errors import ImgsearchError, first_line
from imgsearch.events import Listener, Note, ignore
from imgsearch.server.app import create_app
from imgsearch.server.middleware.protocol import PromptProtocol
from imgsearch.server.service import Service
from imgsearch.server.settings import Limits

log = logging.getLogger("imgsearch.server")

# For requests under way, after the signal.
DRAIN_SECONDS = 30
# For which an idle connection is kept.
_KEEP_ALIVE_SECONDS = 15
# Whoever comes on top gets 503 without a look at what it asks.
_CONNECTIONS = 1000


class _Server(uvicorn.Server):
    """One of several of this process, which handles the signals itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server(app: ASGIApp, limits: Limits) -> _Server:
    settings = uvicorn.Config(
        app,
        http=partial(PromptProtocol, limits=limits),  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        limit_concurrency=_CONNECTIONS,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    return _Server(settings)


class Running:
    """The API and the page in one event loop, until a signal or `stop` ends both."""

    def __init__(self, service: Service, listener: Listener = ignore) -> None:
        self._service = service
        self._listener = listener
        self._servers: list[_Server] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self.interrupted = False
        """Whether Ctrl-C has ended it."""

    def serve(self, api: socket.socket, page: socket.socket | None = None) -> None:
        """Serve on these sockets, which are closed at the end, until a signal or `stop`.

        Requests under way are finished then. Raises what `Service.start` raises.
        """
        with asyncio.Runner() as runner, _signals(self._on_signal):
            self._loop = runner.get_loop()
            try:
                runner.run(self._run(api, page))
            except* ImgsearchError as failed:
                raise failed.exceptions[0] from None

    def stop(self) -> None:
        """End it, from any thread: the first call lets requests finish, the second does not."""
        if self._loop:
            with contextlib.suppress(RuntimeError):  # it has ended by itself: its loop is closed
                self._loop.call_soon_threadsafe(self._stop_now)

    def _on_signal(self, number: int) -> None:
        self.interrupted |= number == signal.SIGINT
        self.stop()

    def _stop_now(self) -> None:
        if self._stop.is_set():
            for server in self._servers:
                server.force_exit = True
        else:
            self._listener(Note("finishing what is in flight; once more stops now"))
            self._stop.set()

    async def _run(self, api: socket.socket, page: socket.socket | None) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._serve(create_app(self._service), api))
                starting = tasks.create_task(self._start(tasks, api, page))
                await self._stop.wait()
                starting.cancel()
                self._service.drain()
                for server in self._servers:
                    server.should_exit = True
        finally:
            await self._service.close()

    async def _start(
        self, tasks: asyncio.TaskGroup, api: socket.socket, page: socket.socket | None
    ) -> None:
        """The page comes last, so that what it loads does not hold up the API."""
        if page:
            self._service.page = "starting"
        await self._service.start()
        self._listener(Note(f"ready at http://{_name(api)}, documentation at /docs"))
        if page and (app := await self._page()):
            self._listener(Note(f"the page is at http://{_name(page)}"))
            self._service.page = "ready"
            tasks.create_task(self._serve(app, page))
        elif page:
            page.close()  # refused, and not left waiting

    async def _page(self) -> ASGIApp | None:
        """The page's app; None if it cannot be built, which the API does not depend on."""

        def build() -> ASGIApp:
            from imgsearch.server.ui import build_page

            return build_page(self._service)

        try:
            return await asyncio.to_thread(build)
        except Exception as error:  # whatever Gradio, or another version of it, raises
            self._service.page = "failed"
            log.error(
                "the page cannot be built: %s: %s (IMGSEARCH_DEBUG=1 shows where)",
                type(error).__name__,
                first_line(error),
                exc_info=error if os.environ.get("IMGSEARCH_DEBUG") else None,
            )
            self._listener(Note("the API is served without the page"))
            return None

    async def _serve(self, app: ASGIApp, listening: socket.socket) -> None:
        server = _server(app, self._service.settings.limits)
        self._servers.append(server)
        await server.serve([listening])


def _name(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextlib.contextmanager
def _signals(handle: Callable[[int], None]) -> Iterator[None]:
    """Call `handle` with SIGINT or SIGTERM; only the main thread can ask for signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda received, _: handle(received)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
