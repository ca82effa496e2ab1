"""Check that ports are published on 127.0.0.1 only."""

from __future__ import annotations

import json
import socket

from tools.compose.docker import ROOT, Docker, Server
from tools.compose.shell import say
from tools.compose.standins import WEAVIATE


def check_configuration(docker: Docker, imgsearch: Server, *weaviates: Server) -> None:
    """Check images, ports and the GPU settings of the files as compose reads them."""
    services = json.loads(docker.compose("--profile", "cluster", "config", "--format", "json"))[
        "services"
    ]
    for server in (imgsearch, *weaviates):
        published = services[server.service]["ports"]
        assert {port["host_ip"] for port in published} == {"127.0.0.1"}, published
        assert tuple(int(port["published"]) for port in published) == server.ports, published
    for server in weaviates:
        assert services[server.service]["image"] == WEAVIATE
    with_gpu = docker.compose("-f", str(ROOT / "docker-compose.gpu.yml"), "config")
    assert "driver: nvidia" in with_gpu
    assert "ACCELERATOR: cuda" in with_gpu
    say("configuration: pinned image, published on 127.0.0.1 only")


def check_published(docker: Docker, server: Server) -> None:
    """Check that the ports respond on 127.0.0.1 and on no other address of this computer."""
    details = docker.inspect(server)["NetworkSettings"]
    bound = [place["HostIp"] for places in details["Ports"].values() for place in places or []]
    assert set(bound) == {"127.0.0.1"}, f"bound to {bound}"
    assert _connects("127.0.0.1", server.port)
    # The bridge's address belongs to this computer, and every other container can reach it.
    for network in details["Networks"].values():
        for port in server.ports:
            assert not _connects(network["Gateway"], port), f"{network['Gateway']}:{port} answers"


def _connects(host: str, port: int) -> bool:
    """Return whether a connection is accepted."""
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((host, port)) == 0
