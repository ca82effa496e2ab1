"""Check Weaviate in docker-compose.yml: one server, and the cluster."""

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

# The start of every HTTP/2 connection, followed by an empty SETTINGS frame.
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
HTTP2_SETTINGS = 4


def check_single(docker: Docker, server: Server) -> None:
    """Check that `docker compose up -d weaviate` starts a usable server with persistent data."""
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
    """Check that the profile `cluster` has three replicas and survives the loss of one."""
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
        # For a few seconds, requests wait for the dead node and may time out.
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
    """Check that `weaviate.serving` uses this engine and leaves nothing behind."""
    os.environ.update(docker.environment)
    os.environ.pop("WEAVIATE_URL", None)
    projects = ["ps", "-q", "--filter", "label=com.docker.compose.project"]
    before = docker.run(*projects)
    with weaviate.serving() as url:
        assert url.startswith("weaviate://127.0.0.1:")
        assert docker.run(*projects) != before, f"{url} is not a container"
        assert weaviate.healthy(int(url.split(":")[2].split("?")[0])) == 1
    assert docker.run(*projects) == before, "a server for tests was left"
    say("a server for tests by compose: started and removed")


def wait_for_nodes(server: Server, count: int) -> None:
    """Wait until this server sees a number of healthy nodes, including itself."""
    complaint = f"{server.service} does not see {count} healthy nodes"
    wait(lambda: weaviate.healthy(server.port) == count, complaint)


def check_memory(docker: Docker, server: Server) -> None:
    """Check that the kernel enforces the limit and the server knows it."""
    files = "/sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes"
    name = docker.container(server)
    limit = docker.run("exec", name, "sh", "-c", f"cat {files} 2>/dev/null || true").split()
    assert limit == [str(MEMORY)], f"memory limit {limit}, not {MEMORY}"
    logs = docker.compose("logs", "--no-color", server.service)
    assert re.search(rf'"limit":{int(MEMORY * 0.8)}\b', logs), "the server ignores the limit"
    say(f"memory limit: {MEMORY >> 20} MiB in the kernel, 80 % of it for Go")


def speaks_http2(port: int) -> bool:
    """Return whether a port speaks HTTP/2, as gRPC does; an open port may be a forwarder's."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(HTTP2_PREFACE)
        header = connection.recv(9)
    return len(header) == 9 and header[3] == HTTP2_SETTINGS


def store(server: Server) -> str:
    """Create a collection with one object; return the object's ID."""
    index = {"vectorizer": {"none": {}}, "vectorIndexType": "hnsw"}
    call(server, "/v1/schema", {"class": "Kept", "vectorConfig": {"default": index}})
    identity = str(uuid.uuid4())
    vectors = {"default": [0.5, 0.25]}
    call(server, "/v1/objects", {"class": "Kept", "id": identity, "vectors": vectors})
    return identity


def vector(server: Server, identity: str, level: str = "ONE") -> list[float]:
    """Return the vector of an object, at a consistency level."""
    query = f"include=vector&consistency_level={level}"
    found = call(server, f"/v1/objects/Kept/{identity}?{query}")
    vectors: list[float] = found["vectors"]["default"]
    return vectors


def call(server: Server, path: str, body: dict[str, Any] | None = None) -> Any:
    """Send a request; return the JSON of the response."""
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
