"""The service over a Weaviate that dies and comes back while clients ask."""

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
from tests.fakes import ColourEncoder
from tests.serving import filled, picture, serving
from tools.weaviate import Cluster

pytestmark = pytest.mark.weaviate

Servers = Callable[..., AbstractContextManager[Cluster]]
SEARCH = "/v1/collections/images/search"


def test_while_it_is_away_it_is_503_and_then_it_works_again(
    own_server: Servers, tmp_path: Path
) -> None:
    settings = filled(tmp_path)
    with own_server() as cluster:
        with open_store(cluster.url) as store:
            ingest([str(tmp_path / "shop")], store, "images", encoder_opener=ColourEncoder().open)
        # What a server that is killed loses of its index is another matter: all of it is on disk.
        cluster.nodes[0].stop()
        cluster.nodes[0].start()
        settings = replace(settings, store=cluster.url, store_timeout=0.5)
        with serving(settings, ColourEncoder()) as served:
            ended = threading.Event()
            answers: list[httpx.Response] = []

            def ask() -> None:
                while not ended.is_set():
                    files = {"image": picture(3)}
                    answers.append(served.client.post(SEARCH, files=files, data={"k": 1}))

            clients = [threading.Thread(target=ask) for _ in range(4)]
            for client in clients:
                client.start()
            try:
                wait_for(answers, 200)
                cluster.nodes[0].kill()
                wait_for(answers, 503)
                assert served.client.get("/healthz").status_code == 200
                answer = served.client.post("/upload/", files={"file": picture(90)})
                assert answer.status_code == 503
                cluster.nodes[0].start()
                wait_for(answers, 200)
            finally:
                ended.set()
                for client in clients:
                    client.join()
            assert Counter(answer.status_code for answer in answers).keys() == {200, 503}
            for answer in answers:
                if answer.status_code == 503:
                    assert int(answer.headers["retry-after"]) > 0
                    assert cluster.url not in answer.text
                else:
                    assert answer.json()["hits"][0]["metadata"]["number"] == 3
            answer = served.client.post("/upload/", files={"file": picture(90)})
            assert answer.status_code == 200
            assert served.client.get("/v1/collections/images").json()["images"] == 9


def wait_for(answers: list[httpx.Response], status: int) -> None:
    """Until an answer that comes from now on has this status."""
    before = len(answers)
    deadline = time.monotonic() + 60
    while all(answer.status_code != status for answer in answers[before:]):
        assert time.monotonic() < deadline, Counter(each.status_code for each in answers)
        time.sleep(0.02)


def test_one_that_is_not_there_at_the_start_is_waited_for(
    own_server: Servers, tmp_path: Path
) -> None:
    settings = filled(tmp_path)
    with own_server() as cluster:
        settings = replace(settings, store=cluster.url, store_timeout=0.5)
        cluster.nodes[0].kill()
        with serving(settings, ColourEncoder(), wait=False) as served:
            answer = served.client.get("/readyz")
            assert answer.status_code == 503
            assert "starting" in answer.json()["detail"]
            assert served.client.post(SEARCH, data={"text": "a"}).status_code == 503
            cluster.nodes[0].start()
            deadline = time.monotonic() + 60
            while served.client.get("/readyz").status_code != 200:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert served.client.get("/v1/collections").json() == []
