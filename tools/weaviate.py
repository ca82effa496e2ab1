"""A real Weaviate server without Docker: found or built, started, and gone afterwards.

From a shell (`make weaviate`, `make weaviate-cluster`):

    python tools/weaviate.py start [--nodes 3]   # in the foreground until Ctrl-C
    python tools/weaviate.py path                # the server binary, built if need be

From a test:

    with weaviate.running(nodes=3) as cluster:
        use(cluster.url)
        cluster.nodes[1].kill()

Needs nothing but the standard library, and Go with a C compiler to build the server once.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import mmap
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO

# The one place for the version. 1.39.3 is the newest that builds from the Go module proxy.
VERSION = "1.39.3"
PACKAGE = "github.com/weaviate/weaviate/cmd/weaviate-server"

READY_SECONDS = 90.0
STOP_SECONDS = 20.0
BUILD_SECONDS = 3600
COMPOSE_SECONDS = 600  # with the image to be pulled first
COMPOSE_FILE = Path(__file__).resolve().parents[1] / "docker-compose.yml"
# Below the range from which Linux and macOS hand out ports of their own accord, so that a node
# that was killed finds its ports still free when it starts again.
PORTS = range(20_000, 32_000)
START_ATTEMPTS = 4
NICENESS = 5
PORT_TAKEN = "address already in use"
# Servers die with the process that started them, however it ends: kill -9 closes the pipe too, and
# where a forked child of it keeps the pipe open, the watchdog has another parent from then on.
# One line tells it of a server ("+PID"), of its end ("-PID"), or that all is in order ("done").
# Its arguments are a command to run after an end that was not in order.
WATCHDOG = """
import os, signal, subprocess, sys, threading, time
pids = set()
owner = os.getppid()

def clean_up():
    for pid in tuple(pids):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    if sys.argv[1:]:
        subprocess.run(sys.argv[1:])
    os._exit(0)

def look_for_owner():
    while os.getppid() == owner:
        time.sleep(0.5)
    clean_up()

threading.Thread(target=look_for_owner, daemon=True).start()
for line in sys.stdin:
    if line == "done\\n":
        os._exit(0)
    (pids.add if line[0] == "+" else pids.discard)(int(line[1:]))
clean_up()
"""


class ServerUnavailable(Exception):  # noqa: N818  (no error of ours: there is none here)
    """There is no Weaviate server to be had here; the text says why and what would help."""


# --- the binary ---------------------------------------------------------------------------------


def find_binary() -> Path:
    """The server binary of VERSION: $WEAVIATE_BINARY, one built before, or built now with Go.

    Raises ServerUnavailable when there is none and none can be built.
    """
    given = os.environ.get("WEAVIATE_BINARY")
    if given:
        return _given_binary(Path(given))
    return _built_binary() or _build()


def _given_binary(path: Path) -> Path:
    if not os.access(path, os.X_OK) or path.is_dir():
        raise ServerUnavailable(f"WEAVIATE_BINARY is {path}, which is no executable file")
    return path


def _built_binary() -> Path | None:
    """A binary of the right version, from an earlier build of ours or an earlier `go install`."""
    cached = _cached_binary()
    if os.access(cached, os.X_OK):
        return cached
    for folder in _go_bin_folders():
        binary = folder / "weaviate-server"
        if os.access(binary, os.X_OK) and is_version(binary, VERSION):
            return binary
    return None


def is_version(binary: Path, version: str) -> bool:
    """Whether a Go binary was built from this version of Weaviate's module.

    Go writes the module's version into what it builds; looking there needs neither a start
    (the server has no --version) nor Go.
    """
    if not binary.stat().st_size:
        return False
    wanted = f"mod\tgithub.com/weaviate/weaviate\tv{version}\t".encode()
    with binary.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return text.find(wanted) >= 0


def cache_folder() -> Path:
    """Where binaries are kept, outside the working tree: the platform's cache folder."""
    return _platform_folder("XDG_CACHE_HOME", "Library/Caches", ".cache") / "imgsearch"


def _data_folder() -> Path:
    return _platform_folder("XDG_DATA_HOME", "Library/Application Support", ".local/share") / (
        "imgsearch"
    )


def _platform_folder(variable: str, mac: str, other: str) -> Path:
    if sys.platform == "darwin":
        return Path.home() / mac
    return Path(os.environ.get(variable) or Path.home() / other)


