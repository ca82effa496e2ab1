"""What clients are told names no folder, file or host of the service's own."""

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imgsearch.errors import (
    CollectionNotFoundError,
    EncoderError,
    ImgsearchError,
    ScratchError,
    StoreError,
    StoreFullError,
)
from imgsearch.server.redact import Redactor
from imgsearch.server.settings import Settings
from imgsearch.stores import open_store
from tests.fakes import ColourEncoder
from tests.serving import Served, filled, picture, serving

IMAGES = "/v1/collections/images"


@pytest.fixture(
    params=["{}", "lance:{}", "lance://{}", "../{name}", "~/{name}", "~/here/../{name}"]
)
def served_by_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Settings:
    """A store whose option says where it is in another way than its errors do."""
    settings = filled(tmp_path, 3)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    return replace(settings, store=request.param.format(settings.store, name="store"))


def answers(served: Served) -> dict[str, str]:
    """The text and headers of every answer, with what fails in many ways."""
    client = served.client
    record = client.get(f"{IMAGES}/records").json()["records"][0]["id"]
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", "/", {}),
        ("GET", "/readyz", {}),
        ("GET", "/metrics", {}),
        ("GET", "/openapi.json", {}),
        ("GET", "/v1/collections", {}),
        ("GET", "/v1/collections/nope", {}),
        ("DELETE", "/v1/collections/nope", {}),
        ("GET", "/v1/collections/nope/records", {}),
        ("GET", IMAGES, {}),
        ("GET", f"{IMAGES}/records", {}),
        ("GET", f"{IMAGES}/records/{record}", {}),
        ("GET", f"{IMAGES}/records/nope", {}),
        ("GET", f"{IMAGES}/records/{record}/image", {}),
        ("GET", f"{IMAGES}/records/{record}/thumbnail", {}),
        ("GET", f"{IMAGES}/records/{record}/thumbnail?side=1", {}),
        ("PATCH", f"{IMAGES}/records/{record}", {"json": {"number": "text"}}),
        ("POST", f"{IMAGES}/search", {"files": {"image": picture(1)}}),
        ("POST", f"{IMAGES}/search", {"files": {"image": b"none"}}),
        ("POST", f"{IMAGES}/search", {"data": {"text": "x", "where": "nope=1"}}),
        ("POST", "/v1/collections/nope/search", {"files": {"image": picture(1)}}),
        ("POST", "/search/", {"files": {"file": picture(1)}}),
        ("POST", "/upload/", {"files": {"file": picture(7)}}),
        ("POST", f"{IMAGES}/uploads", {"files": {"files": b"none"}}),
        ("GET", "/v1/jobs", {}),
        ("GET", "/v1/jobs/nope", {}),
        ("GET", "/get-image/nope", {}),
    ]
    found = {}
    for method, path, more in asked:
        answer = client.request(method, path, **more)
        content = "" if "image" in answer.headers["content-type"] else answer.text
        found[f"{method} {path} {answer.status_code}"] = content + str(answer.headers)
    for job in client.get("/v1/jobs").json():
        found[job["report"]] = client.get(job["report"]).text
    return found


def test_no_answer_names_a_folder(served_by_another_name: Settings, tmp_path: Path) -> None:
    with serving(served_by_another_name, ColourEncoder()) as served:
        for what, text in answers(served).items():
            for told in (str(tmp_path), tmp_path.name, "../store", "~/store"):
                assert told not in text, what


def test_an_embedded_store_that_fails_names_no_folder_but_the_log_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In the words of the store's own library."""
    settings = filled(tmp_path, 3)
    with serving(settings, ColourEncoder()) as served:
        assert served.client.get(f"{IMAGES}/records").status_code == 200
        assert settings.store
        for path in Path(settings.store).rglob("*.lance"):
            if path.is_file():
                path.unlink()
        answer = served.client.post(f"{IMAGES}/search", files={"image": picture(1)})
    assert answer.status_code == 503, answer.text
    assert tmp_path.name not in answer.text
    assert "the store" in answer.text
    assert str(tmp_path).removeprefix("/") in caplog.text


def test_a_weights_file_is_not_named(tmp_path: Path) -> None:
    for given in (str(tmp_path / "my.pth"), "../my.pth", "https://in.example/my.pth?token=1"):
        redactor = Redactor(Settings(weights=given, data=tmp_path))
        text = f"the collection was made with the weights a, and --weights {given} is b"
        assert redactor.redact_text(text) == text.replace(given, "the weights")
        real = os.path.abspath(given)
        assert redactor.redact_text(f"{real}: no file") == "the weights: no file" or "://" in given


@pytest.mark.parametrize(
    "url",
    [
        "weaviate://db.internal:8080?grpc=50052",
        "https://my-cluster.c0.europe-west3.gcp.weaviate.cloud",
        "my-cluster.c0.europe-west3.gcp.weaviate.cloud/",
    ],
)
def test_a_server_is_not_named(tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture) -> None:
    from imgsearch.stores.weaviate.address import parse

    address = parse(url)
    redactor = Redactor(Settings(store=url, data=tmp_path))
    missing = CollectionNotFoundError(f"{address.url}: no collection x here (there is images)")
    assert redactor.redact(missing) == "the store: no collection x here (there is images)"
    assert not caplog.records
    for kind in (StoreError, StoreFullError):
        error = kind(f"{address.url} does not answer (ipv4:10.1.2.3:50051 at node-7.internal)")
        for hidden in (address.host, "10.1.2.3", "node-7"):
            assert hidden not in redactor.redact(error)
        assert str(error) in caplog.text


def test_the_service_may_be_told_to_show_places(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    redactor = Redactor(Settings(store="weaviate://db", data=tmp_path, show_paths=True))
    errors: list[ImgsearchError] = [
        StoreError("weaviate://db does not answer"),
        EncoderError(f"{tmp_path}/weights: damaged"),
        ScratchError("/tmp/x: full"),
    ]
    caplog.set_level(logging.ERROR)
    for error in errors:
        assert redactor.redact(error) == str(error)
        assert str(error) in caplog.text


def test_temporary_folders_are_not_named(tmp_path: Path) -> None:
    redactor = Redactor(Settings(data=tmp_path))
    assert "/tmp" not in redactor.redact(ScratchError("/tmp/x: no space left"))


@pytest.mark.weaviate
def test_no_answer_names_a_real_server(one_node: str, tmp_path: Path) -> None:
    settings = replace(filled(tmp_path, 3), store=one_node, collection="Private")
    with open_store(one_node) as store, store.write_lock("Private"):
        if "Private" in store.names():
            store.drop("Private")
    with serving(settings, ColourEncoder()) as served:
        uploaded = served.client.post("/upload/", files={"file": picture(1)})
        assert uploaded.status_code == 200
        place = one_node.partition("://")[2].partition("?")[0]
        for path in ("nope", "nope/records", "Private", "Private/records/nope"):
            answer = served.client.get(f"/v1/collections/{path}")
            assert place not in answer.text
            assert "weaviate:" not in answer.text
        assert served.client.delete("/v1/collections/Private").status_code == 204
