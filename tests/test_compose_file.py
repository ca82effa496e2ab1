"""The image and the compose files, as far as they can be checked without an engine.

`make test-compose` has one.
"""

import re
from fnmatch import fnmatch
from pathlib import Path

from imgsearch import config
from tools.compose import standins

ROOT = Path(__file__).parents[1]
COMPOSE = (ROOT / "docker-compose.yml").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_weaviate_is_the_version_that_the_tests_run_against() -> None:
    assert re.findall(r"image: (\S+)", COMPOSE) == [
        standins.WEAVIATE,
        "${IMGSEARCH_IMAGE:-imgsearch}",
    ]


def test_every_port_is_bound_to_this_computer_alone() -> None:
    published = re.findall(r'- "(.*:(?:8080|50051|8888|7860))"', COMPOSE)
    assert len(published) == 10
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_the_ports_are_those_that_serve_listens_on() -> None:
    ports = {config.DEFAULT_PORT, config.DEFAULT_UI_PORT}
    exposed = re.findall(r"^EXPOSE (.*)$", DOCKERFILE, re.MULTILINE)
    assert [set(map(int, line.split())) for line in exposed] == [ports]
    assert all(f":-{port}}}:{port}" in COMPOSE for port in ports)
    assert f"127.0.0.1:{config.DEFAULT_PORT}/readyz" in DOCKERFILE


def test_no_key_is_needed_only_for_names_of_this_computer() -> None:
    assert "--insecure" in COMPOSE
    assert re.findall(r"--allow-host=(\S+)", COMPOSE) == [
        "localhost",
        "127.0.0.1",
        "imgsearch",
        "${IMGSEARCH_PUBLIC_NAME:-localhost}",
    ]


def test_versions_are_pinned() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert set(bases) == {"${BASE}", "build"}
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", standins.PYTHON)
    uv = re.search(r"^UV_VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert uv
    assert re.findall(r"^ARG UV_VERSION=(\S+)$", DOCKERFILE, re.MULTILINE) == [uv[1]]
    _, *installs = DOCKERFILE.replace("`uv pip install", "").split("uv pip install")
    assert len(installs) == 3
    assert all(re.search("--constraints constraints.txt|--no-deps", text) for text in installs)


def test_the_container_runs_as_a_user_without_rights() -> None:
    last = DOCKERFILE[DOCKERFILE.rindex("FROM ") :]
    assert re.findall(r"^USER (.*)$", last, re.MULTILINE) == ["imgsearch"]
    for confined in ("read_only: true", "cap_drop: [ALL]", "security_opt: *security"):
        assert confined in COMPOSE
    assert "no-new-privileges:true" in COMPOSE


def test_the_image_is_made_of_what_is_copied_and_nothing_else_is_sent() -> None:
    """Whatever is added to the tree stays out: tests, pictures, settings, history."""
    first, *kept = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith(("#", "**/"))
    ]
    assert first == "*"
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    names = {name for line in copied for name in line.split()}
    assert names == {line.removeprefix("!") for line in kept}
    assert all((ROOT / name).exists() for name in names)
    assert not any(fnmatch(".env", name) for name in names)


def test_what_the_service_mounts_is_what_the_documented_ingest_reads() -> None:
    """Not `compose run`, whose container has a mount of its own."""
    readme = (ROOT / "README.md").read_text()
    for text in (readme, COMPOSE):
        assert "docker compose exec imgsearch imgsearch ingest /data" in text
        assert "imgsearch ingest /data" not in text.replace("imgsearch imgsearch ingest", "")
    assert '"${IMGSEARCH_DATA:-./sample_data}:/data:ro"' in COMPOSE


def test_memory_holds_little_of_what_arrives() -> None:
    assert re.findall(r"tmpfs: (.*)$", COMPOSE, re.MULTILINE) == ['["/tmp:size=64m"]']
