"""The server binary: given, cached, or built with Go."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# The only place that names the version; docker-compose.yml must agree. 1.39.3 is the newest that
# builds from the Go module proxy.
VERSION = "1.39.3"
PACKAGE = "github.com/weaviate/weaviate/cmd/weaviate-server"
BUILD_SECONDS = 3600
NICENESS = 5


class ServerUnavailable(Exception):  # noqa: N818  (not an error of imgsearch)
    """No Weaviate server is available; the message gives the reason and a remedy."""


def find_binary() -> Path:
    """Return the binary of VERSION: $WEAVIATE_BINARY, an earlier build, or a new build.

    Raises ServerUnavailable if there is none and it cannot be built.
    """
    given = os.environ.get("WEAVIATE_BINARY")
    if given:
        return _given_binary(Path(given))
    return _built_binary() or _build()


def available() -> str | None:
    """Return None if a server can probably be started here, else the reason.

    This is cheap: it builds nothing. If a build fails later, `find_binary` raises.
    """
    if os.environ.get("WEAVIATE_BINARY"):
        try:
            find_binary()
        except ServerUnavailable as error:
            return str(error)
        return None
    return None if _built_binary() else _cannot_build()


def _given_binary(path: Path) -> Path:
    if not os.access(path, os.X_OK) or path.is_dir():
        raise ServerUnavailable(f"WEAVIATE_BINARY is {path}, which is not an executable file")
    return path


def _built_binary() -> Path | None:
    """Return a binary of the right version from an earlier build or `go install`."""
    cached = _cached_binary()
    if os.access(cached, os.X_OK):
        return cached
    for folder in _go_bin_folders():
        binary = folder / "weaviate-server"
        if os.access(binary, os.X_OK) and _is_version(binary, VERSION):
            return binary
    return None


def _is_version(binary: Path, version: str) -> bool:
    """Return whether a Go binary was built from this version of Weaviate.

    Go embeds the module's version. The server has no --version.
    """
    if not binary.stat().st_size:
        return False
    wanted = f"mod\tgithub.com/weaviate/weaviate\tv{version}\t".encode()
    with binary.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return text.find(wanted) >= 0


def cache_folder() -> Path:
    """Return the folder for binaries: imgsearch in the platform's cache folder."""
    return _platform_folder("XDG_CACHE_HOME", "Library/Caches", ".cache")


def data_folder() -> Path:
    """Return the folder for users' data: imgsearch in the platform's data folder."""
    return _platform_folder("XDG_DATA_HOME", "Library/Application Support", ".local/share")


def _platform_folder(variable: str, mac: str, other: str) -> Path:
    if sys.platform == "darwin":
        return Path.home() / mac / "imgsearch"
    return Path(os.environ.get(variable) or Path.home() / other) / "imgsearch"


def _cached_binary() -> Path:
    return cache_folder() / f"weaviate-server-{VERSION}"


def _go_bin_folders() -> list[Path]:
    """Return where `go install` writes: $GOBIN, or bin in each folder of $GOPATH."""
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
        # Two builds at once would take twice as long, for the same file.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            _go_install(target)
    return target


def _cannot_build() -> str | None:
    if os.name == "nt":
        return "a Weaviate server cannot be built on Windows: start one with docker compose"
    if not shutil.which("go"):
        return (
            f"no Weaviate {VERSION} server and no Go to build it with: install Go 1.26 or newer, "
            "or set WEAVIATE_BINARY to a server binary, or WEAVIATE_URL to a running server"
        )
    if not any(shutil.which(name) for name in _c_compilers()):
        return "building Weaviate needs a C compiler: install gcc or clang, or set CC"
    return None


def _c_compilers() -> list[str]:
    return [os.environ.get("CC", "cc").split()[0], "gcc", "clang"]


def _go_install(target: Path) -> None:
    started = time.monotonic()
    say(f"Building Weaviate {VERSION} with Go: about 5 minutes the first time, then cached.")
    # In the folder of the target, so that the rename is atomic.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="build-") as folder:
        _run_go(Path(folder))
        (Path(folder) / "weaviate-server").replace(target)
    say(f"Built {target} in {time.monotonic() - started:.0f} s.")


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
        raise ServerUnavailable(f"`go install` could not build Weaviate {VERSION}:\n{tail}")


def say(text: str) -> None:
    """Print a message to stderr at once."""
    print(text, file=sys.stderr, flush=True)
