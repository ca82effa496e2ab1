"""All checks, in order, and the cleanup after them."""

from __future__ import annotations

import contextlib

from tools import weaviate
from tools.compose import check_imgsearch, check_weaviate
from tools.compose.docker import Docker, Server
from tools.compose.published import check_configuration
from tools.compose.shell import say


def check(docker: Docker, imgsearch: Server, single: Server, *cluster: Server) -> None:
    """Check everything that the compose files promise. Raises AssertionError."""
    try:
        check_configuration(docker, imgsearch, single, *cluster)
        check_weaviate.check_single(docker, single)
        check_weaviate.check_cluster(docker, cluster)
        check_weaviate.check_serving(docker)
        check_imgsearch.check(docker, imgsearch, single)
    except BaseException:
        with contextlib.suppress(RuntimeError):
            _show(docker)
        raise
    finally:
        docker.compose("--profile", "cluster", "down", "--volumes", "--remove-orphans")
    left = docker.run("volume", "ls", "-q", "--filter", f"name={docker.project}_")
    assert not left, f"volumes left behind: {left}"
    say("down: no volumes left")


def _show(docker: Docker) -> None:
    """Print the state and the last log lines of the containers."""
    print(docker.compose("--profile", "cluster", "ps", "--all"))
    for line in docker.compose("--profile", "cluster", "logs", "--tail", "15").splitlines():
        name, _, text = line.partition(" | ")
        print(f"{name}: {weaviate.readable(text)}")
