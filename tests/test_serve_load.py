"""Many clients at once: batches form, too many are told so, and everyone gets an answer."""

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
from tests.fakes import ColourEncoder
from tests.serving import Served, filled, picture, serving

SEARCH = "/v1/collections/images/search"


def ask(served: Served, number: int) -> httpx.Response:
    return served.client.post(SEARCH, files={"image": picture(number)}, data={"k": 1})


def until(condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_what_arrives_while_the_model_works_is_its_next_batch(tmp_path: Path) -> None:
    encoder = ColourEncoder()
    with serving(filled(tmp_path), encoder) as served, ThreadPoolExecutor(12) as clients:
        encoder.gate = threading.Event()
        first = clients.submit(ask, served, 0)
        assert encoder.at_gate.wait(30)
        others = [clients.submit(ask, served, number) for number in range(1, 8)]
        until(lambda: "imgsearch_queue_depth 7.0" in served.client.get("/metrics").text)
        encoder.gate.set()
        answers = [each.result().json()["hits"][0] for each in (first, *others)]
    assert [hit["metadata"]["number"] for hit in answers] == list(range(8))
    assert encoder.batches == [1, 7]


def test_two_hundred_clients_at_once_are_all_answered(tmp_path: Path) -> None:
    """As many as there are places get hits; the others are told to come again, and may."""
    encoder = ColourEncoder()
    settings = filled(tmp_path, limits=Limits(requests=20))
    with serving(settings, encoder) as served, ThreadPoolExecutor(200) as clients:
        encoder.gate = threading.Event()
        asked = [clients.submit(ask, served, number % 8) for number in range(200)]
        until(lambda: sum(each.done() for each in asked) == 180)
        assert served.service.in_flight == 20
        assert served.client.get("/healthz").status_code == 200
        encoder.gate.set()
        answers = [each.result() for each in asked]
        assert Counter(answer.status_code for answer in answers) == {200: 20, 429: 180}
        for answer in answers:
            if answer.status_code == 429:
                assert int(answer.headers["retry-after"]) > 0
                assert answer.json()["type"] == "urn:imgsearch:problem:overloaded"
        assert ask(served, 1).status_code == 200
        assert served.service.in_flight == 0


def test_answers_are_sent_without_waiting_for_acknowledgements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = TimeoutProtocol.connection_made
    at_once: list[int] = []

    def connection_made(protocol: TimeoutProtocol, transport: asyncio.Transport) -> None:
        made(protocol, transport)
        accepted = transport.get_extra_info("socket")
        at_once.append(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    monkeypatch.setattr(TimeoutProtocol, "connection_made", connection_made)
    with serving(filled(tmp_path), ColourEncoder()) as served:
        assert ask(served, 1).status_code == 200
    assert set(at_once) == {1}


def test_uploads_that_arrive_together_are_all_kept(tmp_path: Path) -> None:
    with serving(filled(tmp_path), ColourEncoder()) as served, ThreadPoolExecutor(20) as clients:

        def upload(number: int) -> str:
            files = {"file": picture(500 + number % 30)}
            data = {"description": f"n{number % 30}"}
            answer = served.client.post("/upload/", files=files, data=data)
            assert answer.status_code == 200, answer.text
            return str(answer.json()["id"])

        ids = list(clients.map(upload, range(60)))
        assert len(set(ids)) == 30
        assert served.client.get("/v1/collections/images").json()["images"] == 8 + 30
        (hit,) = served.client.post(SEARCH, data={"text": "n17"}).json()["hits"]
        assert hit["id"] == ids[17]


def test_requests_under_way_are_finished_when_it_is_told_to_end(tmp_path: Path) -> None:
    encoder = ColourEncoder()
    encoder.gate = threading.Event()
    with ThreadPoolExecutor(1) as clients:
        with serving(filled(tmp_path), encoder) as served:
            # By a client of its own, as the service's is closed first.
            files = {"image": picture(3)}
            asked = clients.submit(httpx.post, served.url + SEARCH, files=files, timeout=30)
            until(lambda: served.service.in_flight == 1)
            threading.Timer(0.3, encoder.gate.set).start()
        assert asked.result().json()["hits"][0]["metadata"]["number"] == 3
