"""What is checked, in order; whatever it finds, nothing of it stays."""

from __future__ import annotations

import contextlib

from tools import weaviate
from tools.compose import check_imgsearch, check_weaviate
from tools.compose.docker import Docker, Server
from tools.compose.published import check_configuration
from tools.compose.shell import say


def check(docker: Docker, imgsearch: Server, single: Server, *cluster: Server) -> None:
    """Everything that the compose files promise. Assertions say what does not hold."""
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
    say("down: nothing left")


def _show(docker: Docker) -> None:
    """What the containers do and last said."""
    print(docker.compose("--profile", "cluster", "ps", "--all"))
    for line in docker.compose("--profile", "cluster", "logs", "--tail", "15").splitlines():
        name, _, text = line.partition(" | ")
        print(f"{name}: {weaviate.readable(text)}")
