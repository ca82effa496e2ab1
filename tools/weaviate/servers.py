"""Start, stop and kill the nodes of a Weaviate cluster on 127.0.0.1."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tools.weaviate.binary import NICENESS, ServerUnavailable, find_binary
from tools.weaviate.probe import (
    free_block,
    healthy,
    is_free,
    is_ready,
    listens,
    readable,
    wait_until,
)
from tools.weaviate.watchdog import Watchdog

READY_SECONDS = 90.0
STOP_SECONDS = 20.0
START_ATTEMPTS = 4
PORT_TAKEN = "address already in use"


@dataclass(frozen=True)
class Ports:
    """The ports of one node. Weaviate also uses gossip + 1 and raft + 1."""

    http: int
    grpc: int
    gossip: int
    raft: int


@dataclass
class Node:
    """One server process of a cluster, on 127.0.0.1."""

    name: str
    ports: Ports
    data: Path
    log: Path
    environment: Mapping[str, str]
    binary: Path
    watchdog: Watchdog
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def http_port(self) -> int:
        """Port of REST and GraphQL."""
        return self.ports.http

    @property
    def grpc_port(self) -> int:
        """Port of gRPC."""
        return self.ports.grpc

    @property
    def pid(self) -> int:
        """Process ID of the server. Raises ServerUnavailable while it is not running."""
        if self._process is None:
            raise ServerUnavailable(f"{self.name} is not running")
        return self._process.pid

    @property
    def url(self) -> str:
        """URL of this node, for imgsearch's --store."""
        return f"weaviate://127.0.0.1:{self.http_port}?grpc={self.grpc_port}"

    def start(self, *, wait: bool = True) -> None:
        """Start on the same ports and data as before, and wait until it is ready.

        A cluster that was stopped as a whole gets ready only once most of its nodes run: start them
        with wait=False, then call Cluster.wait_ready.
        """
        if self._process is not None:
            if self._process.poll() is None:
                return
            self.watchdog.forget(self._process.pid)
        self.data.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = _launch(self.binary, self.ports, self.environment, self.data, log)
        self.watchdog.watch(self._process.pid)
        if wait:
            self.wait_ready()

    def kill(self) -> None:
        """Send SIGKILL, to simulate a crash."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Shut it down; kill it if that takes more than STOP_SECONDS."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self.watchdog.forget(process.pid)

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        """Wait until REST is ready and gRPC accepts connections, else raise ServerUnavailable."""
        wait_until(lambda: self._running() and self.is_ready(), seconds, self._not_ready)

    def is_ready(self) -> bool:
        """Return whether it accepts requests now."""
        return is_ready(self.http_port) and listens(self.grpc_port)

    def _running(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise self._not_ready()
        return True

    def _not_ready(self) -> ServerUnavailable:
        code = self._process.poll() if self._process else None
        state = "did not become ready" if code is None else f"ended with exit code {code}"
        return ServerUnavailable(
            f"Weaviate {self.name} {state}; the end of its log:\n{self._tail()}"
        )

    def _tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-15:]
        return "\n".join(readable(line) for line in lines)

    def port_was_taken(self) -> bool:
        """Return whether it exited because another process used one of its ports."""
        ended = self._process is not None and self._process.poll() is not None
        return ended and PORT_TAKEN in self.log.read_text(errors="replace")


@dataclass
class Cluster:
    """Servers that were started together; also a single node."""

    nodes: list[Node]

    @property
    def url(self) -> str:
        """URL of the first node, for imgsearch's --store."""
        return self.nodes[0].url

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        """Wait until every node is ready and sees all others as healthy."""
        until = time.monotonic() + seconds
        for node in self.nodes:
            node.wait_ready(until - time.monotonic())
        if len(self.nodes) == 1:
            return
        for node in self.nodes:
            self._wait_for_peers(node, until - time.monotonic())

    def _wait_for_peers(self, node: Node, seconds: float) -> None:
        count = len(self.nodes)
        failure = ServerUnavailable(f"{node.name} does not see its {count - 1} peers")
        wait_until(lambda: healthy(node.http_port) == count, seconds, lambda: failure)


@contextlib.contextmanager
def running(
    nodes: int = 1,
    *,
    data: Path | None = None,
    environment: Mapping[str, str] | None = None,
    port: int | None = None,
    grpc_port: int | None = None,
) -> Iterator[Cluster]:
    """Start servers on free ports of 127.0.0.1, wait until they are ready, and end them on exit.

    `data` is the folder for the data, by default a temporary folder that is deleted. `environment`
    is added to that of every node. `port` and `grpc_port` are those of the first node; the others
    get the next ones.
    """
    binary = find_binary()
    with contextlib.ExitStack() as stack:
        folder = data
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="imgsearch-weaviate-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        watchdog = stack.enter_context(Watchdog([] if data else ["rm", "-rf", str(folder)]))
        requested = _requested_ports(nodes, port, grpc_port)
        cluster = _start(binary, folder, requested, environment or {}, watchdog)
        try:
            yield cluster
        finally:
            _end(cluster, gracefully=data is not None)


def _requested_ports(
    nodes: int, port: int | None, grpc_port: int | None
) -> list[tuple[int, int] | None]:
    if port is None or grpc_port is None:
        return [None] * nodes
    return [(port + index, grpc_port + index) for index in range(nodes)]


