"""The docker command for an engine and a compose project."""

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
# Limit of each container, in bytes.
MEMORY = 1 << 30


@dataclass(frozen=True)
class Server:
    """A service of the compose file, and its published ports: HTTP, and the other one."""

    service: str
    ports: tuple[int, int]

    @property
    def port(self) -> int:
        """Published port of HTTP."""
        return self.ports[0]


@dataclass(frozen=True)
class Docker:
    """The docker command for an engine, a compose plugin, a project and its files."""

    environment: Mapping[str, str]
    project: str
    files: Sequence[Path] = (ROOT / "docker-compose.yml",)

    def run(self, *arguments: str, timeout: float = 300) -> str:
        """Run docker; return its stdout. Raises RuntimeError."""
        return run("docker", *arguments, environment=self.environment, timeout=timeout)

    def compose(self, *arguments: str, timeout: float = 300) -> str:
        """Run docker compose on the files of this project; return its stdout."""
        where = ["--project-directory", str(ROOT), "-p", self.project]
        for file in self.files:
            where += ["-f", str(file)]
        return self.run("compose", *where, *arguments, timeout=timeout)

    def container(self, server: Server) -> str:
        """Return the ID of a service's container."""
        return self.compose("--profile", "cluster", "ps", "--all", "-q", server.service).strip()

    def inspect(self, server: Server) -> dict[str, Any]:
        """Return the engine's details about a service's container."""
        (details,) = json.loads(self.run("inspect", self.container(server)))
        found: dict[str, Any] = details
        return found

    def wait_healthy(self, *servers: Server) -> None:
        """Wait until the health check of each service passes."""
        names = ", ".join(server.service for server in servers)
        wait(lambda: all(map(self._is_healthy, servers)), f"not healthy: one of {names}")

    def _is_healthy(self, server: Server) -> bool:
        return bool(self.inspect(server)["State"]["Health"]["Status"] == "healthy")


def responds(environment: Mapping[str, str]) -> bool:
    """Return whether an engine responds."""
    # Without an engine, `docker info` fails only with a --format that needs one.
    try:
        version = run(
            "docker", "info", "--format", "{{.ServerVersion}}", environment=environment, timeout=30
        )
    except (RuntimeError, OSError, subprocess.TimeoutExpired):
        return False
    return bool(version.strip())


def client_environment(work: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """Return an environment with the compose plugin, without this shell's settings for compose."""
    inherited = {name: text for name, text in os.environ.items() if not _is_setting(name)}
    environment = {**inherited, "WEAVIATE_MEMORY": str(MEMORY), **settings}
    # The model that needs no download.
    environment["IMGSEARCH_MODELS"] = "efficientnet-lite0"
    try:
        run("docker", "compose", "version", environment=environment)
    except RuntimeError:
        # The copy preserves contexts and credentials of the user's configuration.
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
    """Return the plugin of COMPOSE_VERSION from an earlier build, or build it with Go."""
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
    """Build it as a tool of a new module: `go install` cannot build its module."""
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
            raise Impossible(f"Docker Compose cannot be built: {done.stderr.strip()[-1000:]}")
    return built
