"""The server for a test: WEAVIATE_URL, Docker Compose, or one started here."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tools.weaviate.binary import say
from tools.weaviate.probe import free_block
from tools.weaviate.servers import running
from tools.weaviate.watchdog import Watchdog

COMPOSE_SECONDS = 600  # including the download of the image
COMPOSE_FILE = Path(__file__).resolve().parents[2] / "docker-compose.yml"


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """Yield the URL of a server for tests that neither stop nor configure it.

    The running server named by WEAVIATE_URL, else one from docker-compose.yml if an engine
    responds, else one started from the binary.
    """
    with contextlib.ExitStack() as stack:
        existing = os.environ.get("WEAVIATE_URL")
        yield existing or _composed(stack) or stack.enter_context(running()).url


def _composed(stack: contextlib.ExitStack) -> str | None:
    """Start a server from docker-compose.yml as a separate project; return None if impossible."""
    if not _compose_works():
        return None
    port = free_block(2)
    project = ["docker", "compose", "-p", f"imgsearch-test-{secrets.token_hex(4)}"]
    settings = {"WEAVIATE_PORT": str(port), "WEAVIATE_GRPC_PORT": str(port + 1)}
    down = [*project, "down", "--volumes"]
    stack.enter_context(Watchdog(down))
    stack.callback(_succeeds, down)
    up = [*project, "-f", str(COMPOSE_FILE), "up", "-d", "--wait", "weaviate"]
    if _succeeds(up, environment={**os.environ, **settings}, timeout=COMPOSE_SECONDS):
        return f"weaviate://127.0.0.1:{port}?grpc={port + 1}"
    say("Docker Compose could not start a server; starting one from the binary.")
    return None


def _compose_works() -> bool:
    """Return whether a Docker engine responds and Compose is installed."""
    if not shutil.which("docker"):
        return False
    # Without --format, `docker info` succeeds even without an engine.
    responds = _succeeds(["docker", "info", "--format", "{{.ServerVersion}}"], timeout=30)
    return responds and _succeeds(["docker", "compose", "version"], timeout=30)


def _succeeds(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    timeout: float = COMPOSE_SECONDS,
) -> bool:
    """Run a command; return whether it exits with 0 in time."""
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, timeout=timeout, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
