"""The map of a collection over HTTP: drawn by a job, and kept until it is drawn again."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from imgsearch.server import maps
from imgsearch.server.jobs import map as map_job
from tests.fakes import ColorEncoder
from tests.serving import Served, filled, id_of, image_bytes, serving
from tests.test_map import Document
from tests.test_serve_jobs import ended

pytest.importorskip("openTSNE")

IMAGES = "/v1/collections/images"
MAP = f"{IMAGES}/map"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(filled(tmp_path, images=9), ColorEncoder()) as served:
        yield served


def draw(served: Served, **fields: Any) -> dict[str, Any]:
    response = served.client.post(MAP, params=fields)
    assert response.status_code == 202, response.text
    job: dict[str, Any] = response.json()
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    return job


def shown(response: httpx.Response, folder: Path) -> Document:
    assert response.status_code == 200
    (folder / "shown.html").write_bytes(response.content)
    return Document(folder / "shown.html")


def kind(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["type"].rpartition(":")[2]


def test_a_job_draws_a_map_that_names_no_file(served: Served, tmp_path: Path) -> None:
    assert kind(served.client.get(MAP)) == (404, "map-not-found")
    job = ended(served, draw(served))
    assert (job["kind"], job["state"], job["result"]) == ("map", "done", MAP)
    assert (job["found"], job["finished"], job["report"], job["step"]) == (9, 9, None, None)
    response = served.client.get(job["result"])
    document = shown(response, tmp_path)
    ids = document.raw("ids")
    assert len(ids) == 16 * 9
    assert bytes.fromhex(id_of(tmp_path / "shop/3.png").replace("-", "")) in ids
    assert {"data-paths", "data-links"}.isdisjoint(document.blocks)
    assert str(tmp_path) not in document.html
    # Only pages of this service frame it, and its scripts cannot call the service.
    policy = response.headers["content-security-policy"]
    assert "frame-ancestors 'self'" in policy
    assert "sandbox allow-scripts" in policy
    assert "allow-same-origin" not in policy
    assert response.headers["x-frame-options"] == "SAMEORIGIN"
    again = served.client.get(MAP, headers={"If-None-Match": response.headers["etag"]})
    assert again.status_code == 304


def test_it_is_drawn_again_only_after_a_change(served: Served, tmp_path: Path) -> None:
    ended(served, draw(served))
    first = served.client.get(MAP)
    ended(served, draw(served))
    assert served.client.head(MAP).headers["etag"] == first.headers["etag"]
    served.client.delete(f"{IMAGES}/records/{id_of(tmp_path / 'shop/3.png')}")
    files = {"files": ("new.png", image_bytes(40))}
    ended(served, served.client.post(f"{IMAGES}/uploads", files=files).json())
    ended(served, draw(served))
    before, after = shown(first, tmp_path), shown(served.client.get(MAP), tmp_path)
    places = [_places(each) for each in (before, after)]
    kept = places[0].keys() & places[1].keys()
    assert len(kept) == 8
    assert all(places[0][each] == places[1][each] for each in kept)
    assert len(places[1]) == 9


def _places(document: Document) -> dict[bytes, bytes]:
    ids, places = document.raw("ids"), document.raw("positions")
    count = document.json("meta")["count"]
    return {ids[16 * n : 16 * n + 16]: places[8 * n : 8 * n + 8] for n in range(count)}


def test_one_job_at_a_time_draws_a_map(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    started, gate = threading.Event(), threading.Event()

    def wait(*_: Any) -> None:
        started.set()
        gate.wait(60)

    monkeypatch.setattr(map_job, "make_map", wait)
    job = draw(served)
    assert started.wait(60)
    assert draw(served)["id"] == job["id"]
    served.client.delete(f"/v1/jobs/{job['id']}")
    gate.set()
    job = ended(served, job)
    assert (job["state"], job["result"]) == ("cancelled", None)
    assert served.client.get(MAP).status_code == 404


def test_a_dropped_collection_has_no_map(served: Served, tmp_path: Path) -> None:
    ended(served, draw(served))
    assert list((tmp_path / "home" / "maps").iterdir())
    served.client.delete(IMAGES)
    assert kind(served.client.get(MAP)) == (404, "collection-not-found")
    assert not list((tmp_path / "home" / "maps").iterdir())


def test_what_cannot_be_drawn_is_refused_at_once(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = served.client.post("/v1/collections/none/map")
    assert kind(missing) == (404, "collection-not-found")
    monkeypatch.setattr(maps, "MOST_IMAGES", 5)
    assert kind(served.client.post(MAP)) == (400, "wrong-usage")
    monkeypatch.setitem(sys.modules, "openTSNE", None)
    lacking = served.client.post(MAP)
    assert kind(lacking) == (501, "missing-library")
    assert "pip install 'imgsearch-cli[map]'" in lacking.json()["detail"]
