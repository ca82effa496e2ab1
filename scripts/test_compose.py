"""Proves docker-compose.yml with a real engine: `make test-compose`.

An engine that answers is used as it is, with the official image. Elsewhere, as root on Debian, an
engine of our own is started in namespaces of its own, so that nothing of it is left afterwards: no
process, mount, bridge or firewall rule, however the test ends. It has no network to pull from and
gets a stand-in under the official name: the server that scripts/weaviate.py builds, on BusyBox,
which is where the official image has its wget from too.

Where neither is possible it says "skipped" and why; with IMGSEARCH_NO_SKIPS set that is a failure.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from scripts import weaviate

ROOT = Path(__file__).resolve().parents[1]
COMPOSE_VERSION = "v5.6.0"
COMPOSE_PACKAGE = "github.com/docker/compose/v5/cmd"
IMAGE = f"cr.weaviate.io/semitechnologies/weaviate:{weaviate.VERSION}"
INSIDE = "--inside"
NAMESPACES = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
# The exit code by which the part in the namespaces says that it can't be done.
SKIPPED = 77
MEMORY = 1 << 30
HEALTHY_SECONDS = 180
PULL_SECONDS = 600
# The beginning of every HTTP/2 connection, with an empty SETTINGS frame behind it.
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
HTTP2_SETTINGS = 4


class Impossible(Exception):  # noqa: N818  (no error: it is a reason to skip)
    """The test cannot be made here; the text says why."""


@dataclass(frozen=True)
class Server:
    """One service of the compose file, and where it is published."""

    service: str
    port: int
    grpc_port: int


@dataclass(frozen=True)
class Docker:
    """The docker command with the engine, the compose plugin and the project to use."""

    environment: Mapping[str, str]
    project: str

    def run(self, *arguments: str, timeout: float = 300) -> str:
        """Run docker; its stdout. An error carries what it said."""
        return run("docker", *arguments, environment=self.environment, timeout=timeout)

    def compose(self, *arguments: str, timeout: float = 300) -> str:
        """Run docker compose on our file as this project; its stdout."""
        where = ["--project-directory", str(ROOT), "-p", self.project]
        return self.run("compose", *where, *arguments, timeout=timeout)


def run(*command: str, environment: Mapping[str, str] | None = None, timeout: float = 300) -> str:
    """Run a program; its stdout. An error carries what it said."""
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    if done.returncode:
        tail = (done.stderr or done.stdout).strip()[-3000:]
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{tail}")
    return done.stdout


def say(text: str) -> None:
    """Tell what is done, with the time of day: some of it takes minutes."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


# --- the test -----------------------------------------------------------------------------------


def check(docker: Docker, single: Server, cluster: list[Server]) -> None:
    """Everything that the compose file promises. Assertions say what does not hold."""
    try:
        check_ports(docker, single, cluster)
        check_single(docker, single)
        check_cluster(docker, cluster)
        check_serving(docker)
    except BaseException:
        with contextlib.suppress(RuntimeError):
            show(docker)
        raise
    finally:
        docker.compose("--profile", "cluster", "down", "--volumes", "--remove-orphans")
    left = docker.run("volume", "ls", "-q", "--filter", f"name={docker.project}_")
    assert not left, f"volumes left behind: {left}"
    say("down: nothing left")


def show(docker: Docker) -> None:
    """What the containers do and last said."""
    print(docker.compose("--profile", "cluster", "ps", "--all"))
    for line in docker.compose("--profile", "cluster", "logs", "--tail", "15").splitlines():
        name, _, text = line.partition(" | ")
        print(f"{name}: {weaviate.readable(text)}")


def check_ports(docker: Docker, single: Server, cluster: list[Server]) -> None:
    """The file as compose reads it publishes on 127.0.0.1 alone, and what it says it does."""
    text = docker.compose("--profile", "cluster", "config", "--format", "json")
    services = json.loads(text)["services"]
    for server in [single, *cluster]:
        published = services[server.service]["ports"]
        assert {port["host_ip"] for port in published} == {"127.0.0.1"}, published
        ports = [int(port["published"]) for port in published]
        assert ports == [server.port, server.grpc_port], published
        assert services[server.service]["image"] == IMAGE
    say("configuration: pinned image, published on 127.0.0.1 alone")


