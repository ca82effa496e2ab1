"""An engine of our own, in namespaces of its own, which ends with its first process."""

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
from tools.compose.docker import ROOT, Docker, Server, answers, client_environment
from tools.compose.door import keep_door, open_door
from tools.compose.shell import Impossible, run, say

INSIDE = "--inside"
NAMESPACES = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
# The exit code by which the part in the namespaces says that it can't be done.
SKIPPED = 77


def test_with_own_engine(work: Path) -> None:
    """Prepare what needs a network, then go on in namespaces of our own."""
    _require_own_engine()
    _install_engine()
    client_environment(work, {})
    standins.prepare(work)
    code = _in_namespaces(work)
    if code == SKIPPED:
        raise Impossible("an engine of our own does not run here, see above")
    if code:
        raise AssertionError("failed on our own engine, see above")


def _in_namespaces(work: Path) -> int:
    """Run the rest of the test where all of it ends with its first process; the exit code."""
    ours, theirs = socket.socketpair()
    command = [*NAMESPACES, sys.executable, "-m", "tools.compose"]
    command += [INSIDE, str(work), str(theirs.fileno())]
    # The folder is in use for a moment longer than the processes run.
    with weaviate.Watchdog(["sh", "-c", 'sleep 3; rm -rf "$0"', str(work)]) as watchdog:
        process = subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()])
        theirs.close()
        keep_door(ours)
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
    standins.apt("update", "-q")
    packages = ["docker.io", "iptables"]
    # From Debian 13 on the client is a package of its own.
    if subprocess.run(["apt-cache", "show", "docker-cli"], capture_output=True).returncode == 0:
        packages.append("docker-cli")
    standins.apt("install", "-y", "-q", "--no-install-recommends", *packages)


def inside(work: Path, handed: socket.socket) -> None:
    """In the namespaces: start the engine, load the images, and test on the files' own ports."""
    run("ip", "link", "set", "lo", "up")
    with engine(work) as host:
        environment = client_environment(work, {"DOCKER_HOST": host})
        override = work / "override.yml"
        override.write_text(json.dumps(_build_by(open_door(handed))))
        files = (ROOT / "docker-compose.yml", override)
        docker = Docker(environment, "imgsearch-test", files)
        standins.load(docker, work)
        cluster = [Server(f"node{n}", (8080 + n, 50051 + n)) for n in (1, 2, 3)]
        imgsearch, single = Server("imgsearch", (8888, 7860)), Server("weaviate", (8080, 50051))
        check(docker, imgsearch, single, *cluster)


def _build_by(proxy: str) -> dict[str, Any]:
    """What compose must know to build where there is a package index, and nothing else."""
    arguments = {"HTTPS_PROXY": proxy, "TORCH_BACKEND": ""}
    return {"services": {"imgsearch": {"build": {"network": "host", "args": arguments}}}}


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
        while not answers({**os.environ, "DOCKER_HOST": host}):
            if process.poll() is not None or time.monotonic() > until:
                tail = "\n".join(log.read_text().splitlines()[-15:])
                raise Impossible(f"dockerd does not start here:\n{tail}")
            time.sleep(0.3)
        yield host
    finally:
        process.terminate()
        process.wait(60)


def remove(work: Path) -> None:
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
