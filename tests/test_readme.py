"""Every command that the README shows is run, and every command is shown."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, SAMPLES, Cli
from tests.test_cli import COMMANDS
from tests.test_weaviate_store import unique_name

README = (ROOT / "README.md").read_text(encoding="utf-8")
LINES = [
    line.partition("  #")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.S)
    for line in block.splitlines()
    if line.strip()
]


@pytest.fixture
def _in_a_shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the README's commands speak of."""
    shop = tmp_path / "fashion-dataset"
    shutil.copytree(SAMPLES / "images", shop / "images")
    shutil.copy(SAMPLES / "styles.csv", shop)
    shutil.copy(SAMPLES / "images" / "10501.jpg", tmp_path / "shoe.jpg")
    (tmp_path / "prices.csv").write_text("filename,price\nimages/10501.jpg,49.90\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IMGSEARCH_MODEL", "efficientnet-lite0")


@pytest.mark.usefixtures("_in_a_shop")
def test_every_command_shown_works(cli: Cli) -> None:
    ours = [line for line in LINES if "imgsearch" in line and not re.match(r"make|.*docker", line)]
    # They go on until they are stopped: tests/test_serve_command.py runs one.
    ours = [line for line in ours if "imgsearch serve" not in line]
    assert len(ours) > 10
    for line in ours:
        if "weaviate://" in line:
            continue
        if re.search(r"[|<>] ", line):
            done = subprocess.run(
                ["/bin/bash", "-o", "pipefail", "-c", line],
                capture_output=True,
                text=True,
                check=False,
                env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            )
            assert done.returncode == 0, f"{line}\n{done.stderr}"
        else:
            result = cli(*shlex.split(line)[1:])
            assert result.code == 0, f"{line}\n{result.err}"


@pytest.mark.usefixtures("_in_a_shop")
def test_the_python_shown_works(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["report"].indexed == 60
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert all("'season': 'Summer'" in line for line in lines)


@pytest.mark.weaviate
@pytest.mark.usefixtures("_in_a_shop")
def test_every_command_shown_for_weaviate_works(
    cli: Cli, one_node: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = unique_name()
    monkeypatch.setenv("IMGSEARCH_COLLECTION", name)
    for line in LINES:
        if "weaviate://localhost" in line:
            words = shlex.split(line.replace("weaviate://localhost", one_node))
            result = cli(*words[1:])
            assert result.code == 0, f"{line}\n{result.err}"
    assert cli("remove", "--collection", name, "--yes", "--store", one_node).code == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_shown(command: str) -> None:
    assert any(re.search(rf"imgsearch {command}\b", line) for line in LINES)


def test_every_make_target_shown_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = {match for line in LINES for match in re.findall(r"^make ([\w-]+)", line)}
    assert {"demo", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_every_variable_is_told() -> None:
    from imgsearch import config

    for name, value in vars(config).items():
        if name.startswith("ENV_"):
            assert value in README
