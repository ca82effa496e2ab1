"""The servers that the other tests rely on: they start, keep their data, and leave nothing."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import pytest

from tools import weaviate
from tools.weaviate import servers

pytestmark = pytest.mark.weaviate

IDENTITY = str(uuid.UUID(int=7))
OWNER = """
import os, sys, time
from tools import weaviate
with weaviate.running() as cluster:
    node = cluster.nodes[0]
    # Such a child holds all that its parent had open.
    child = os.fork() if sys.argv[1:] else 1
    if child:
        print(node.pid, child, node.data.parent, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _server_available() -> None:
    reason = weaviate.available()
    if reason:
        pytest.skip(reason)


def call(port: int, path: str, body: dict[str, Any] | None = None) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        data=json.dumps(body).encode() if body else None,
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=240) as answer:
        return json.load(answer)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # One that was killed and that nobody has waited for yet still has its number.
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def test_one_node_keeps_its_data_when_it_is_killed() -> None:
    with weaviate.running() as cluster:
        node = cluster.nodes[0]
        assert call(node.http_port, "/v1/meta")["version"] == weaviate.VERSION
        assert cluster.url == f"weaviate://127.0.0.1:{node.http_port}?grpc={node.grpc_port}"
        call(node.http_port, "/v1/objects", {"class": "Kept", "id": IDENTITY, "vector": [0.6, 0.8]})
        before = node.pid
        node.kill()
        assert not node.is_ready()
        node.start()
        assert node.pid != before
        kept = call(node.http_port, f"/v1/objects/Kept/{IDENTITY}?include=vector")
        assert kept["vectors"]["default"] == pytest.approx([0.6, 0.8])
        folder = node.data.parent
    assert not folder.exists()


@pytest.mark.slow
def test_three_nodes_are_one_cluster_and_a_killed_one_comes_back() -> None:
    with weaviate.running(nodes=3) as cluster:
        assert [weaviate.healthy(node.http_port) for node in cluster.nodes] == [3, 3, 3]
        cluster.nodes[0].kill()
        assert cluster.nodes[1].is_ready()
        cluster.nodes[0].start()
        cluster.wait_ready()


@pytest.mark.parametrize("forked", [False, True], ids=["alone", "with a forked child"])
def test_servers_die_with_the_process_that_started_them(forked: bool) -> None:
    command = [sys.executable, "-c", OWNER, *(["fork"] if forked else [])]
    root = Path(__file__).parents[1]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root)
    assert owner.stdout is not None
    server, child, folder = owner.stdout.readline().split(maxsplit=2)
    assert is_running(int(server))
    owner.kill()
    owner.wait()
    owner.stdout.close()
    until = time.monotonic() + 60
    while is_running(int(server)) or Path(folder.strip()).exists():
        assert time.monotonic() < until, "the server outlived its owner"
        time.sleep(0.05)
    if forked:
        os.kill(int(child), signal.SIGKILL)


def test_a_running_server_is_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEAVIATE_URL", "weaviate://elsewhere:1234")
    with weaviate.serving() as url:
        assert url == "weaviate://elsewhere:1234"


@pytest.mark.slow
def test_a_port_that_was_taken_in_between_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    free_block = weaviate.free_block
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        blocks = [taken]
        monkeypatch.setattr(
            servers,
            "free_block",
            lambda size, used=(): blocks.pop() if blocks else free_block(size, used),
        )
        with weaviate.running() as cluster:
            assert cluster.nodes[0].http_port != taken
    assert not blocks


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        taken = pytest.raises(weaviate.ServerUnavailable, match=f"port {port} is in use")
        with taken, weaviate.running(port=port, grpc_port=port + 1):
            pass


def test_a_server_that_ends_shows_the_end_of_its_log() -> None:
    wrong = {"DISK_USE_READONLY_PERCENTAGE": "much"}
    shown = pytest.raises(weaviate.ServerUnavailable, match="DISK_USE_READONLY_PERCENTAGE")
    with shown, weaviate.running(environment=wrong):
        pass


def test_a_binary_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WEAVIATE_BINARY", str(tmp_path / "nothing"))
    assert "nothing" in (weaviate.available() or "")
