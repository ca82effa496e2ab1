"""The test on a running engine: official images, free ports, a separate project."""

from __future__ import annotations

import contextlib
import secrets
import subprocess
from pathlib import Path

from tools import weaviate
from tools.compose.checks import check
from tools.compose.docker import Docker, Server, client_environment
from tools.compose.shell import Impossible, say
from tools.compose.standins import PYTHON, WEAVIATE

PULL_SECONDS = 600
# The variables in docker-compose.yml for the ports of each service.
SETTINGS = {
    "imgsearch": ("IMGSEARCH_PORT", "IMGSEARCH_UI_PORT"),
    "weaviate": ("WEAVIATE_PORT", "WEAVIATE_GRPC_PORT"),
    "node1": ("WEAVIATE_NODE1_PORT", "WEAVIATE_NODE1_GRPC_PORT"),
    "node2": ("WEAVIATE_NODE2_PORT", "WEAVIATE_NODE2_GRPC_PORT"),
    "node3": ("WEAVIATE_NODE3_PORT", "WEAVIATE_NODE3_GRPC_PORT"),
}


def test_with_existing_engine(work: Path) -> None:
    """Run the test. Raises Impossible if the official images cannot be pulled."""
    project = f"imgsearch-test-{secrets.token_hex(4)}"
    first = weaviate.free_block(2 * len(SETTINGS))
    servers = [
        Server(service, (first + 2 * index, first + 2 * index + 1))
        for index, service in enumerate(SETTINGS)
    ]
    chosen = {"IMGSEARCH_IMAGE": project}
    for server in servers:
        ports = map(str, server.ports)
        chosen |= dict(zip(SETTINGS[server.service], ports, strict=True))
    docker = Docker(client_environment(work, chosen), project)
    for image in (WEAVIATE, PYTHON):
        _pull(docker, image)
    try:
        check(docker, *servers)
    finally:
        with contextlib.suppress(RuntimeError):  # if it was not built
            docker.run("image", "rm", project)


def _pull(docker: Docker, image: str) -> None:
    try:
        docker.run("image", "inspect", image)
    except RuntimeError:
        say(f"pulling {image}")
        try:
            docker.run("pull", "-q", image, timeout=PULL_SECONDS)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            raise Impossible(f"the image cannot be pulled: {error}") from error