def _cached_binary() -> Path:
    return cache_folder() / f"weaviate-server-{VERSION}"


def _go_bin_folders() -> list[Path]:
    """Where `go install` puts programs: $GOBIN, else bin in each folder of $GOPATH."""
    folders = [Path(os.environ["GOBIN"])] if os.environ.get("GOBIN") else []
    paths = os.environ.get("GOPATH") or str(Path.home() / "go")
    return folders + [Path(path) / "bin" for path in paths.split(os.pathsep) if path]


def _build() -> Path:
    """Build the server into the cache: about five minutes and 4 GB of Go's caches, once."""
    reason = _cannot_build()
    if reason:
        raise ServerUnavailable(reason)
    import fcntl  # not on Windows

    target = _cached_binary()
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(f"{target.name}.lock").open("w") as lock:
        # Two processes building at once would take twice as long, for the same file.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            _go_install(target)
    return target


def _cannot_build() -> str | None:
    if os.name == "nt":
        return "a Weaviate server can't be built on Windows: start one by docker compose"
    if not shutil.which("go"):
        return (
            f"no Weaviate {VERSION} server and no Go to build it with: install Go 1.26 or newer, "
            "or set WEAVIATE_BINARY to a server binary, or WEAVIATE_URL to a running server"
        )
    if not any(shutil.which(name) for name in _c_compilers()):
        return "Weaviate needs a C compiler to be built: install gcc or clang, or set CC"
    return None


def _c_compilers() -> list[str]:
    return [os.environ.get("CC", "cc").split()[0], "gcc", "clang"]


def _go_install(target: Path) -> None:
    started = time.monotonic()
    _say(f"Building Weaviate {VERSION} with Go: about 5 minutes the first time, then cached.")
    # In the folder of the target, so that the rename at the end is atomic.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="build-") as folder:
        _run_go(Path(folder))
        (Path(folder) / "weaviate-server").replace(target)
    _say(f"Built {target} in {time.monotonic() - started:.0f} s.")


