"""The docker command, with the engine and the project to use, and with compose."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import weaviate
from tools.compose.shell import Impossible, run, say, wait

ROOT = Path(__file__).resolve().parents[2]
COMPOSE_VERSION = "v5.6.0"
COMPOSE_PACKAGE = "github.com/docker/compose/v5/cmd"
# Of each container, in bytes.
MEMORY = 1 << 30


@dataclass(frozen=True)
class Server:
    """One service of the compose file, and where it is published: its HTTP, and its other port."""

    service: str
    ports: tuple[int, int]

    @property
    def port(self) -> int:
        """The port of its HTTP."""
        return self.ports[0]


@dataclass(frozen=True)
class Docker:
    """The docker command with the engine, the compose plugin, the project and its files to use."""

    environment: Mapping[str, str]
    project: str
    files: Sequence[Path] = (ROOT / "docker-compose.yml",)

    def run(self, *arguments: str, timeout: float = 300) -> str:
        """Run docker; its stdout. An error carries what it said."""
        return run("docker", *arguments, environment=self.environment, timeout=timeout)

    def compose(self, *arguments: str, timeout: float = 300) -> str:
        """Run docker compose on our files as this project; its stdout."""
        where = ["--project-directory", str(ROOT), "-p", self.project]
        for file in self.files:
            where += ["-f", str(file)]
        return self.run("compose", *where, *arguments, timeout=timeout)

    def container(self, server: Server) -> str:
        """The id of the container of a service."""
        return self.compose("--profile", "cluster", "ps", "--all", "-q", server.service).strip()

    def inspect(self, server: Server) -> dict[str, Any]:
        """What the engine knows of the container of a service."""
        (details,) = json.loads(self.run("inspect", self.container(server)))
        found: dict[str, Any] = details
        return found

    def wait_healthy(self, *servers: Server) -> None:
        """Until the engine's health check, the one of the files, says so of each."""
        names = ", ".join(server.service for server in servers)
        wait(lambda: all(map(self._is_healthy, servers)), f"not healthy: one of {names}")

    def _is_healthy(self, server: Server) -> bool:
        return bool(self.inspect(server)["State"]["Health"]["Status"] == "healthy")


def answers(environment: Mapping[str, str]) -> bool:
    # Without an engine `docker info` fails only when it is asked for something of the engine's.
    try:
        version = run(
            "docker", "info", "--format", "{{.ServerVersion}}", environment=environment, timeout=30
        )
    except (RuntimeError, OSError, subprocess.TimeoutExpired):
        return False
    return bool(version.strip())


def client_environment(work: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """With the compose plugin, and without what this shell may have set for compose."""
    kept = {name: text for name, text in os.environ.items() if not _is_setting(name)}
    environment = {**kept, "WEAVIATE_MEMORY": str(MEMORY), **settings}
    # It needs no download.
    environment["IMGSEARCH_MODELS"] = "efficientnet-lite0"
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
    return name.startswith(("COMPOSE_", "IMGSEARCH_", "PROMETHEUS_", "WEAVIATE_"))


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