def check_single(docker: Docker, server: Server) -> None:
    """`docker compose up -d` is one server that is usable and keeps what it was given."""
    started = time.monotonic()
    docker.compose("up", "-d")
    wait_healthy(docker, server)
    say(f"up: healthy after {time.monotonic() - started:.0f} s")
    assert docker.compose("ps", "--services").split() == [server.service]
    check_bound(docker, server)
    check_memory(docker, server)
    assert speaks_http2(server.grpc_port), "nothing speaks gRPC on the gRPC port"
    identity = store(server)
    assert vector(server, identity) == [0.5, 0.25]
    say("a client stores and reads an object, without a key")
    docker.compose("restart")
    wait_healthy(docker, server)
    assert vector(server, identity) == [0.5, 0.25], "lost by a restart"
    docker.compose("down")
    docker.compose("up", "-d")
    wait_healthy(docker, server)
    assert vector(server, identity) == [0.5, 0.25], "lost by down and up"
    say("restart, and down and up: the object is still there")


def check_cluster(docker: Docker, servers: list[Server]) -> None:
    """`--profile cluster` is three nodes that hold a copy each and survive the loss of one."""
    started = time.monotonic()
    docker.compose("--profile", "cluster", "up", "-d", "--scale", "weaviate=0")
    wait_healthy(docker, *servers)
    for server in servers:
        wait_for_nodes(server, 3)
        check_bound(docker, server)
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
    wait_healthy(docker, *servers)
    for server in servers:
        wait_for_nodes(server, 3)
        assert vector(server, identity) == [0.5, 0.25], "lost by a restart"
    say("all restarted: three healthy nodes again, the object in each")


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


def wait_healthy(docker: Docker, *servers: Server) -> None:
    """Until the engine's health check, the one of the file, says so of each."""
    names = {server.service: container(docker, server) for server in servers}
    wait(
        lambda: all(health(docker, name) == "healthy" for name in names.values()),
        f"not healthy: one of {', '.join(names)}",
    )


def health(docker: Docker, name: str) -> str:
    """The engine's finding; starting, healthy or unhealthy."""
    return docker.run("inspect", "--format", "{{.State.Health.Status}}", name).strip()


def container(docker: Docker, server: Server) -> str:
    """The id of the container of a service."""
    return docker.compose("--profile", "cluster", "ps", "--all", "-q", server.service).strip()


def check_bound(docker: Docker, server: Server) -> None:
    """Its ports answer on 127.0.0.1, and on no other address of this computer."""
    name = container(docker, server)
    details = json.loads(docker.run("inspect", name))[0]["NetworkSettings"]
    bound = [place["HostIp"] for places in details["Ports"].values() for place in places or []]
    assert set(bound) == {"127.0.0.1"}, f"bound to {bound}"
    assert connects("127.0.0.1", server.port)
    # The bridge's address is one of this computer's own, reached from every other container.
    for network in details["Networks"].values():
        for port in (server.port, server.grpc_port):
            assert not connects(network["Gateway"], port), f"{network['Gateway']}:{port} answers"


def check_memory(docker: Docker, server: Server) -> None:
    """The kernel has the limit, and the server knows of it."""
    files = "/sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes"
    name = container(docker, server)
    limit = docker.run("exec", name, "sh", "-c", f"cat {files} 2>/dev/null || true").split()
    assert limit == [str(MEMORY)], f"memory limit {limit}, not {MEMORY}"
    logs = docker.compose("logs", "--no-color", server.service)
    assert re.search(rf'"limit":{int(MEMORY * 0.8)}\b', logs), "the server ignores the limit"
    say(f"memory limit: {MEMORY >> 20} MiB in the kernel, 80 % of it for Go")


def connects(host: str, port: int) -> bool:
    """Whether somebody accepts a connection there."""
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((host, port)) == 0


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


