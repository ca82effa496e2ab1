"""Responses do not reveal folders, files or hosts of the service."""

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
from tests.fakes import ColorEncoder
from tests.serving import Served, filled, image_bytes, serving

IMAGES = "/v1/collections/images"


@pytest.fixture(
    params=["{}", "lance:{}", "lance://{}", "../{name}", "~/{name}", "~/here/../{name}"]
)
def differently_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Settings:
    """Settings that spell the store's location differently than its errors do."""
    settings = filled(tmp_path, 3)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    return replace(settings, store=request.param.format(settings.store, name="store"))


def responses(served: Served) -> dict[str, str]:
    """Return text and headers of many responses, most of them errors, by request."""
    client = served.client
    record = client.get(f"{IMAGES}/records").json()["records"][0]["id"]
    requests: list[tuple[str, str, dict[str, Any]]] = [
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
        ("POST", f"{IMAGES}/search", {"files": {"image": image_bytes(1)}}),
        ("POST", f"{IMAGES}/search", {"files": {"image": b"none"}}),
        ("POST", f"{IMAGES}/search", {"data": {"text": "x", "where": "nope=1"}}),
        ("POST", "/v1/collections/nope/search", {"files": {"image": image_bytes(1)}}),
        ("POST", "/search/", {"files": {"file": image_bytes(1)}}),
        ("POST", "/upload/", {"files": {"file": image_bytes(7)}}),
        ("POST", f"{IMAGES}/uploads", {"files": {"files": b"none"}}),
        ("GET", "/v1/jobs", {}),
        ("GET", "/v1/jobs/nope", {}),
        ("GET", "/get-image/nope", {}),
    ]
    found = {}
    for method, path, more in requests:
        response = client.request(method, path, **more)
        content = "" if "image" in response.headers["content-type"] else response.text
        found[f"{method} {path} {response.status_code}"] = content + str(response.headers)
    for job in client.get("/v1/jobs").json():
        found[job["report"]] = client.get(job["report"]).text
    return found


def test_no_response_contains_a_folder(differently_spelled: Settings, tmp_path: Path) -> None:
    with serving(differently_spelled, ColorEncoder()) as served:
        for what, text in responses(served).items():
            for secret in (str(tmp_path), tmp_path.name, "../store", "~/store"):
                assert secret not in text, what


def test_a_failing_embedded_store_names_its_folder_only_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The message comes from the library of the store."""
    settings = filled(tmp_path, 3)
    with serving(settings, ColorEncoder()) as served:
        assert served.client.get(f"{IMAGES}/records").status_code == 200
        assert settings.store
        for path in Path(settings.store).rglob("*.lance"):
            if path.is_file():
                path.unlink()
        response = served.client.post(f"{IMAGES}/search", files={"image": image_bytes(1)})
    assert response.status_code == 503, response.text
    assert tmp_path.name not in response.text
    assert "the store" in response.text
    assert str(tmp_path).removeprefix("/") in caplog.text


def test_the_weights_file_is_redacted(tmp_path: Path) -> None:
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
def test_a_store_server_is_redacted(
    tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    from imgsearch.stores.weaviate.address import parse

    address = parse(url)
    redactor = Redactor(Settings(store=url, data=tmp_path))
    missing = CollectionNotFoundError(f"{address.url}: no collection x here (there is images)")
    assert redactor.redact(missing) == "the store: no collection x here (there is images)"
    assert not caplog.records
    for kind in (StoreError, StoreFullError):
        error = kind(f"{address.url} does not response (ipv4:10.1.2.3:50051 at node-7.internal)")
        for hidden in (address.host, "10.1.2.3", "node-7"):
            assert hidden not in redactor.redact(error)
        assert str(error) in caplog.text


def test_show_paths_turns_redaction_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    redactor = Redactor(Settings(store="weaviate://db", data=tmp_path, show_paths=True))
    errors: list[ImgsearchError] = [
        StoreError("weaviate://db does not response"),
        EncoderError(f"{tmp_path}/weights: damaged"),
        ScratchError("/tmp/x: full"),
    ]
    caplog.set_level(logging.ERROR)
    for error in errors:
        assert redactor.redact(error) == str(error)
        assert str(error) in caplog.text


def test_temporary_folders_are_redacted(tmp_path: Path) -> None:
    redactor = Redactor(Settings(data=tmp_path))
    assert "/tmp" not in redactor.redact(ScratchError("/tmp/x: no space left"))


@pytest.mark.weaviate
def test_no_response_contains_the_address_of_a_real_server(one_node: str, tmp_path: Path) -> None:
    settings = replace(filled(tmp_path, 3), store=one_node, collection="Private")
    with open_store(one_node) as store, store.write_lock("Private"):
        if "Private" in store.names():
            store.drop("Private")
    with serving(settings, ColorEncoder()) as served:
        uploaded = served.client.post("/upload/", files={"file": image_bytes(1)})
        assert uploaded.status_code == 200
        place = one_node.partition("://")[2].partition("?")[0]
        for path in ("nope", "nope/records", "Private", "Private/records/nope"):
            response = served.client.get(f"/v1/collections/{path}")
            assert place not in response.text
            assert "weaviate:" not in response.text
        assert served.client.delete("/v1/collections/Private").status_code == 204