def _start(
    binary: Path,
    folder: Path,
    requested: Sequence[tuple[int, int] | None],
    environment: Mapping[str, str],
    watchdog: Watchdog,
) -> Cluster:
    """Start the nodes; retry on other ports if one was taken in the meantime."""
    for attempt in range(START_ATTEMPTS):
        cluster = _cluster(binary, folder, requested, environment, watchdog)
        try:
            for node in cluster.nodes:
                node.start(wait=False)
            cluster.wait_ready()
        except ServerUnavailable:
            taken = any(node.port_was_taken() for node in cluster.nodes)
            _end(cluster, gracefully=False)
            if not taken or attempt == START_ATTEMPTS - 1:
                raise
        except BaseException:
            _end(cluster, gracefully=False)
            raise
        else:
            return cluster
    raise AssertionError("the last attempt returns or raises")


def _cluster(
    binary: Path,
    folder: Path,
    requested: Sequence[tuple[int, int] | None],
    environment: Mapping[str, str],
    watchdog: Watchdog,
) -> Cluster:
    ports = _free_ports(requested)
    common = _common_environment(ports)
    folder.mkdir(parents=True, exist_ok=True)
    nodes = []
    for index, own in enumerate(ports):
        log = folder / f"node{index}.log"
        log.write_bytes(b"")
        settings = {**common, **_node_environment(index, ports), **environment}
        nodes.append(
            Node(f"node{index}", own, folder / f"node{index}", log, settings, binary, watchdog)
        )
    return Cluster(nodes)


def _common_environment(ports: Sequence[Ports]) -> dict[str, str]:
    cores = os.cpu_count() or 2
    raft = ",".join(f"node{index}:{own.raft}" for index, own in enumerate(ports))
    return {
        **{name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ},
        "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "true",
        "DEFAULT_VECTORIZER_MODULE": "none",
        "CLUSTER_IN_LOCALHOST": "true",
        "CLUSTER_BIND_ADDR": "127.0.0.1",
        "CLUSTER_ADVERTISE_ADDR": "127.0.0.1",
        # The traffic between nodes listens on every interface, which no setting changes: so it
        # requires a random password.
        "CLUSTER_BASIC_AUTH_USERNAME": "node",
        "CLUSTER_BASIC_AUTH_PASSWORD": secrets.token_hex(16),
        "RAFT_JOIN": raft,
        "RAFT_BOOTSTRAP_EXPECT": str(len(ports)),
        # A single node waits for no heartbeat: it is ready in half the time.
        **({"RAFT_TIMEOUTS_MULTIPLIER": "1"} if len(ports) == 1 else {}),
        "DISABLE_TELEMETRY": "true",
        "GO_PROFILING_DISABLE": "true",
        # Nodes share the cores; with a single thread, a busy node misses heartbeats.
        "GOMAXPROCS": str(max(2, cores // len(ports))),
        # A full disk of the developer must not make collections read-only.
        "DISK_USE_WARNING_PERCENTAGE": "0",
        "DISK_USE_READONLY_PERCENTAGE": "0",
    }


def _node_environment(index: int, ports: Sequence[Ports]) -> dict[str, str]:
    own = ports[index]
    # Every node knows every other, so that any of them can be killed and restarted.
    others = [f"127.0.0.1:{peer.gossip}" for peer in ports if peer is not own]
    settings = {
        "CLUSTER_HOSTNAME": f"node{index}",
        "CLUSTER_GOSSIP_BIND_PORT": str(own.gossip),
        "CLUSTER_DATA_BIND_PORT": str(own.gossip + 1),
        "RAFT_PORT": str(own.raft),
        "RAFT_INTERNAL_RPC_PORT": str(own.raft + 1),
        "GRPC_PORT": str(own.grpc),
    }
    return {**settings, "CLUSTER_JOIN": ",".join(others)} if others else settings


def _launch(
    binary: Path, ports: Ports, environment: Mapping[str, str], data: Path, log: IO[bytes]
) -> subprocess.Popen[bytes]:
    command = ["nice", "-n", str(NICENESS), str(binary)]
    command += ["--host", "127.0.0.1", "--port", str(ports.http), "--scheme", "http"]
    try:
        # A separate session: Ctrl-C reaches this process only, which stops the servers in order.
        return subprocess.Popen(
            command,
            env={**environment, "PERSISTENCE_DATA_PATH": str(data)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=data,
            start_new_session=True,
        )
    except OSError as error:
        raise ServerUnavailable(f"{binary} could not be started: {error}") from error


def _end(cluster: Cluster, *, gracefully: bool) -> None:
    """End all nodes at the same time, as each may take seconds to shut down."""
    for node in cluster.nodes:
        if gracefully and node._process is not None:
            node._process.terminate()
    for node in cluster.nodes:
        if gracefully:
            node.stop()
        else:
            node.kill()


def _free_ports(requested: Sequence[tuple[int, int] | None]) -> list[Ports]:
    """Return ports for each node, with HTTP and gRPC as requested."""
    taken = {port for pair in requested if pair for port in pair}
    busy = sorted(port for port in taken if not is_free(port))
    if busy:
        raise ServerUnavailable(
            f"port {busy[0]} is in use, perhaps by another Weaviate: stop it, or choose other "
            "ports with --port and --grpc-port"
        )
    found = []
    for pair in requested:
        first = free_block(6, taken)
        taken.update(range(first, first + 6))
        http, grpc = pair or (first, first + 1)
        found.append(Ports(http, grpc, gossip=first + 2, raft=first + 4))
    return found