def wait(condition: Callable[[], bool], complaint: str) -> None:
    """Until it holds; an AssertionError when it does not in HEALTHY_SECONDS."""
    until = time.monotonic() + HEALTHY_SECONDS
    while not condition():
        assert time.monotonic() < until, f"{complaint} after {HEALTHY_SECONDS} s"
        time.sleep(0.5)


# --- an engine that answers ---------------------------------------------------------------------


def test_with_existing_engine(work: Path) -> None:
    """On the engine of this computer: the official image, ports that are free, a project apart."""
    docker = Docker(_client_environment(work, {}), f"imgsearch-test-{secrets.token_hex(4)}")
    try:
        docker.run("image", "inspect", IMAGE)
    except RuntimeError:
        say(f"pulling {IMAGE}")
        try:
            docker.run("pull", "-q", IMAGE, timeout=PULL_SECONDS)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            raise Impossible(f"the image cannot be pulled: {error}") from error
    ports = weaviate.free_block(8)
    servers = [
        Server(name, ports + 2 * index, ports + 2 * index + 1)
        for index, name in enumerate(["weaviate", "node1", "node2", "node3"])
    ]
    chosen = {}
    for server in servers:
        prefix = "" if server.service == "weaviate" else f"{server.service.upper()}_"
        chosen[f"WEAVIATE_{prefix}PORT"] = str(server.port)
        chosen[f"WEAVIATE_{prefix}GRPC_PORT"] = str(server.grpc_port)
    check(Docker({**docker.environment, **chosen}, docker.project), servers[0], servers[1:])


def _client_environment(work: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """With the compose plugin, and without what this shell may have set for compose."""
    kept = {name: text for name, text in os.environ.items() if not _is_setting(name)}
    environment = {**kept, "WEAVIATE_MEMORY": str(MEMORY), **settings}
    try:
        run("docker", "compose", "version", environment=environment)
    except RuntimeError:
        # Contexts and credentials of the user's own configuration are kept.
        own = Path(os.environ.get("DOCKER_CONFIG", Path.home() / ".docker"))
        config = Path(tempfile.mkdtemp(dir=work, prefix="docker-config-"))
        if own.is_dir():
            shutil.copytree(own, config, symlinks=True, dirs_exist_ok=True)
        (config / "cli-plugins").mkdir(parents=True, exist_ok=True)
        (config / "cli-plugins" / "docker-compose").symlink_to(compose_plugin())
        environment["DOCKER_CONFIG"] = str(config)
    return environment


def _is_setting(name: str) -> bool:
    return name.startswith(("COMPOSE_", "WEAVIATE_", "PROMETHEUS_"))


def compose_plugin() -> Path:
    """Docker Compose of our version: built before, or now with Go, in about a minute."""
    target = weaviate.cache_folder() / f"docker-compose-{COMPOSE_VERSION}"
    if not target.exists():
        if not shutil.which("go"):
            raise Impossible("no Docker Compose, and no Go to build it with")
        say(f"building Docker Compose {COMPOSE_VERSION}: about a minute the first time")
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix="build-") as folder:
            _build_compose(Path(folder)).replace(target)
    return target


