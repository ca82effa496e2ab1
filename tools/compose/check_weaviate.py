"""Weaviate, alone and as a cluster, is what docker-compose.yml promises."""

from __future__ import annotations

import json
import os
import re
import socket
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Sequence
from typing import Any

from tools import weaviate
from tools.compose.docker import MEMORY, Docker, Server
from tools.compose.published import check_published
from tools.compose.shell import say, wait

# The beginning of every HTTP/2 connection, with an empty SETTINGS frame behind it.
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
HTTP2_SETTINGS = 4


def check_single(docker: Docker, server: Server) -> None:
    """`docker compose up -d weaviate` is one server that is usable and keeps what it was given."""
    started = time.monotonic()
    docker.compose("up", "-d", server.service)
    docker.wait_healthy(server)
    say(f"up: healthy after {time.monotonic() - started:.0f} s")
    assert docker.compose("ps", "--services").split() == [server.service]
    check_published(docker, server)
    check_memory(docker, server)
    assert speaks_http2(server.ports[1]), "nothing speaks gRPC on the gRPC port"
    identity = store(server)
    assert vector(server, identity) == [0.5, 0.25]
    say("a client stores and reads an object, without a key")
    docker.compose("restart")
    docker.wait_healthy(server)
    assert vector(server, identity) == [0.5, 0.25], "lost by a restart"
    docker.compose("down")
    docker.compose("up", "-d", server.service)
    docker.wait_healthy(server)
    assert vector(server, identity) == [0.5, 0.25], "lost by down and up"
    say("restart, and down and up: the object is still there")


def check_cluster(docker: Docker, servers: Sequence[Server]) -> None:
    """The profile `cluster` is three nodes that hold a copy each and survive the loss of one."""
    started = time.monotonic()
    docker.compose("up", "-d", *(server.service for server in servers))
    docker.wait_healthy(*servers)
    for server in servers:
        wait_for_nodes(server, 3)
        check_published(docker, server)
    say(f"cluster: three healthy nodes after {time.monotonic() - started:.0f} s")
    identity = store(servers[0])
    factor = call(servers[1], "/v1/schema/Kept")["replicationConfig"]["factor"]
    assert factor == 3, f"replication factor {factor}"
    docker.compose("--profile", "cluster", "kill", servers[0].service)
    for server in servers[1:]:
        # Until it is noticed, a few seconds, requests wait for the dead node and may time out.
        wait_for_nodes(server, 2)
        assert vector(server, identity, level="QUORUM") == [0.5, 0.25]
    say("one node killed: the others have the object, at QUORUM")
    docker.compose("--profile", "cluster", "restart")
    docker.wait_healthy(*servers)
    for server in servers:
        wait_for_nodes(server, 3)
        assert vector(server, identity) == [0.5, 0.25], "lost by a restart"
    say("all restarted: three healthy nodes again, the object in each")
    docker.compose("--profile", "cluster", "down")


def check_serving(docker: Docker) -> None:
    """Tests that take any server get one from this engine, and leave nothing on it."""
    os.environ.update(docker.environment)
    os.environ.pop("WEAVIATE_URL", None)
    projects = ["ps", "-q", "--filter", "label=com.docker.compose.project"]
    before = docker.run(*projects)
    with weaviate.serving() as url:
        assert url.startswith("weaviate://127.0.0.1:")
        assert docker.run(*projects) != before, f"{url} is no container"
        assert weaviate.healthy(int(url.split(":")[2].split("?")[0])) == 1
    assert docker.run(*projects) == before, "a server for tests was left"
    say("a server for tests, by compose: there and gone")


def wait_for_nodes(server: Server, count: int) -> None:
    """Until this server sees so many healthy nodes, itself among them."""
    complaint = f"{server.service} does not see {count} healthy nodes"
    wait(lambda: weaviate.healthy(server.port) == count, complaint)


def check_memory(docker: Docker, server: Server) -> None:
    """The kernel has the limit, and the server knows of it."""
    files = "/sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes"
    name = docker.container(server)
    limit = docker.run("exec", name, "sh", "-c", f"cat {files} 2>/dev/null || true").split()
    assert limit == [str(MEMORY)], f"memory limit {limit}, not {MEMORY}"
    logs = docker.compose("logs", "--no-color", server.service)
    assert re.search(rf'"limit":{int(MEMORY * 0.8)}\b', logs), "the server ignores the limit"
    say(f"memory limit: {MEMORY >> 20} MiB in the kernel, 80 % of it for Go")


def speaks_http2(port: int) -> bool:
    """Whether HTTP/2, and so gRPC, is spoken there; an open port alone may be a forwarder's."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(HTTP2_PREFACE)
        header = connection.recv(9)
    return len(header) == 9 and header[3] == HTTP2_SETTINGS


def store(server: Server) -> str:
    """Make a collection and put an object into it; the object's id."""
    index = {"vectorizer": {"none": {}}, "vectorIndexType": "hnsw"}
    call(server, "/v1/schema", {"class": "Kept", "vectorConfig": {"default": index}})
    identity = str(uuid.uuid4())
    vectors = {"default": [0.5, 0.25]}
    call(server, "/v1/objects", {"class": "Kept", "id": identity, "vectors": vectors})
    return identity


def vector(server: Server, identity: str, level: str = "ONE") -> list[float]:
    """The vector of that object as this server, or so many of its peers, have it."""
    query = f"include=vector&consistency_level={level}"
    found = call(server, f"/v1/objects/Kept/{identity}?{query}")
    vectors: list[float] = found["vectors"]["default"]
    return vectors


def call(server: Server, path: str, body: dict[str, Any] | None = None) -> Any:
    """A request as any HTTP client makes it."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}{path}",
        data=json.dumps(body).encode() if body else None,
        headers={"Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{path}: {error.code} {error.read().decode()[:500]}") from error
