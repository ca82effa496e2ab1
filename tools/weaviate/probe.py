"""Free ports, and the state of a server."""

from __future__ import annotations

import errno
import json
import secrets
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection

from tools.weaviate.binary import ServerUnavailable

# Below the ephemeral ports of Linux and macOS, so that a killed node finds its ports still free.
PORTS = range(20_000, 32_000)


def free_block(size: int, taken: Collection[int] = ()) -> int:
    """Return the first of `size` consecutive free ports, at random, none of them in `taken`."""
    for _ in range(200):
        # `random` may be seeded by a test, and all processes would then try the same order.
        first = PORTS.start + secrets.randbelow(len(PORTS) - size)
        block = range(first, first + size)
        if not set(taken).intersection(block) and all(map(is_free, block)):
            return first
    raise ServerUnavailable(f"no {size} consecutive free ports in {PORTS.start}-{PORTS.stop}")


def is_free(port: int) -> bool:
    """Return whether a port is free on all interfaces (for gRPC), for TCP and UDP (for gossip)."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM:
                # As the server does: closing connections do not count.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))  # noqa: S104  (closed at once)
            except OSError as error:
                if error.errno in (errno.EADDRINUSE, errno.EACCES):
                    return False
                raise
    return True


def wait_until(
    condition: Callable[[], bool], seconds: float, failure: Callable[[], ServerUnavailable]
) -> None:
    """Poll a condition; raise the failure after some seconds."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise failure()
        time.sleep(0.1)


def is_ready(port: int) -> bool:
    """Return whether the server's REST API on this port says that it is ready."""
    return _get(port, "/v1/.well-known/ready") is not None


def listens(port: int) -> bool:
    """Return whether a port accepts connections."""
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def healthy(port: int) -> int:
    """Return the number of healthy nodes that the server on this port sees in its cluster."""
    answer = _get(port, "/v1/nodes")
    nodes = json.loads(answer)["nodes"] if answer else []
    return sum(node["status"] == "HEALTHY" for node in nodes)


def _get(port: int, path: str) -> bytes | None:
    """Return the body of a response, or None."""
    # Not through a proxy that the environment names.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            body: bytes = answer.read()
            return body
    except (OSError, urllib.error.URLError):
        return None


def readable(line: str) -> str:
    """Return level, message and error of a line of Weaviate's log, without the other fields."""
    try:
        entry = json.loads(line)
        return " ".join(filter(None, [entry["level"], entry["msg"], entry.get("error", "")]))
    except (ValueError, TypeError, KeyError):
        return line