def _build_compose(folder: Path) -> Path:
    """Its module can't be built by `go install`; as a tool of a module of its own it can."""
    built = folder / "docker-compose"
    link = f"-s -w -X github.com/docker/compose/v5/internal.Version={COMPOSE_VERSION}"
    steps = (
        ["go", "mod", "init", "compose"],
        ["go", "get", "-tool", f"{COMPOSE_PACKAGE}@{COMPOSE_VERSION}"],
        ["go", "build", "-ldflags", link, "-o", str(built), COMPOSE_PACKAGE],
    )
    for step in steps:
        done = subprocess.run(step, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Impossible(f"Docker Compose can't be built: {done.stderr.strip()[-1000:]}")
    return built


# --- an engine of our own -----------------------------------------------------------------------


def test_with_own_engine(work: Path) -> None:
    """Prepare what needs a network, then go on in namespaces of our own."""
    _require_own_engine()
    _install_engine()
    _client_environment(work, {})
    say("preparing the stand-in image: the server on BusyBox")
    make_image(work / "image.tar", weaviate.find_binary(), busybox(work))
    code = _in_namespaces(work)
    if code == SKIPPED:
        raise Impossible("an engine of our own does not run here, see above")
    if code:
        raise AssertionError("failed on our own engine, see above")


def _in_namespaces(work: Path) -> int:
    """Run the rest of the test where all of it ends with its first process; the exit code."""
    command = [*NAMESPACES, sys.executable, "-m", "scripts.test_compose", INSIDE, str(work)]
    # The folder is in use for a moment longer than the processes run.
    with weaviate.Watchdog(["sh", "-c", 'sleep 3; rm -rf "$0"', str(work)]) as watchdog:
        process = subprocess.Popen(command, cwd=ROOT)
        watchdog.watch(process.pid)
        try:
            return process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise


def _require_own_engine() -> None:
    if sys.platform != "linux" or os.geteuid() != 0:
        raise Impossible("no Docker engine answers, and only root on Linux can start one")
    if not shutil.which("apt-get"):
        raise Impossible("no Docker engine answers; installing one is only tried on Debian")
    if not all(shutil.which(name) for name in ("unshare", "ip")):
        raise Impossible("no Docker engine answers; for one of our own, install iproute2")
    if subprocess.run([*NAMESPACES, "true"], capture_output=True, check=False).returncode:
        raise Impossible("no Docker engine answers, and namespaces for our own are not allowed")


def _install_engine() -> None:
    """Debian's docker.io, on a machine that is set up for the occasion; nowhere else."""
    if shutil.which("dockerd") and shutil.which("docker"):
        return
    if Path("/run/systemd/system").exists():
        raise Impossible("no Docker engine; to have one: apt-get install docker.io")
    say("installing docker.io")
    apt("update", "-q")
    packages = ["docker.io", "iptables"]
    # From Debian 13 on the client is a package of its own.
    if subprocess.run(["apt-cache", "show", "docker-cli"], capture_output=True).returncode == 0:
        packages.append("docker-cli")
    apt("install", "-y", "-q", "--no-install-recommends", *packages)


def apt(*arguments: str, folder: Path | None = None) -> None:
    """Run apt-get; where it fails the test cannot be made."""
    # RUNLEVEL: what is installed does not start by itself.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    done = subprocess.run(
        ["apt-get", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Impossible(f"apt-get {arguments[0]} fails: {done.stderr.strip()[-800:]}")


def busybox(work: Path) -> Path:
    """BusyBox as one static file, without installing it; kept in the cache."""
    target = weaviate.cache_folder() / "busybox-static"
    if not target.exists():
        try:
            apt("download", "-q", "busybox-static", folder=work)
        except Impossible:
            apt("update", "-q")
            apt("download", "-q", "busybox-static", folder=work)
        package = next(work.glob("busybox-static_*.deb"))
        run("dpkg", "-x", str(package), str(work / "busybox"))
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.{os.getpid()}")
        shutil.copy2(work / "busybox" / "bin" / "busybox", partial)
        partial.replace(target)
    return target


def make_image(path: Path, server: Path, box: Path) -> None:
    """What the official image has and we use, as an archive of its files."""
    with tarfile.open(path, "w") as archive:
        archive.add(server, "bin/weaviate")
        archive.add(box, "bin/busybox")
        for name in ("sh", "cat", "wget"):
            _add_link(archive, f"bin/{name}", "busybox")
        # The official server is static; ours, with the C library of this computer, is not.
        for library in re.findall(r"(/\S+) \(0x", run("ldd", str(server))):
            archive.add(Path(library).resolve(), library.lstrip("/"))
        _add_folder(archive, "tmp")
        hosts = b"hosts: files dns\n"
        entry = tarfile.TarInfo("etc/nsswitch.conf")
        entry.size = len(hosts)
        archive.addfile(entry, io.BytesIO(hosts))


def _add_link(archive: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    archive.addfile(entry)


def _add_folder(archive: tarfile.TarFile, name: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, 0o1777
    archive.addfile(entry)


def inside(work: Path) -> None:
    """In the namespaces: start the engine, load the image, and test on the file's own ports."""
    run("ip", "link", "set", "lo", "up")
    with engine(work) as host:
        docker = Docker(_client_environment(work, {"DOCKER_HOST": host}), "imgsearch-test")
        change = ["--change", 'ENTRYPOINT ["/bin/weaviate"]']
        docker.run("import", *change, str(work / "image.tar"), IMAGE)
        single = Server("weaviate", 8080, 50051)
        cluster = [Server(f"node{index}", 8080 + index, 50051 + index) for index in (1, 2, 3)]
        check(docker, single, cluster)


@contextlib.contextmanager
def engine(work: Path) -> Iterator[str]:
    """A dockerd with all its files below work; yields what DOCKER_HOST must be."""
    host = f"unix://{work}/docker.sock"
    command = ["dockerd", "-H", host, "--pidfile", f"{work}/docker.pid", "--bridge", "none"]
    command += ["--data-root", f"{work}/data", "--exec-root", f"{work}/exec"]
    command += ["--cgroup-parent", f"/{work.name}"]
    log = work / "dockerd.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        until = time.monotonic() + 60
        while not _answers({**os.environ, "DOCKER_HOST": host}):
            if process.poll() is not None or time.monotonic() > until:
                tail = "\n".join(log.read_text().splitlines()[-15:])
                raise Impossible(f"dockerd does not start here:\n{tail}")
            time.sleep(0.3)
        yield host
    finally:
        process.terminate()
        process.wait(60)


def _answers(environment: Mapping[str, str]) -> bool:
    # Without an engine `docker info` fails only when it is asked for something of the engine's.
    try:
        version = run(
            "docker", "info", "--format", "{{.ServerVersion}}", environment=environment, timeout=30
        )
    except (RuntimeError, OSError, subprocess.TimeoutExpired):
        return False
    return bool(version.strip())


# --- the command --------------------------------------------------------------------------------


def main(arguments: list[str]) -> int:
    """The command line; returns the exit code."""
    # SIGTERM cleans up as Ctrl-C does; as first process of its namespace it would be ignored.
    signal.signal(signal.SIGTERM, _interrupt)
    started = time.monotonic()
    within = arguments[:1] == [INSIDE]
    try:
        if within:
            inside(Path(arguments[1]))
            return 0
        _test()
    except (Impossible, weaviate.ServerUnavailable) as error:
        return _skip(str(error), within=within)
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except (AssertionError, RuntimeError, subprocess.SubprocessError) as error:
        say(f"FAILED: {error}")
        return 1
    say(f"passed in {time.monotonic() - started:.0f} s")
    return 0


def _test() -> None:
    work = Path(tempfile.mkdtemp(prefix="imgsearch-compose-"))
    try:
        if shutil.which("docker") and _answers(os.environ):
            test_with_existing_engine(work)
        else:
            test_with_own_engine(work)
    finally:
        _remove(work)


def _remove(work: Path) -> None:
    """The folder of an engine, which may be in use for a moment longer, and its control groups."""
    for _ in range(100):
        shutil.rmtree(work, ignore_errors=True)
        tree = Path("/sys/fs/cgroup")
        groups = [*tree.glob(work.name), *tree.glob(f"*/{work.name}")]
        for group in groups:
            # Those of containers that were ended along with everything are still below it.
            for folder in sorted(group.glob("**/"), reverse=True):
                with contextlib.suppress(OSError):
                    folder.rmdir()
        if not work.exists() and not any(group.exists() for group in groups):
            return
        time.sleep(0.1)


def _skip(reason: str, *, within: bool) -> int:
    if within:
        say(reason)
        return SKIPPED
    forbidden = bool(os.environ.get("IMGSEARCH_NO_SKIPS"))
    say(f"{'FAILED: may not be ' if forbidden else ''}skipped: {reason}")
    return 1 if forbidden else 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
