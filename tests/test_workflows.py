"""The workflows follow GitHub's schema, pin what they use, and publish without a stored secret."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_they_follow_the_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema"]
    schema = ["--builtin-schema", "vendor.github-workflows"]
    done = subprocess.run(
        [*command, *schema, *map(str, WORKFLOWS)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_and_jobs_end(path: Path) -> None:
    text = path.read_text()
    assert re.search(r"^permissions:", text, re.M)
    assert text.count("runs-on:") == text.count("timeout-minutes:")
    actions = re.findall(r"uses: (\S+)", text)
    assert actions
    assert all(re.search(r"@v\d+(\.\d+\.\d+)?$", action) for action in actions), actions


def test_the_release_is_built_as_the_makefile_sets_up() -> None:
    release = (ROOT / ".github/workflows/release.yml").read_text()
    uv = re.search(r"^UV_VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.M)
    assert uv
    assert f"uv=={uv[1]}" in release
    assert "secrets." not in release
