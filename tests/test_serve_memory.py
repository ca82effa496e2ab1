"""The memory that clients can make the service use is bounded."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from imgsearch.server.app import create_app
from imgsearch.server.capacity import MemoryBudget
from imgsearch.server.service import Service
from imgsearch.server.settings import Limits, Settings
from tests.fakes import ColorEncoder
from tests.serving import Served, filled, image_bytes, serving

RECORDS = "/v1/collections/images/records"
FORM = {"Content-Type": "multipart/form-data; boundary=b"}
PLAIN = Limits().plain_body


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    settings = filled(tmp_path_factory.mktemp("memory"), limits=Limits(body=1 << 20))
    with serving(settings, ColorEncoder(), with_page=True) as served:
        yield served


def wait_until(condition: Callable[[], object]) -> None:
    """Wait for a condition; requests count until just after their response."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def field(size: int) -> bytes:
    return b'--b\r\nContent-Disposition: form-data; name="text"\r\n\r\n' + bytes(size) + b"\r\n"


class TestPlainBodies:
    @pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=b"])
    @pytest.mark.parametrize("has_length", [True, False])
    def test_large_metadata_changes_are_rejected(
        self, served: Served, kind: str, has_length: bool
    ) -> None:
        """The content type makes no difference, as the body is read as a whole."""
        record = served.client.get(RECORDS).json()["records"][0]["id"]
        body = json.dumps({"a": "x" * PLAIN}).encode()
        content = body if has_length else iter([body[: PLAIN // 2], body[PLAIN // 2 :]])
        response = served.client.patch(
            f"{RECORDS}/{record}", content=content, headers={"Content-Type": kind}
        )
        assert response.status_code == 413
        assert f"{PLAIN:,} bytes" in response.json()["detail"]

    def test_large_requests_of_the_page_are_rejected(self, served: Served) -> None:
        body = json.dumps({"data": ["x" * PLAIN], "fn_index": 0})
        for kind in ("application/json", FORM["Content-Type"]):
            response = served.client.post(
                f"{served.page}/gradio_api/run/predict",
                content=body,
                headers={"Content-Type": kind},
            )
            assert response.status_code == 413

    def test_a_body_below_the_limit_is_accepted(self, served: Served) -> None:
        record = served.client.get(RECORDS).json()["records"][0]["id"]
        changes = {f"long{number}": "x" * 9000 for number in range(7)}
        assert served.client.patch(f"{RECORDS}/{record}", json=changes).status_code == 200

    def test_many_validation_errors_get_a_short_response(self, served: Served) -> None:
        record = served.client.get(RECORDS).json()["records"][0]["id"]
        many = {str(number): 0 for number in range(5000)}
        body = {f"field{number}": many if number == 0 else [] for number in range(90)}
        response = served.client.patch(f"{RECORDS}/{record}", json=body)
        assert response.status_code == 422
        assert len(response.content) < 10_000

    def test_every_post_endpoint_takes_a_form(self) -> None:
        """The limit of plain bodies depends on the method, so another endpoint would have none."""
        app = create_app(Service(Settings()))
        accepted = {
            (method, kind)
            for operations in app.openapi()["paths"].values()
            for method, operation in operations.items()
            for kind in operation.get("requestBody", {}).get("content", {})
        }
        assert accepted == {("post", "multipart/form-data"), ("patch", "application/json")}


class TestForms:
    def test_the_memory_of_all_bodies_is_limited_and_released(self, served: Served) -> None:
        """Fields are in memory: four bodies of the maximum size fill it."""
        size = served.service.settings.limits.body - 2000
        head = (
            b"POST /search/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" % (size + 1000)
        )
        body = field(size // 2) + field(size // 2)[:-100]
        load = served.service.load
        wait_until(lambda: load.bytes == 0)
        with contextlib.ExitStack() as clients:
            for _ in range(4):
                client = socket.create_connection(("127.0.0.1", served.port))
                clients.enter_context(client).sendall(head + body)
            wait_until(lambda: load.bytes == 4 * len(body))
            another = field(9000) + b"--b--\r\n"
            response = served.client.post("/search/", content=another, headers=FORM)
            assert response.status_code == 429
        wait_until(lambda: load.bytes == 0)
        response = served.client.post("/search/", files={"file": image_bytes(1)})
        assert response.status_code == 200

    def test_a_large_file_needs_little_memory(self, served: Served) -> None:
        """Files are spooled to the disk."""
        content = image_bytes(1) + bytes(served.service.settings.limits.body - 2000)
        for _ in range(8):
            response = served.client.post("/search/", files={"file": content})
            assert response.status_code == 200
        wait_until(lambda: served.service.load.bytes == 0)
        wait_until(lambda: served.service.load.requests == 0)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")
def test_the_memory_of_hostile_clients_is_bounded(sample_store: str) -> None:
    """Send 20 requests with 14 MB of fields, and 20 with 1.5 million JSON arrays."""
    free_port = unused_port()
    command = [sys.executable, "-m", "imgsearch", "serve", "--no-ui", "--max-body", "16"]
    with subprocess.Popen(
        [*command, "--port", str(free_port), "--store", sample_store],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    ) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{free_port}", timeout=240) as client:
                assert process.stderr is not None
                assert any("ready at" in line for line in process.stderr)
                before = peak(process.pid)
                fields = field(950_000) * 15 + b"--b--\r\n"
                text = b'{"a": [' + b"[]," * 1_500_000 + b"[]]}"

                def send(number: int) -> int:
                    if number % 2:
                        headers = {"Content-Type": "application/json"}
                        return client.patch(
                            f"{RECORDS}/x", content=text, headers=headers
                        ).status_code
                    return client.post("/search/", content=fields, headers=FORM).status_code

                with ThreadPoolExecutor(20) as clients:
                    statuses = set(clients.map(send, range(40)))
                assert statuses <= {413, 422, 429}
                assert client.get("/readyz").status_code == 200
                assert peak(process.pid) - before < 200 << 20
        finally:
            process.terminate()


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def peak(process: int) -> int:
    """Return the peak memory of a process, in bytes."""
    status = Path(f"/proc/{process}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10


class TestBudget:
    def test_memory_is_granted_in_the_order_of_requests(self) -> None:
        async def run() -> list[str]:
            budget = MemoryBudget(10)
            done: list[str] = []

            async def work(name: str, size: int, until: asyncio.Event) -> None:
                async with budget.reserve(size):
                    done.append(name)
                    await until.wait()

            first, rest = asyncio.Event(), asyncio.Event()
            rest.set()
            tasks = [
                asyncio.create_task(work(name, size, until))
                for name, size, until in (
                    ("fits", 6, first),
                    ("does not fit", 99, rest),
                    ("would fit", 1, rest),
                )
            ]
            await asyncio.sleep(0)
            assert done == ["fits"]
            first.set()
            await asyncio.gather(*tasks)
            return done

        assert asyncio.run(run()) == ["fits", "does not fit", "would fit"]

    def test_cancelled_requests_release_their_memory(self) -> None:
        async def run() -> None:
            budget = MemoryBudget(10)

            async def work(size: int) -> None:
                async with budget.reserve(size):
                    await asyncio.Event().wait()

            tasks = [asyncio.create_task(work(size)) for size in (6, 6, 4)]
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            async with asyncio.timeout(5), budget.reserve(10):
                pass

        asyncio.run(run())
