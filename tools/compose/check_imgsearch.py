"""Check imgsearch in docker-compose.yml: build, upload, search, restart."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tools.compose.docker import ROOT, Docker, Server
from tools.compose.published import check_published
from tools.compose.shell import say
from tools.compose.standins import PYTHON

BUILD_SECONDS = 1200
UPLOADED = ROOT / "sample_data" / "images" / "10101.jpg"
# More than one image, so that finding the right one means something.
OTHERS = [UPLOADED.with_name(name) for name in ("10201.jpg", "10301.jpg")]


def check(docker: Docker, server: Server, weaviate: Server) -> None:
    """Run all checks of the service."""
    check_image(docker)
    started = time.monotonic()
    docker.compose("up", "-d")
    docker.wait_healthy(weaviate, server)
    say(f"up: both healthy after {time.monotonic() - started:.0f} s")
    running = docker.compose("ps", "--services").split()
    assert sorted(running) == ["imgsearch", "weaviate"], running
    check_published(docker, server)
    page = Server(server.service, (server.ports[1], server.ports[0]))
    assert b"<html" in _get(page, "/"), "no page"
    check_privileges(docker)
    check_persistence(docker, server, weaviate)
    check_ingest(docker, server)
    check_own_folder(docker, server)
    check_key(docker, server)
    check_stop(docker, server)


def check_image(docker: Docker) -> None:
    """Check that the image builds, and contains neither PyTorch nor development tools."""
    started = time.monotonic()
    docker.compose("build", "imgsearch", timeout=BUILD_SECONDS)
    name = json.loads(docker.compose("config", "--format", "json"))["services"]["imgsearch"]
    size, base = (_megabytes(docker, image) for image in (name["image"], PYTHON))
    say(
        f"built in {time.monotonic() - started:.0f} s: {size:.0f} MB, {size - base:.0f} MB of them "
        "on top of its base"
    )
    listed = "import importlib.metadata as m; print(*{d.name for d in m.distributions()})"
    packages = set(_python(docker, listed).split())
    assert {"imgsearch-cli", "onnxruntime", "pylance", "weaviate-client"} <= packages
    unwanted = {"mypy", "pip", "pytest", "ruff", "torch", "torchvision", "triton", "uv"}
    assert not packages & unwanted, f"in the image: {packages & unwanted}"


def _python(docker: Docker, program: str) -> str:
    """Run a Python program in a container of the image; return its output."""
    run = ["run", "--rm", "--no-deps", "--entrypoint", "python"]
    return docker.compose(*run, "imgsearch", "-c", program)


def _megabytes(docker: Docker, image: str) -> float:
    return int(docker.run("image", "inspect", "--format", "{{.Size}}", image)) / 1e6


def check_privileges(docker: Docker) -> None:
    """Check that the service has no privileges and a read-only file system."""
    status = docker.compose("exec", "imgsearch", "cat", "/proc/1/status")
    facts = dict(re.findall(r"^(\w+):\s+(.*)$", status, re.MULTILINE))
    assert set(facts["Uid"].split()) == {"10001"}, facts["Uid"]
    assert int(facts["CapEff"], 16) == 0, facts["CapEff"]
    assert facts["NoNewPrivs"] == "1"
    writable = "for at in / /opt/imgsearch /data; do if [ -w $at ]; then echo $at; fi; done"
    assert docker.compose("exec", "imgsearch", "sh", "-c", writable) == ""
    say("the service runs as user 10001, without privileges, on a read-only file system")


def check_persistence(docker: Docker, server: Server, weaviate: Server) -> None:
    """Check that uploads are found and served, also after a restart of everything."""
    for index, image in enumerate([UPLOADED, *OTHERS]):
        text = f"stored upload {index}"
        assert _post(server, "/upload/", image, description=text)["description"] == text
    _check_found(server)
    say("uploaded through the API, and found")
    docker.compose("restart")
    docker.wait_healthy(weaviate, server)
    _check_found(server)
    say("restart: still found")


def _check_found(server: Server) -> None:
    found = _post(server, "/search/", UPLOADED, fullresult="true")
    assert found["similar_category"] == "stored upload 0", found
    assert len(found["hits"]) >= 3, found
    assert _get(server, found["image"]) == UPLOADED.read_bytes()


def check_ingest(docker: Docker, server: Server) -> None:
    """Check that the service finds what another container ingests from the host."""
    text = docker.compose("run", "--rm", "-T", "imgsearch", "ingest", "/data", "--json")
    report = json.loads(text)
    assert report["indexed"] + report["reused"] == report["found"] - report["rejected"], report
    assert report["indexed"] > 50, report
    query = ["exec", "-T", "imgsearch", "imgsearch", "query", f"/data/images/{UPLOADED.name}"]
    hits = json.loads(docker.compose(*query, "--json"))["hits"]
    assert hits[0]["path"] == f"/data/images/{UPLOADED.name}", hits[0]
    assert len(_post(server, "/search/", UPLOADED)["hits"]) > 3
    say(f"`run --rm imgsearch ingest /data`: {report['indexed']} images, found by both")


def check_own_folder(docker: Docker, server: Server) -> None:
    """Check that the service serves the files that were ingested, and no other file."""
    sample = UPLOADED.with_name("10102.jpg")
    with tempfile.TemporaryDirectory(prefix="imgsearch-data-") as folder:
        # With the name of another sample that the container had at this path before.
        own = Path(folder, "images", UPLOADED.name)
        own.parent.mkdir()
        shutil.copyfile(sample, own)
        for each, mode in ((own, 0o644), (own.parent, 0o755), (Path(folder), 0o755)):
            each.chmod(mode)
        given = replace(docker, environment={**docker.environment, "IMGSEARCH_DATA": folder})
        given.compose("up", "-d", "--no-deps", server.service)
        given.wait_healthy(server)
        ingest = ["exec", "-T", "imgsearch", "imgsearch", "ingest", "/data", "--json"]
        # Without the variable: a running container retains its folder.
        report = json.loads(docker.compose(*ingest))
        assert (report["found"], report["rejected"]) == (1, 0), report
        found = _post(server, "/search/", sample)
        assert _get(server, found["image"]) == sample.read_bytes(), found
        say("IMGSEARCH_DATA with `up`, then `exec imgsearch ingest /data`: those images are served")
        docker.compose("run", "--rm", "-T", "imgsearch", "ingest", "/data")
        found = _post(server, "/search/", UPLOADED)
        gone = [hit for hit in found["hits"] if _is_gone(server, hit["id"])]
        assert gone, found
        say("a file that was replaced after the ingest is not served")


def _is_gone(server: Server, record: str) -> bool:
    try:
        _get(server, f"/get-image/{record}")
    except AssertionError as error:
        return ": 404 " in str(error)
    return False


def check_key(docker: Docker, server: Server) -> None:
    """Check that with a key set, the service is healthy and rejects requests without the key."""
    key = secrets.token_hex(16)
    keyed = replace(docker, environment={**docker.environment, "IMGSEARCH_API_KEY": key})
    keyed.compose("up", "-d", "--no-deps", server.service)
    keyed.wait_healthy(server)
    path = "/v1/collections/images"
    try:
        without = str(_get(server, path))
    except AssertionError as error:
        without = str(error)
    assert ": 401 " in without, without
    assert json.loads(_get(server, path, {"X-API-Key": key}))["images"] > 50
    say("with IMGSEARCH_API_KEY set, it requires the key")


def check_stop(docker: Docker, server: Server) -> None:
    """Check that SIGTERM stops it within the grace period, with exit code 0."""
    started = time.monotonic()
    docker.compose("stop", server.service)
    code = docker.inspect(server)["State"]["ExitCode"]
    assert code == 0, f"exit code {code}"
    say(f"stopped in order, in {time.monotonic() - started:.1f} s")


def _post(server: Server, path: str, image: Path, **fields: str) -> Any:
    """Send a form with an image; return the JSON of the response."""
    boundary = secrets.token_hex(16)
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}{path}",
        data=_multipart(boundary, image, fields),
        headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
    )
    return json.loads(_answer(request))


def _get(server: Server, path: str, headers: Mapping[str, str] | None = None) -> bytes:
    where = f"http://127.0.0.1:{server.port}{path}"
    return _answer(urllib.request.Request(where, headers=dict(headers or {})))


def _answer(request: urllib.request.Request) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as answer:
            body: bytes = answer.read()
            return body
    except urllib.error.HTTPError as error:
        said = error.read().decode()[:500]
        raise AssertionError(f"{request.selector}: {error.code} {said}") from error


def _multipart(boundary: str, image: Path, fields: Mapping[str, str]) -> bytes:
    parts = [
        f'Content-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode()
        for name, text in fields.items()
    ]
    head = f'Content-Disposition: form-data; name="file"; filename="{image.name}"\r\n\r\n'
    parts.append(head.encode() + image.read_bytes() + b"\r\n")
    line = f"--{boundary}\r\n".encode()
    return line + line.join(parts) + f"--{boundary}--\r\n".encode()
