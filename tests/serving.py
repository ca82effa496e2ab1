"""A real service on a port of its own, in a thread, for tests that talk to it over HTTP."""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx

from imgsearch.encoders import open_encoder
from imgsearch.server.address import listen
from imgsearch.server.running import Running
from imgsearch.server.service import Service
from imgsearch.server.settings import Settings
from tests.fakes import ColourEncoder


@dataclass(frozen=True)
class Served:
    """A service that is ready, and a client that calls it. It raises for no status."""

    service: Service
    client: httpx.Client
    url: str
    port: int


@contextlib.contextmanager
def serving(
    settings: Settings, encoder: ColourEncoder | None = None, *, wait: bool = True
) -> Iterator[Served]:
    """With the encoder given, or with the real ones."""
    opener = encoder.open if encoder else open_encoder
    socket = listen("127.0.0.1", 0, "--port")
    port = socket.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    service = Service(settings, encoder_opener=opener)
    running = Running(service)
    thread = threading.Thread(target=running.serve, args=(socket,))
    thread.start()
    with socket:
        try:
            with httpx.Client(base_url=url, timeout=30) as client:
                if wait:
                    wait_until_ready(client)
                yield Served(service, client, url, port)
        finally:
            running.stop()
            thread.join()


def wait_until_ready(client: httpx.Client) -> None:
    deadline = time.monotonic() + 30
    while client.get("/readyz").status_code != 200:
        assert time.monotonic() < deadline, "the service did not become ready"
        time.sleep(0.01)
