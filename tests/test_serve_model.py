"""A model that loads slowly: only requests that need it wait, and the service is not ready."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from imgsearch.encoders.request import EncoderRequest
from imgsearch.errors import EncoderError
from imgsearch.events import Listener, ignore
from imgsearch.types import Stamp
from tests.fakes import ColorEncoder
from tests.serving import Served, filled, image_bytes, serving
from tests.test_serve_jobs import ended

IMAGES = "/v1/collections/images"


class SlowToOpen(ColorEncoder):
    """Opens the model for new collections when `gate_of_new` is set, other models immediately."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_of_new = threading.Event()
        self.failures = 0
        self.opened = 0

    def open(
        self, request: EncoderRequest, stamp: Stamp | None = None, listener: Listener = ignore
    ) -> ColorEncoder:
        if stamp is None:
            assert self.gate_of_new.wait(60)
            self.opened += 1
            if self.failures:
                self.failures -= 1
                raise EncoderError("there is no network")
        return self


@pytest.fixture
def encoder() -> Iterator[SlowToOpen]:
    encoder = SlowToOpen()
    yield encoder
    encoder.gate_of_new.set()


@pytest.fixture
def fresh(tmp_path: Path, encoder: SlowToOpen) -> Iterator[Served]:
    """A service whose collection does not exist yet, on a store that has another one."""
    settings = filled(tmp_path, collection="shoes", model_seconds=0.05)
    with serving(settings, encoder, wait=False) as served:
        yield served


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def is_ready(served: Served) -> bool:
    return served.client.get("/readyz").status_code == 200


def upload(served: Served) -> httpx.Response:
    return served.client.post("/upload/", files={"file": ("a.png", image_bytes(50))})


def until_preparing(served: Served) -> None:
    wait_for(lambda: "preparing the model" in served.client.get("/readyz").text)


def test_the_service_is_not_ready_while_the_model_is_prepared(
    fresh: Served, encoder: SlowToOpen
) -> None:
    until_preparing(fresh)
    assert fresh.client.get("/readyz").status_code == 503
    assert fresh.client.get("/healthz").status_code == 200
    encoder.gate_of_new.set()
    wait_for(lambda: is_ready(fresh))
    assert upload(fresh).status_code == 200
    assert encoder.opened == 1


def test_uploads_get_503_and_searches_succeed_while_the_model_loads(
    fresh: Served, encoder: SlowToOpen
) -> None:
    until_preparing(fresh)
    with ThreadPoolExecutor(32) as clients:
        uploads = [clients.submit(upload, fresh) for _ in range(32)]
        files = {"image": image_bytes(3)}
        found = fresh.client.post(f"{IMAGES}/search", files=files)
        assert found.json()["hits"][0]["score"] == pytest.approx(1, abs=1e-4)
        rejected = [each.result() for each in uploads]
    assert {response.status_code for response in rejected} == {503}
    assert {response.headers["retry-after"] for response in rejected} == {"5"}
    assert "the model is being prepared" in rejected[0].json()["detail"]
    encoder.gate_of_new.set()
    wait_for(lambda: upload(fresh).status_code == 200)


def test_a_job_that_waits_for_the_model_blocks_no_request(
    fresh: Served, encoder: SlowToOpen
) -> None:
    until_preparing(fresh)
    job = fresh.client.post(
        "/v1/collections/shoes/uploads", files={"files": ("a.png", image_bytes(51))}
    ).json()
    wait_for(lambda: fresh.client.get(f"/v1/jobs/{job['id']}").json()["state"] == "running")
    record = fresh.client.get(f"{IMAGES}/records").json()["records"][0]["id"]
    changed = fresh.client.patch(f"{IMAGES}/records/{record}", json={"number": 77})
    assert changed.json()["metadata"]["number"] == 77
    encoder.gate_of_new.set()
    assert ended(fresh, job)["state"] == "done"


def test_a_job_that_waits_for_the_model_can_be_cancelled(
    fresh: Served, encoder: SlowToOpen
) -> None:
    until_preparing(fresh)
    job = fresh.client.post(
        "/v1/collections/shoes/uploads", files={"files": ("a.png", image_bytes(51))}
    ).json()
    fresh.client.delete(f"/v1/jobs/{job['id']}")
    assert ended(fresh, job)["state"] == "cancelled"


def test_an_upload_retries_a_failed_model(fresh: Served, encoder: SlowToOpen) -> None:
    encoder.failures = 2
    encoder.gate_of_new.set()
    # Searches are possible nevertheless.
    wait_for(lambda: is_ready(fresh))
    assert "there is no network" in upload(fresh).json()["detail"]
    assert upload(fresh).status_code == 200