def _run_go(folder: Path) -> None:
    command = ["nice", "-n", str(NICENESS), "go", "install"]
    command += ["-ldflags", "-s -w", f"{PACKAGE}@v{VERSION}"]
    environment = {**os.environ, "CGO_ENABLED": "1", "GOBIN": str(folder)}
    try:
        done = subprocess.run(
            command,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            timeout=BUILD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ServerUnavailable(f"building Weaviate {VERSION} took over an hour") from error
    if done.returncode:
        tail = "\n".join(done.stderr.splitlines()[-15:])
        raise ServerUnavailable(f"Weaviate {VERSION} could not be built by `go install`:\n{tail}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# --- servers ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ports:
    """The ports of one node. Gossip + 1 and raft + 1 are its own too, as Weaviate expects."""

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
        """The port of REST and GraphQL."""
        return self.ports.http

    @property
    def grpc_port(self) -> int:
        """The port of gRPC."""
        return self.ports.grpc

    @property
    def pid(self) -> int:
        """The process id of the server; an error while it does not run."""
        if self._process is None:
            raise ServerUnavailable(f"{self.name} is not running")
        return self._process.pid

    @property
    def url(self) -> str:
        """This node as imgsearch's --store takes it."""
        return f"weaviate://127.0.0.1:{self.http_port}?grpc={self.grpc_port}"

    def start(self, *, wait: bool = True) -> None:
        """Start on the same ports and data as before; returns when it is ready.

        With wait=False it returns at once: of a cluster that was stopped as a whole no node gets
        ready before most of them run (then Cluster.wait_ready).
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
        """SIGKILL, as a crash or a power cut would end it."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to shut down, and kill it when it does not within STOP_SECONDS."""
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
        """Return when REST says ready and gRPC accepts connections; else ServerUnavailable."""
        _wait(lambda: self._running() and self.is_ready(), seconds, self._not_ready)

    def is_ready(self) -> bool:
        """Whether it takes requests now."""
        return _answers(self.http_port) and _listens(self.grpc_port)

    def _running(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise self._not_ready()
        return True

    def _not_ready(self) -> ServerUnavailable:
        code = self._process.poll() if self._process else None
        state = "did not get ready" if code is None else f"ended with exit code {code}"
        return ServerUnavailable(
            f"Weaviate {self.name} {state}; the end of its log:\n{self._tail()}"
        )

    def _tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-15:]
        return "\n".join(readable(line) for line in lines)

    def port_was_taken(self) -> bool:
        """Whether it ended because another process had one of its ports."""
        ended = self._process is not None and self._process.poll() is not None
        return ended and PORT_TAKEN in self.log.read_text(errors="replace")


@dataclass
class Cluster:
    """Servers that were started together; one node is a cluster too."""

    nodes: list[Node]

    @property
    def url(self) -> str:
        """The first node, as imgsearch's --store takes it."""
        return self.nodes[0].url

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        """Return when every node is ready and sees all the others healthy."""
        until = time.monotonic() + seconds
        for node in self.nodes:
            node.wait_ready(until - time.monotonic())
        if len(self.nodes) == 1:
            return
        for node in self.nodes:
            self._wait_for_peers(node, until - time.monotonic())

    def _wait_for_peers(self, node: Node, seconds: float) -> None:
        count = len(self.nodes)
        failure = ServerUnavailable(f"{node.name} does not find its {count - 1} peers")
        _wait(lambda: healthy(node.http_port) == count, seconds, lambda: failure)


@contextlib.contextmanager
def running(
    nodes: int = 1,
    *,
    data: Path | None = None,
    environment: Mapping[str, str] | None = None,
    port: int | None = None,
    grpc_port: int | None = None,
) -> Iterator[Cluster]:
    """Servers on free ports of 127.0.0.1, ready; they are gone when the block is left.

    data is kept; without it the data lies in a temporary folder that is removed. environment is
    added to every node's. port and grpc_port are the first node's; the others get the next ones.
    """
    binary = find_binary()
    with contextlib.ExitStack() as stack:
        folder = data
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="imgsearch-weaviate-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        watchdog = stack.enter_context(Watchdog([] if data else ["rm", "-rf", str(folder)]))
        wishes = _wishes(nodes, port, grpc_port)
        cluster = _start(binary, folder, wishes, environment or {}, watchdog)
        try:
            yield cluster
        finally:
            _end(cluster, gracefully=data is not None)


def _wishes(nodes: int, port: int | None, grpc_port: int | None) -> list[tuple[int, int] | None]:
    if port is None or grpc_port is None:
        return [None] * nodes
    return [(port + index, grpc_port + index) for index in range(nodes)]


def _start(
    binary: Path,
    folder: Path,
    wishes: Sequence[tuple[int, int] | None],
    environment: Mapping[str, str],
    watchdog: Watchdog,
) -> Cluster:
    """Start the nodes; on other ports when somebody took one in between."""
    for attempt in range(START_ATTEMPTS):
        cluster = _cluster(binary, folder, wishes, environment, watchdog)
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
    wishes: Sequence[tuple[int, int] | None],
    environment: Mapping[str, str],
    watchdog: Watchdog,
) -> Cluster:
    ports = _free_ports(wishes)
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
        # The nodes' own traffic listens on every interface, and no setting changes that: so it
        # asks for a password that nobody else knows.
        "CLUSTER_BASIC_AUTH_USERNAME": "node",
        "CLUSTER_BASIC_AUTH_PASSWORD": secrets.token_hex(16),
        "RAFT_JOIN": raft,
        "RAFT_BOOTSTRAP_EXPECT": str(len(ports)),
        # A node alone has nobody's heartbeat to wait for: it is ready in half the time.
        **({"RAFT_TIMEOUTS_MULTIPLIER": "1"} if len(ports) == 1 else {}),
        "DISABLE_TELEMETRY": "true",
        "GO_PROFILING_DISABLE": "true",
        # Several nodes share the cores; with one thread alone a busy node misses heartbeats.
        "GOMAXPROCS": str(max(2, cores // len(ports))),
        # A full disk of the developer's is no reason for a collection to turn read-only.
        "DISK_USE_WARNING_PERCENTAGE": "0",
        "DISK_USE_READONLY_PERCENTAGE": "0",
    }


def _node_environment(index: int, ports: Sequence[Ports]) -> dict[str, str]:
    own = ports[index]
    # Every node knows every other, so that any of them can be killed and come back.
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
        # A session of its own: Ctrl-C is for us, and we then stop the servers in order.
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
    """End all nodes; together, as each may take seconds to shut down."""
    for node in cluster.nodes:
        if gracefully and node._process is not None:
            node._process.terminate()
    for node in cluster.nodes:
        if gracefully:
            node.stop()
        else:
            node.kill()


class Watchdog:
    """A small process that ends the servers when the process that started them is gone."""

    def __init__(self, command: Sequence[str]) -> None:
        """Command cleans up what else would be left."""
        self._command = command

    def __enter__(self) -> Watchdog:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", WATCHDOG, *self._command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._tell("done")
        self._process.communicate()

    def watch(self, pid: int) -> None:
        """Kill this process at the end."""
        self._tell(f"+{pid}")

    def forget(self, pid: int) -> None:
        """It has ended; its number may soon be another's."""
        self._tell(f"-{pid}")

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        # Somebody may have ended the watchdog; the servers run all the same.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()


# --- ports and readiness ------------------------------------------------------------------------


def _free_ports(wishes: Sequence[tuple[int, int] | None]) -> list[Ports]:
    """Ports for each node, http and gRPC as wished where they were."""
    taken = {port for wish in wishes if wish for port in wish}
    busy = sorted(port for port in taken if not _is_free(port))
    if busy:
        raise ServerUnavailable(
            f"port {busy[0]} is in use, perhaps by another Weaviate: stop it, or choose other "
            "ports with --port and --grpc-port"
        )
    found = []
    for wish in wishes:
        first = free_block(6, taken)
        taken.update(range(first, first + 6))
        http, grpc = wish or (first, first + 1)
        found.append(Ports(http, grpc, gossip=first + 2, raft=first + 4))
    return found


def free_block(size: int, taken: Collection[int] = ()) -> int:
    """The first of some neighbouring ports that nobody has; at random, as others look too."""
    for _ in range(200):
        # Not by the generator that a test may have seeded, as then all would look in one order.
        first = PORTS.start + secrets.randbelow(len(PORTS) - size)
        block = range(first, first + size)
        if not set(taken).intersection(block) and all(map(_is_free, block)):
            return first
    raise ServerUnavailable(f"no {size} neighbouring free ports in {PORTS.start}-{PORTS.stop}")


def _is_free(port: int) -> bool:
    """Whether nobody listens there: gRPC listens on every interface, and gossip uses UDP too."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM:
                # As the server does: connections that are closing do not count.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))  # noqa: S104  (it is closed at once)
            except OSError as error:
                if error.errno in (errno.EADDRINUSE, errno.EACCES):
                    return False
                raise
    return True


def _wait(
    condition: Callable[[], bool], seconds: float, failure: Callable[[], ServerUnavailable]
) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise failure()
        time.sleep(0.1)


def _get(port: int, path: str) -> bytes | None:
    """What the server on this port answers, or None."""
    # Never by way of a proxy that the environment names.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            body: bytes = answer.read()
            return body
    except (OSError, urllib.error.URLError):
        return None


def _answers(port: int) -> bool:
    return _get(port, "/v1/.well-known/ready") is not None


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def healthy(port: int) -> int:
    """How many nodes the server on this port sees in its cluster and finds healthy."""
    answer = _get(port, "/v1/nodes")
    nodes = json.loads(answer)["nodes"] if answer else []
    return sum(node["status"] == "HEALTHY" for node in nodes)


def readable(line: str) -> str:
    """What a line of Weaviate's log says, without the fields that repeat in every line."""
    try:
        entry = json.loads(line)
        return " ".join(filter(None, [entry["level"], entry["msg"], entry.get("error", "")]))
    except (ValueError, TypeError, KeyError):
        return line


# --- which server -------------------------------------------------------------------------------


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """The URL of a server for tests that neither stop nor configure it.

    In this order: the running one that WEAVIATE_URL names, one by Docker Compose where an engine
    answers, one of our own.
    """
    with contextlib.ExitStack() as stack:
        yield existing() or _composed(stack) or stack.enter_context(running()).url


def _composed(stack: contextlib.ExitStack) -> str | None:
    """A server from docker-compose.yml as a project apart; None where that can't be had."""
    if not _compose_works():
        return None
    port = free_block(2)
    project = f"imgsearch-test-{secrets.token_hex(4)}"
    settings = {"WEAVIATE_PORT": str(port), "WEAVIATE_GRPC_PORT": str(port + 1)}
    down = ["docker", "compose", "-p", project, "down", "--volumes"]
    stack.enter_context(Watchdog(down))
    stack.callback(_runs, down)
    up = [
        "docker",
        "compose",
        "-f",
        str(COMPOSE_FILE),
        "-p",
        project,
        "up",
        "-d",
        "--wait",
        "weaviate",
    ]
    if _runs(up, environment={**os.environ, **settings}, timeout=COMPOSE_SECONDS):
        return f"weaviate://127.0.0.1:{port}?grpc={port + 1}"
    _say("Docker Compose brings no server up; going on with one of our own.")
    return None


def _compose_works() -> bool:
    """Whether an engine answers and docker knows compose."""
    if not shutil.which("docker"):
        return False
    # Without --format `docker info` succeeds where there is no engine.
    answers = _runs(["docker", "info", "--format", "{{.ServerVersion}}"], timeout=30)
    return answers and _runs(["docker", "compose", "version"], timeout=30)


def _runs(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    timeout: float = COMPOSE_SECONDS,
) -> bool:
    """Whether a program ends well."""
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, timeout=timeout, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def existing() -> str | None:
    """The running server that WEAVIATE_URL names, or None."""
    return os.environ.get("WEAVIATE_URL") or None


def available() -> str | None:
    """None when `running` can be expected to work here; else the reason why not.

    Cheap: it builds nothing. Where a build is needed and fails, `running` says so.
    """
    if os.environ.get("WEAVIATE_BINARY"):
        try:
            find_binary()
        except ServerUnavailable as error:
            return str(error)
        return None
    return None if _built_binary() else _cannot_build()


# --- the command --------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "path":
            print(find_binary())
        else:
            _serve(options)
    except ServerUnavailable as error:
        _say(f"Error: {error}")
        return 1
    except KeyboardInterrupt:
        pass
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=f"Weaviate {VERSION} on this computer.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("path", help="print the server binary; builds it if need be")
    start = commands.add_parser("start", help="run until Ctrl-C; what was stored is kept")
    start.add_argument("--nodes", type=int, choices=(1, 3), default=1)
    start.add_argument("--port", type=int, default=8080, help="HTTP (more nodes: the next ones)")
    start.add_argument("--grpc-port", type=int, default=50051, help="gRPC (the same)")
    start.add_argument("--data", type=Path, help="where to keep the data")
    return parser


def _serve(options: argparse.Namespace) -> None:
    data = options.data or _data_folder() / f"weaviate-{options.nodes}"
    # SIGTERM ends it as Ctrl-C does, with the servers stopped in order.
    signal.signal(signal.SIGTERM, _interrupt)
    _say(f"Starting Weaviate {VERSION}, {options.nodes} node(s), data in {data} ...")
    with running(
        options.nodes,
        data=data.resolve(),
        # This is the user's data: the server's own guard against a full disk stays on.
        environment={
            "DISK_USE_WARNING_PERCENTAGE": "80",
            "DISK_USE_READONLY_PERCENTAGE": "90",
            # As in docker-compose.yml: on the cluster every collection has three copies.
            "REPLICATION_MINIMUM_FACTOR": str(options.nodes),
        },
        port=options.port,
        grpc_port=options.grpc_port,
    ) as cluster:
        print(_usage(cluster, options), flush=True)
        try:
            while True:
                signal.pause()
        finally:
            _say("Stopping; the data is kept.")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _usage(cluster: Cluster, options: argparse.Namespace) -> str:
    default = (options.port, options.grpc_port) == (8080, 50051)
    url = "weaviate://localhost" if default else f"'{cluster.url}'"
    lines = ["Ready:", *(f"  {node.url}  (log: {node.log})" for node in cluster.nodes)]
    lines += [
        "Use it:",
        f"  imgsearch ingest DIR --store {url}",
        f"  imgsearch query PICTURE --store {url}",
        "Anyone who reaches this computer can use it without a key: Weaviate's gRPC port",
        "listens on every interface. On a network that you do not trust use a firewall, or",
        "docker-compose.yml, which binds it to 127.0.0.1. Ctrl-C stops it; the data is kept.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
