"""Many concurrent clients: batches, the limit of requests, and responses to all."""

import asyncio
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from imgsearch.server.middleware.protocol import TimeoutProtocol
from imgsearch.server.settings import Limits
from tests.fakes import ColorEncoder
from tests.serving import Served, filled, image_bytes, serving

SEARCH = "/v1/collections/images/search"


def search(served: Served, number: int) -> httpx.Response:
    return served.client.post(SEARCH, files={"image": image_bytes(number)}, data={"k": 1})


def wait_until(condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_images_that_arrive_during_a_batch_form_the_next_one(tmp_path: Path) -> None:
    encoder = ColorEncoder()
    with serving(filled(tmp_path), encoder) as served, ThreadPoolExecutor(12) as clients:
        encoder.gate = threading.Event()
        first = clients.submit(search, served, 0)
        assert encoder.at_gate.wait(60)
        others = [clients.submit(search, served, number) for number in range(1, 8)]
        wait_until(lambda: "imgsearch_queue_depth 7.0" in served.client.get("/metrics").text)
        encoder.gate.set()
        responses = [each.result().json()["hits"][0] for each in (first, *others)]
    assert [hit["metadata"]["number"] for hit in responses] == list(range(8))
    assert encoder.batches == [1, 7]


def test_two_hundred_concurrent_clients_all_get_a_response(tmp_path: Path) -> None:
    """Requests up to the limit succeed; the others get 429, and succeed later."""
    encoder = ColorEncoder()
    settings = filled(tmp_path, limits=Limits(requests=20))
    with serving(settings, encoder) as served, ThreadPoolExecutor(200) as clients:
        encoder.gate = threading.Event()
        searches = [clients.submit(search, served, number % 8) for number in range(200)]
        wait_until(lambda: sum(each.done() for each in searches) == 180)
        assert served.service.in_flight == 20
        assert served.client.get("/healthz").status_code == 200
        encoder.gate.set()
        responses = [each.result() for each in searches]
        assert Counter(response.status_code for response in responses) == {200: 20, 429: 180}
        for response in responses:
            if response.status_code == 429:
                assert int(response.headers["retry-after"]) > 0
                assert response.json()["type"] == "urn:imgsearch:problem:overloaded"
        assert search(served, 1).status_code == 200
        assert served.service.in_flight == 0


def test_responses_are_sent_without_delay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = TimeoutProtocol.connection_made
    no_delay: list[int] = []

    def connection_made(protocol: TimeoutProtocol, transport: asyncio.Transport) -> None:
        original(protocol, transport)
        accepted = transport.get_extra_info("socket")
        no_delay.append(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    monkeypatch.setattr(TimeoutProtocol, "connection_made", connection_made)
    with serving(filled(tmp_path), ColorEncoder()) as served:
        assert search(served, 1).status_code == 200
    assert set(no_delay) == {1}


def test_concurrent_uploads_are_all_indexed(tmp_path: Path) -> None:
    with serving(filled(tmp_path), ColorEncoder()) as served, ThreadPoolExecutor(20) as clients:

        def upload(number: int) -> str:
            files = {"file": image_bytes(500 + number % 30)}
            data = {"description": f"n{number % 30}"}
            response = served.client.post("/upload/", files=files, data=data)
            assert response.status_code == 200, response.text
            return str(response.json()["id"])

        ids = list(clients.map(upload, range(60)))
        assert len(set(ids)) == 30
        assert served.client.get("/v1/collections/images").json()["images"] == 8 + 30
        (hit,) = served.client.post(SEARCH, data={"text": "n17"}).json()["hits"]
        assert hit["id"] == ids[17]


def test_requests_in_progress_are_finished_at_shutdown(tmp_path: Path) -> None:
    encoder = ColorEncoder()
    encoder.gate = threading.Event()
    with ThreadPoolExecutor(1) as clients:
        with serving(filled(tmp_path), encoder) as served:
            # With a separate client, as the other one is closed first.
            files = {"image": image_bytes(3)}
            response = clients.submit(httpx.post, served.url + SEARCH, files=files, timeout=30)
            wait_until(lambda: served.service.in_flight == 1)
            threading.Timer(0.3, encoder.gate.set).start()
        assert response.result().json()["hits"][0]["metadata"]["number"] == 3
