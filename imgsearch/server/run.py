"""Run the service: first the API, then the page, until a signal ends both."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from imgsearch.errors import ImgsearchError, first_line
from imgsearch.events import Listener, Note, ignore
from imgsearch.server.app import PagePort, create_app, mount_page
from imgsearch.server.middleware.protocol import TimeoutProtocol
from imgsearch.server.service import Service
from imgsearch.server.settings import Limits

if TYPE_CHECKING:
    from imgsearch.server.ui.app import PageApp

log = logging.getLogger("imgsearch.server")

# For requests in progress, after the signal.
DRAIN_SECONDS = 30
# For an idle connection.
_KEEP_ALIVE_SECONDS = 15
# Further connections get 503, whatever they request.
_CONNECTIONS = 1000


class _Server(uvicorn.Server):
    """One of the servers of this process, which handles signals itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server(app: ASGIApp, limits: Limits) -> _Server:
    settings = uvicorn.Config(
        app,
        http=partial(TimeoutProtocol, limits=limits),  # type: ignore[arg-type]
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
    """Runs the API and the page in one event loop."""

    def __init__(self, service: Service, listener: Listener = ignore) -> None:
        self._service = service
        self._listener = listener
        self._servers: list[_Server] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self.interrupted = False
        """Whether Ctrl-C ended it."""

    def serve(self, api: socket.socket, page: socket.socket | None = None) -> None:
        """Serve on these sockets until a signal or `stop`, and close them.

        Requests in progress are finished. Raises what `Service.start` raises.
        """
        with asyncio.Runner() as runner, _signals(self._on_signal):
            self._loop = runner.get_loop()
            try:
                runner.run(self._run(api, page))
            except* ImgsearchError as failed:
                raise failed.exceptions[0] from None

    def stop(self) -> None:
        """Stop, from any thread: the first call lets requests finish, the second does not."""
        if self._loop:
            with contextlib.suppress(RuntimeError):  # its loop is closed already
                self._loop.call_soon_threadsafe(self._stop_now)

    def _on_signal(self, number: int) -> None:
        self.interrupted |= number == signal.SIGINT
        self.stop()

    def _stop_now(self) -> None:
        if self._stop.is_set():
            for server in self._servers:
                server.force_exit = True
        else:
            self._listener(Note("finishing requests in progress; a second signal stops now"))
            self._stop.set()

    async def _run(self, api: socket.socket, page: socket.socket | None) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                app = create_app(self._service)
                tasks.create_task(self._serve(app, api))
                starting = tasks.create_task(self._start(app, tasks, api, page))
                await self._stop.wait()
                starting.cancel()
                self._service.drain()
                for server in self._servers:
                    server.should_exit = True
        finally:
            await self._service.close()

    async def _start(
        self,
        app: FastAPI,
        tasks: asyncio.TaskGroup,
        api: socket.socket,
        page: socket.socket | None,
    ) -> None:
        """Start the page last, so that its slow imports do not delay the API."""
        if page:
            self._service.page = "starting"
        await self._service.start()
        self._listener(Note(f"ready at http://{_name(api)}, documentation at /docs"))
        if page and (built := await self._page()):
            tasks.create_task(self._serve_page(app, built, page))
        elif page:
            page.close()  # rejects clients instead of letting them wait

    async def _serve_page(self, app: FastAPI, page: "PageApp", listening: socket.socket) -> None:
        async with page.running():
            mount_page(app, page)
            self._listener(Note(f"the page is at http://{_name(listening)}"))
            self._service.page = "ready"
            await self._serve(PagePort(app), listening)

    async def _page(self) -> "PageApp | None":
        """Return the page's app; None if it cannot be built, which the API does not depend on."""

        def build() -> "PageApp":
            from imgsearch.server.ui import build_page

            return build_page(self._service)

        try:
            return await asyncio.to_thread(build)
        except Exception as error:  # of any version of Gradio
            self._service.page = "failed"
            log.error(
                "the page cannot be built: %s: %s (IMGSEARCH_DEBUG=1 shows where)",
                type(error).__name__,
                first_line(error),
                exc_info=error if os.environ.get("IMGSEARCH_DEBUG") else None,
            )
            self._listener(Note("serving the API without the page"))
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
    """Call `handle` on SIGINT and SIGTERM, if this is the main thread."""
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
