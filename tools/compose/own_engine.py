"""The test on its own engine, in namespaces that end with their first process."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools import weaviate
from tools.compose import standins
from tools.compose.checks import check
from tools.compose.docker import ROOT, Docker, Server, client_environment, responds
from tools.compose.proxy import open_proxy, serve_proxy
from tools.compose.shell import Impossible, run, say

INSIDE = "--inside"
NAMESPACES = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
# The exit code of the part in the namespaces if the test cannot run there.
SKIPPED = 77


def test_with_own_engine(work: Path) -> None:
    """Prepare everything that needs a network, then run the test in new namespaces."""
    _require_own_engine()
    _install_engine()
    client_environment(work, {})
    standins.prepare(work)
    code = _in_namespaces(work)
    if code == SKIPPED:
        raise Impossible("an engine cannot be started here, see above")
    if code:
        raise AssertionError("failed on the test's own engine, see above")


def _in_namespaces(work: Path) -> int:
    """Run the rest of the test in new namespaces; return the exit code."""
    ours, theirs = socket.socketpair()
    command = [*NAMESPACES, sys.executable, "-m", "tools.compose"]
    command += [INSIDE, str(work), str(theirs.fileno())]
    # The folder remains in use for a moment after the processes have ended.
    with weaviate.Watchdog(["sh", "-c", 'sleep 3; rm -rf "$0"', str(work)]) as watchdog:
        process = subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()])
        theirs.close()
        serve_proxy(ours)
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
        raise Impossible("no Docker engine answers; to start one, install iproute2")
    if subprocess.run([*NAMESPACES, "true"], capture_output=True, check=False).returncode:
        raise Impossible("no Docker engine answers, and namespaces to start one are not allowed")


def _install_engine() -> None:
    """Install Debian's docker.io, except on a machine with systemd, where it would stay."""
    if shutil.which("dockerd") and shutil.which("docker"):
        return
    if Path("/run/systemd/system").exists():
        raise Impossible("no Docker engine; install one: apt-get install docker.io")
    say("installing docker.io")
    standins.apt("update", "-q")
    packages = ["docker.io", "iptables"]
    # Since Debian 13, the client is a separate package.
    if subprocess.run(["apt-cache", "show", "docker-cli"], capture_output=True).returncode == 0:
        packages.append("docker-cli")
    standins.apt("install", "-y", "-q", "--no-install-recommends", *packages)


def inside(work: Path, channel: socket.socket) -> None:
    """Start the engine in the namespaces, load the images, and test on the default ports."""
    run("ip", "link", "set", "lo", "up")
    with engine(work) as host:
        environment = client_environment(work, {"DOCKER_HOST": host})
        override = work / "override.yml"
        override.write_text(json.dumps(_build_by(open_proxy(channel))))
        files = (ROOT / "docker-compose.yml", override)
        docker = Docker(environment, "imgsearch-test", files)
        standins.load(docker, work)
        cluster = [Server(f"node{n}", (8080 + n, 50051 + n)) for n in (1, 2, 3)]
        imgsearch, single = Server("imgsearch", (8888, 7860)), Server("weaviate", (8080, 50051))
        check(docker, imgsearch, single, *cluster)


def _build_by(proxy: str) -> dict[str, Any]:
    """Return settings to build with no network but the package index."""
    arguments = {"HTTPS_PROXY": proxy, "TORCH_BACKEND": ""}
    return {"services": {"imgsearch": {"build": {"network": "host", "args": arguments}}}}


@contextlib.contextmanager
def engine(work: Path) -> Iterator[str]:
    """Run dockerd with all its files in `work`; yield the value of DOCKER_HOST."""
    host = f"unix://{work}/docker.sock"
    command = ["dockerd", "-H", host, "--pidfile", f"{work}/docker.pid", "--bridge", "none"]
    command += ["--data-root", f"{work}/data", "--exec-root", f"{work}/exec"]
    command += ["--cgroup-parent", f"/{work.name}"]
    log = work / "dockerd.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        until = time.monotonic() + 60
        while not responds({**os.environ, "DOCKER_HOST": host}):
            if process.poll() is not None or time.monotonic() > until:
                tail = "\n".join(log.read_text().splitlines()[-15:])
                raise Impossible(f"dockerd does not start here:\n{tail}")
            time.sleep(0.3)
        yield host
    finally:
        process.terminate()
        process.wait(60)


def remove(work: Path) -> None:
    """Delete the folder of an engine, once it is no longer in use, and its control groups."""
    for _ in range(100):
        shutil.rmtree(work, ignore_errors=True)
        tree = Path("/sys/fs/cgroup")
        groups = [*tree.glob(work.name), *tree.glob(f"*/{work.name}")]
        for group in groups:
            # Control groups of killed containers are still below it.
            for folder in sorted(group.glob("**/"), reverse=True):
                with contextlib.suppress(OSError):
                    folder.rmdir()
        if not work.exists() and not any(group.exists() for group in groups):
            return
        time.sleep(0.1)
