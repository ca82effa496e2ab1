"""The command `imgsearch serve`: errors, messages and exit codes."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.conftest import SAMPLES, Cli
from tests.serving import wait_until_ready


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def test_other_addresses_require_a_key_or_insecure(cli: Cli) -> None:
    result = cli("serve", "--host", "0.0.0.0")
    assert result.code == 2
    assert "IMGSEARCH_API_KEY" in result.err
    assert "--insecure" in result.err


@pytest.mark.parametrize("option", ["--port", "--ui-port"])
def test_an_occupied_port_is_reported_with_its_option(cli: Cli, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        ports = {"--port": free_port(), "--ui-port": free_port()}
        ports[option] = int(occupied.getsockname()[1])
        result = cli("serve", *(word for pair in ports.items() for word in pair))
    assert result.code == 1
    assert f"port {ports[option]} of 127.0.0.1 is in use" in result.err
    assert option in result.err
    assert "Traceback" not in result.err


def test_a_foreign_address_is_an_error(cli: Cli) -> None:
    result = cli("serve", "--host", "192.0.2.1", "--insecure", "--no-ui")
    assert result.code == 1
    assert "192.0.2.1" in result.err


def test_a_mismatching_model_fails_immediately(cli: Cli, sample_store: str, tmp_path: Path) -> None:
    weights = tmp_path / "other.pth"
    weights.write_bytes(b"no weights")
    arguments = ["--port", free_port(), "--no-ui", "--store", sample_store, "--weights", weights]
    result = cli("serve", *arguments)
    assert result.code == 1
    assert str(weights) in result.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_shuts_down_gracefully(
    sample_store: str, number: signal.Signals, code: int
) -> None:
    port = free_port()
    command = [sys.executable, "-m", "imgsearch", "serve", "--no-ui", "--port", str(port)]
    with subprocess.Popen(
        [*command, "--store", sample_store], stderr=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        try:
            assert process.stderr is not None
            ready = f"ready at http://127.0.0.1:{port}, documentation at /docs\n"
            assert ready in iter(process.stderr.readline, "")
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                wait_until_ready(client)
                shirt = (SAMPLES / "images" / "10101.jpg").read_bytes()
                response = client.post("/v1/collections/images/search", files={"image": shirt})
                assert response.json()["hits"][0]["score"] == pytest.approx(1, abs=1e-4)
                assert response.json()["hits"][0]["metadata"]["articleType"] == "Tshirts"
        finally:
            process.send_signal(number)
            _, rest = process.communicate(timeout=240)
    assert process.returncode == code
    assert "Traceback" not in rest
