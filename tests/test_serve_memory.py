"""What clients send takes a bounded amount of the service's memory."""

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
from tests.fakes import ColourEncoder
from tests.serving import Served, filled, picture, serving

RECORDS = "/v1/collections/images/records"
FORM = {"Content-Type": "multipart/form-data; boundary=b"}
PLAIN = Limits().plain_body


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    settings = filled(tmp_path_factory.mktemp("memory"), limits=Limits(body=1 << 20))
    with serving(settings, ColourEncoder(), with_page=True) as served:
        yield served


def wait_until(condition: Callable[[], object]) -> None:
    """Requests are counted until just after their response."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def field(size: int) -> bytes:
    return b'--b\r\nContent-Disposition: form-data; name="text"\r\n\r\n' + bytes(size) + b"\r\n"


class TestPlainBodies:
    @pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=b"])
    @pytest.mark.parametrize("says_its_size", [True, False])
    def test_changes_of_metadata_are_refused_above_a_limit(
        self, served: Served, kind: str, says_its_size: bool
    ) -> None:
        """A type that the body claims to have does not change that it is read as a whole."""
        record = served.client.get(RECORDS).json()["records"][0]["id"]
        body = json.dumps({"a": "x" * PLAIN}).encode()
        content = body if says_its_size else iter([body[: PLAIN // 2], body[PLAIN // 2 :]])
        answer = served.client.patch(
            f"{RECORDS}/{record}", content=content, headers={"Content-Type": kind}
        )
        assert answer.status_code == 413
        assert f"{PLAIN:,} bytes" in answer.json()["detail"]

    def test_questions_of_the_page_are_refused_above_a_limit(self, served: Served) -> None:
        body = json.dumps({"data": ["x" * PLAIN], "fn_index": 0})
        for kind in ("application/json", FORM["Content-Type"]):
            answer = served.client.post(
                f"{served.page}/gradio_api/run/predict",
                content=body,
                headers={"Content-Type": kind},
            )
            assert answer.status_code == 413

    def test_a_body_below_the_limit_is_taken(self, served: Served) -> None:
        record = served.client.get(RECORDS).json()["records"][0]["id"]
        changes = {f"long{number}": "x" * 9000 for number in range(7)}
        assert served.client.patch(f"{RECORDS}/{record}", json=changes).status_code == 200

    def test_many_mistakes_get_a_short_answer(self, served: Served) -> None:
        record = served.client.get(RECORDS).json()["records"][0]["id"]
        many = {str(number): 0 for number in range(5000)}
        body = {f"field{number}": many if number == 0 else [] for number in range(90)}
        answer = served.client.patch(f"{RECORDS}/{record}", json=body)
        assert answer.status_code == 422
        assert len(answer.content) < 10_000

    def test_only_forms_are_posted(self) -> None:
        """The limit of plain bodies goes by the method: a route of another kind would have none."""
        app = create_app(Service(Settings()))
        taken = {
            (method, kind)
            for operations in app.openapi()["paths"].values()
            for method, operation in operations.items()
            for kind in operation.get("requestBody", {}).get("content", {})
        }
        assert taken == {("post", "multipart/form-data"), ("patch", "application/json")}


class TestForms:
    def test_bodies_together_have_a_limit_and_are_taken_again_once_there_is_room(
        self, served: Served
    ) -> None:
        """Fields are held in memory: four clients of the largest body fill what there is."""
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
        response = served.client.post("/search/", files={"file": picture(1)})
        assert response.status_code == 200

    def test_one_large_file_needs_little(self, served: Served) -> None:
        """It is on the disk."""
        content = picture(1) + bytes(served.service.settings.limits.body - 2000)
        for _ in range(8):
            answer = served.client.post("/search/", files={"file": content})
            assert answer.status_code == 200
        wait_until(lambda: served.service.load.bytes == 0)
        wait_until(lambda: served.service.load.requests == 0)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")
def test_the_memory_of_hostile_clients_is_bounded(sample_store: str) -> None:
    """20 requests of 14 MB that would be held in memory, and 20 of 1.5 million JSON arrays."""
    free_port = unused_port()
    command = [sys.executable, "-m", "imgsearch", "serve", "--no-ui", "--max-body", "16"]
    with subprocess.Popen(
        [*command, "--port", str(free_port), "--store", sample_store],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    ) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{free_port}", timeout=60) as client:
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
    """The most memory that a process has had, in bytes."""
    status = Path(f"/proc/{process}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10


class TestBudget:
    def test_work_waits_for_room_in_the_order_it_came(self) -> None:
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
                    ("too much by now", 99, rest),
                    ("would fit", 1, rest),
                )
            ]
            await asyncio.sleep(0)
            assert done == ["fits"]
            first.set()
            await asyncio.gather(*tasks)
            return done

        assert asyncio.run(run()) == ["fits", "too much by now", "would fit"]

    def test_who_gives_up_holds_nothing(self) -> None:
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
