"""Stalled clients are disconnected; slow clients are not."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgsearch.ingest import ingest
from imgsearch.server.settings import Limits, Settings
from imgsearch.stores import open_store
from tests.fakes import ColorEncoder
from tests.serving import Served, filled, image_bytes, serving

LIMITS = Limits(stall_seconds=0.4, head_seconds=0.4, min_rate=64)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service with short timeouts, and one image of 5 MB."""
    folder = tmp_path_factory.mktemp("stalls")
    (folder / "shop").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (1300, 1300, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "shop" / "large.png")
    with open_store(str(folder / "store")) as store:
        ingest([str(folder / "shop")], store, "images", encoder_opener=ColorEncoder().open)
    settings = Settings(store=str(folder / "store"), data=folder / "home", limits=LIMITS)
    with serving(settings, ColorEncoder()) as served:
        yield served


@pytest.fixture
def image(served: Served) -> str:
    (record,) = served.client.get("/v1/collections/images/records").json()["records"]
    return str(record["image"])


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def connect(served: Served, receive_buffer: int = 1 << 14) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.settimeout(20)
    client.connect(("127.0.0.1", served.port))
    return client


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""]).encode()


def is_cut_off(client: socket.socket) -> bool:
    """Return whether the connection ends, after reading the rest."""
    with contextlib.suppress(ConnectionError):
        while client.recv(1 << 16):
            pass
    return True


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0


@pytest.mark.parametrize("rest", [b"", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"])
def test_stalled_readers_are_disconnected(
    served: Served, image: str, rest: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """With or without another request in the same packet."""
    served.client.get("/healthz")
    before = open_files()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(served)) for _ in range(20)]
        for client in clients:
            client.sendall(get(image) + rest)
        for client in clients:
            assert len(client.recv(100, socket.MSG_PEEK)) == 100
        # The 20 client sockets, which are in this process, stay open.
        wait_until(lambda: open_files() <= before + 20)
        for client in clients:
            assert is_cut_off(client)
    assert served.client.get(image).status_code == 200
    assert not caplog.records


def test_slow_readers_get_the_whole_file(served: Served, image: str) -> None:
    """Each pause is shorter than the timeout; the transfer takes longer."""
    started = time.monotonic()
    received = 0
    with connect(served, 1 << 18) as client:
        client.sendall(get(image, "Connection: close"))
        while chunk := client.recv(1 << 18):
            received += len(chunk)
            if time.monotonic() - started < 3 * LIMITS.stall_seconds:
                time.sleep(LIMITS.stall_seconds / 8)
    size = int(served.client.head(image).headers["content-length"])
    assert received > size


def test_slow_readers_do_not_count_as_requests_in_progress(tmp_path: Path) -> None:
    """A request is in progress only until its response begins."""
    limits = Limits(requests=2)
    settings = filled(tmp_path, limits=limits)
    noise = np.random.default_rng(0).integers(0, 256, (1300, 1300, 3), dtype=np.uint8)
    with serving(settings, ColorEncoder()) as served, contextlib.ExitStack() as stack:
        Image.fromarray(noise).save(tmp_path / "large.png")
        uploaded = served.client.post(
            "/upload/", files={"file": (tmp_path / "large.png").read_bytes()}
        )
        for _ in range(4):
            client = stack.enter_context(connect(served))
            client.sendall(get(uploaded.json()["image"]))
            assert client.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 200"
        response = served.client.post("/search/", files={"file": image_bytes(1)})
        assert response.status_code == 200


def test_a_body_that_continues_after_its_response_is_cut_off(served: Served) -> None:
    """The response to an incomplete request starts a timeout."""
    stop = threading.Event()
    with connect(served) as client:
        client.sendall(get("/healthz", "Content-Length: 60000"))
        assert client.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 200"

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not stop.wait(0.05):
                    client.sendall(b"x")

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            assert is_cut_off(client)
        finally:
            stop.set()
            dripping.join()


class TestUploads:
    def body(self, size: int) -> bytes:
        filler = b"x" * size
        return (
            b'--b\r\nContent-Disposition: form-data; name="filler"\r\n\r\n' + filler + b"\r\n"
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
            + image_bytes(1)
            + b"\r\n--b--\r\n"
        )

    def head(self, length: int) -> bytes:
        return (
            b"POST /search/ HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n"
            b"Content-Length: %d\r\n\r\n" % length
        )

    def test_slow_uploads_succeed(self, served: Served) -> None:
        """Each pause is shorter than the timeout; the upload takes longer."""
        body = self.body(2000)
        step = len(body) // 30
        with connect(served) as client:
            client.sendall(self.head(len(body)))
            for start in range(0, len(body), step):
                client.sendall(body[start : start + step])
                time.sleep(LIMITS.stall_seconds / 8)
            assert client.recv(12) == b"HTTP/1.1 200"

    @pytest.mark.parametrize("pause", [5.0, 0.05])
    def test_a_stalled_or_dripping_upload_gets_408(self, served: Served, pause: float) -> None:
        with connect(served) as client:
            client.sendall(self.head(90_000) + b"--b\r\n")
            client.settimeout(pause)
            response = b""
            while b"--stall-timeout" not in response:
                try:
                    response += client.recv(10_000)
                except TimeoutError:
                    client.sendall(b"x")
        assert b" 408 " in response.partition(b"\r\n")[0]

    def test_health_is_served_while_dripping_clients_fill_the_service(self, tmp_path: Path) -> None:
        limits = Limits(requests=2)
        with (
            serving(filled(tmp_path, limits=limits), ColorEncoder()) as served,
            contextlib.ExitStack() as stack,
        ):

            def is_full_with_one_more() -> bool:
                stack.enter_context(connect(served)).sendall(self.head(90_000))
                return served.client.get("/v1/collections").status_code == 429

            wait_until(is_full_with_one_more)
            for path in ("/healthz", "/readyz", "/metrics"):
                assert served.client.get(path).status_code == 200
