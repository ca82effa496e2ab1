"""A real service on a port of its own, in a thread, for tests that talk to it over HTTP."""

import contextlib
import io
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from imgsearch.encoders.factory import open_encoder
from imgsearch.events import Listener, ignore
from imgsearch.ingest import ingest
from imgsearch.server.address import listen
from imgsearch.server.run import Running
from imgsearch.server.service import Service
from imgsearch.server.settings import Settings
from imgsearch.stores import open_store
from imgsearch.uris import canonical_path, path_to_uri, record_id
from tests.fakes import ColorEncoder


@dataclass(frozen=True)
class Served:
    """A service that is ready, and a client that calls it. It raises for no status."""

    service: Service
    client: httpx.Client
    url: str
    port: int
    page: str
    """The page's address, where it is served."""


@contextlib.contextmanager
def serving(
    settings: Settings,
    encoder: ColorEncoder | None = None,
    *,
    wait: bool = True,
    with_page: bool = False,
    listener: Listener = ignore,
) -> Iterator[Served]:
    """With the encoder given, or with the real ones."""
    opener = encoder.open if encoder else open_encoder
    socket = listen("127.0.0.1", 0, "--port")
    port = socket.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    service = Service(settings, encoder_opener=opener)
    running = Running(service, listener)
    page = listen("127.0.0.1", 0, "--ui-port") if with_page else None
    address = f"http://127.0.0.1:{page.getsockname()[1]}" if page else ""
    thread = threading.Thread(target=running.serve, args=(socket, page))
    thread.start()
    with socket, page or contextlib.nullcontext():
        try:
            # As many connections as threads may want at once.
            limits = httpx.Limits(max_connections=None)
            with httpx.Client(base_url=url, timeout=90, limits=limits, verify=False) as client:
                if wait:
                    wait_until_ready(client)
                yield Served(service, client, url, port, address)
        finally:
            running.stop()
            thread.join()


def wait_until_ready(client: httpx.Client) -> None:
    deadline = time.monotonic() + 90
    while client.get("/readyz").status_code != 200:
        assert time.monotonic() < deadline, "the service did not become ready"
        time.sleep(0.01)


def filled(folder: Path, images: int = 8, **changes: Any) -> Settings:
    """Settings for a service of a collection `images` of some images, all in one folder.

    The images are 0.png, 1.png and so on, with a `number` and, the even ones, a `kind`.
    """
    shop = folder / "shop"
    shop.mkdir(parents=True)
    for number in range(images):
        (shop / f"{number}.png").write_bytes(image_bytes(number))
    rows = [f"{number},{number},{'' if number % 2 else 'even'}" for number in range(images)]
    (shop / "styles.csv").write_text("\n".join(["id,number,kind", *rows, ""]))
    with open_store(str(folder / "store")) as store:
        ingest([str(shop)], store, "images", encoder_opener=ColorEncoder().open)
    return Settings(store=str(folder / "store"), data=folder / "home", **changes)


def image_bytes(seed: int, format_: str = "PNG", size: tuple[int, int] = (64, 48)) -> bytes:
    """The bytes of an image of its own for each seed."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST).save(buffer, format_)
    return buffer.getvalue()


def id_of(path: Path) -> str:
    return record_id(path_to_uri(canonical_path(path)))
