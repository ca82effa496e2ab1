"""The service on a Weaviate that is killed and restarted under load."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from imgsearch.ingest import ingest
from imgsearch.stores import open_store
from tests.fakes import ColorEncoder
from tests.serving import filled, image_bytes, serving
from tools.weaviate import Cluster

pytestmark = pytest.mark.weaviate

Servers = Callable[..., AbstractContextManager[Cluster]]
SEARCH = "/v1/collections/images/search"


def test_searches_return_503_during_an_outage_and_succeed_afterwards(
    own_server: Servers, tmp_path: Path
) -> None:
    settings = filled(tmp_path)
    with own_server() as cluster:
        with open_store(cluster.url) as store:
            ingest([str(tmp_path / "shop")], store, "images", encoder_opener=ColorEncoder().open)
        # Restart once, so that the complete index is on the disk before the kill.
        cluster.nodes[0].stop()
        cluster.nodes[0].start()
        settings = replace(settings, store=cluster.url, store_timeout=0.5)
        with serving(settings, ColorEncoder()) as served:
            ended = threading.Event()
            responses: list[httpx.Response] = []

            def search() -> None:
                while not ended.is_set():
                    files = {"image": image_bytes(3)}
                    responses.append(served.client.post(SEARCH, files=files, data={"k": 1}))
                    ended.wait(0.05)  # else the clients take the processor from the server

            clients = [threading.Thread(target=search) for _ in range(4)]
            for client in clients:
                client.start()
            try:
                wait_for(responses, 200)
                cluster.nodes[0].kill()
                wait_for(responses, 503)
                assert served.client.get("/healthz").status_code == 200
                response = served.client.post("/upload/", files={"file": image_bytes(90)})
                assert response.status_code == 503
                cluster.nodes[0].start()
                wait_for(responses, 200)
            finally:
                ended.set()
                for client in clients:
                    client.join()
            assert Counter(response.status_code for response in responses).keys() == {200, 503}
            for response in responses:
                if response.status_code == 503:
                    assert int(response.headers["retry-after"]) > 0
                    assert cluster.url not in response.text
                else:
                    assert response.json()["hits"][0]["metadata"]["number"] == 3
            response = served.client.post("/upload/", files={"file": image_bytes(90)})
            assert response.status_code == 200
            assert served.client.get("/v1/collections/images").json()["images"] == 9


def wait_for(responses: list[httpx.Response], status: int) -> None:
    """Wait for a new response with this status."""
    before = len(responses)
    deadline = time.monotonic() + 60
    while all(response.status_code != status for response in responses[before:]):
        assert time.monotonic() < deadline, Counter(each.status_code for each in responses)
        time.sleep(0.02)


@pytest.mark.slow
def test_the_service_waits_for_a_store_that_is_down_at_the_start(
    own_server: Servers, tmp_path: Path
) -> None:
    settings = filled(tmp_path)
    with own_server() as cluster:
        settings = replace(settings, store=cluster.url, store_timeout=0.5)
        cluster.nodes[0].kill()
        with serving(settings, ColorEncoder(), wait=False) as served:
            response = served.client.get("/readyz")
            assert response.status_code == 503
            assert "starting" in response.json()["detail"]
            assert served.client.post(SEARCH, data={"text": "a"}).status_code == 503
            cluster.nodes[0].start()
            deadline = time.monotonic() + 60
            while served.client.get("/readyz").status_code != 200:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert served.client.get("/v1/collections").json() == []
