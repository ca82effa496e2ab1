"""The examples run as they are: the notebook in a kernel, the clients against a real service."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT, SAMPLES
from tests.serving import wait_until_ready
from tests.test_serve_command import free_port

EXAMPLES = ROOT / "examples"
SHOE = SAMPLES / "images" / "10501.jpg"


def test_the_notebook_indexes_and_shows_hits() -> None:
    text = (EXAMPLES / "search_images.ipynb").read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
    assert not any(cell.get("outputs") for cell in notebook.cells), "commit it without outputs"
    resources = {"metadata": {"path": str(EXAMPLES)}}
    NotebookClient(notebook, timeout=240, resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "96 found, 85 indexed, 5 reused, 6 rejected\n" in printed
    assert "images: 100%|" in printed
    assert "1.000 Corvane Men Blue Canvas Shoes\n" in printed
    shown = [output for output in outputs if "image/png" in output.get("data", ())]
    assert len(shown) == 3


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, exported_models: Path) -> Iterator[str]:
    """Return the address of `imgsearch serve` with an empty store, and end it by SIGTERM."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "models").symlink_to(exported_models)
    port = free_port()
    command = [sys.executable, "-m", "imgsearch", "serve", "--no-ui", "--port", str(port)]
    command += ["--store", str(folder / "store"), "--model", "efficientnet-lite0"]
    environment = os.environ | {"IMGSEARCH_HOME": str(folder)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            url = f"http://127.0.0.1:{port}"
            assert f"ready at {url}, documentation at /docs\n" in iter(process.stderr.readline, "")
            with httpx.Client(base_url=url, timeout=90) as client:
                wait_until_ready(client)
            yield url
        finally:
            process.terminate()
            process.communicate(timeout=240)
    assert process.returncode == 0


@pytest.mark.parametrize("name", ["http_client.sh", "http_client.py"])
def test_the_client_makes_every_call(name: str, service: str, tmp_path: Path) -> None:
    program = ["bash"] if name.endswith(".sh") else [sys.executable]
    done = subprocess.run(
        [*program, str(EXAMPLES / name), str(SHOE)],
        env=os.environ | {"IMGSEARCH_URL": service, "IMGSEARCH_COLLECTION": name[-2:]},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("blue canvas shoes") >= 3
    own_score = r'"score":(1\.0|0\.9999)| 1\.000 '
    assert re.search(own_score, done.stdout), "no hit is the image itself"
    assert (tmp_path / "thumbnail.webp").read_bytes().startswith(b"RIFF")
