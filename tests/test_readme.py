"""Every command that the README and the documentation show is run, and every command is shown."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imgsearch import config
from tests.conftest import ROOT, SAMPLES, Cli
from tests.serving import Served, serving
from tests.test_cli import COMMANDS
from tests.test_weaviate_store import unique_name

GENERATED = ("cli.md", "http.md", "modules.md")  # by tools/reference.py
PAGES = sorted(
    path
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    if path.name not in (*GENERATED, "changelog.md", "contributing.md")
)
IDS = [path.relative_to(ROOT).as_posix() for path in PAGES]

PAGE = "http://127.0.0.1:7860"

# Shown, and run by what is named here instead.
RUN_ELSEWHERE = {
    r"(.* )?docker compose ": "make test-compose",
    r"echo IMGSEARCH_DATA=.*\.env": "make test-compose",
    r"make ": "test_every_make_target_shown_exists",
    r"imgsearch serve$": "tests/test_serve_command.py",
    r"imgsearch watch ": "tests/test_watch.py, as it does not end",
    r"imgsearch ingest .* --precision int8": "tests/test_int8.py, as it takes a minute",
    r"imgsearch ingest .* --on ": "tests/test_ray.py, as it needs a cluster",
    r"imgsearch map ": "tests/test_map.py, as it needs an extra",
    r"(uv tool|pipx|pip) install ": "tests/test_packaging.py, from the wheel",
}


def _blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.S | re.M)


def _commands(path: Path) -> list[str]:
    """Return the commands of a page: of sh blocks, joined where a line ends with a backslash."""
    lines = [
        line.partition("  #")[0].strip()
        for block in _blocks(path, "sh")
        for line in block.replace("\\\n", " ").splitlines()
    ]
    return [line for line in lines if line]


LINES = [line for page in PAGES for line in _commands(page)]
LINES += [block.splitlines()[0][2:] for page in PAGES for block in _blocks(page, "console")]


def _elsewhere(line: str) -> bool:
    return any(re.match(pattern, line) for pattern in RUN_ELSEWHERE)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder with the files that the commands name, as the current folder."""
    folder = tmp_path / "fashion-dataset"
    shutil.copytree(SAMPLES / "images", folder / "images")
    shutil.copy(SAMPLES / "styles.csv", folder)
    shutil.copy(SAMPLES / "images" / "10501.jpg", tmp_path / "shoe.jpg")
    (tmp_path / "supplier").mkdir()
    for name in ("10101.jpg", "10901.jpg"):
        shutil.copy(SAMPLES / "images" / name, tmp_path / "supplier")
    shutil.make_archive(str(tmp_path / "more"), "zip", folder / "images", ".")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IMGSEARCH_MODEL", "efficientnet-lite0")
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


def _run(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/bash", "-o", "pipefail", "-c", line],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )


def _numberless(text: str) -> list[str]:
    """Return the words of a text, with every number replaced, so that machines agree."""
    text = re.sub(r"\d[\d.,]*", "N", re.sub(r"─+", "─", text))
    return text.split()


@pytest.mark.usefixtures("shop")
def test_every_command_shown_works(cli: Cli) -> None:
    assert cli("ingest", "./fashion-dataset").code == 0
    run = set()
    for page in PAGES:
        for shown in _commands(page):
            line = re.sub(r"--seconds [\d.]+", "--seconds 0.02", shown)
            if _elsewhere(line) or "weaviate://" in line or line.startswith("curl") or line in run:
                continue
            run.add(line)
            if re.search(r"[|<>] ", line):
                done = _run(line)
                assert done.returncode == 0, f"{page.name}: {line}\n{done.stderr}"
            elif line.startswith("imgsearch "):
                result = cli(*shlex.split(line)[1:])
                assert result.code == 0, f"{page.name}: {line}\n{result.err}"
            else:
                pytest.fail(f"{page.name} shows a command that no test runs: {line}")
            if " remove " in line:
                assert cli("ingest", "./fashion-dataset", "--quiet").code == 0
    assert len(run) > 20


@pytest.mark.usefixtures("shop")
def test_the_output_shown_is_the_real_one(cli: Cli) -> None:
    assert cli("ingest", "./fashion-dataset").code == 0
    shown = [block for page in PAGES for block in _blocks(page, "console")]
    assert len(shown) >= 5
    for block in dict.fromkeys(shown):
        command, _, output = block.removeprefix("$ imgsearch ").partition("\n")
        result = cli(*shlex.split(command))
        assert result.code == 0, result.err
        assert _numberless(result.out) == _numberless(output), command


@pytest.mark.parametrize("page", PAGES, ids=IDS)
@pytest.mark.usefixtures("shop")
def test_the_python_shown_works(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for code in _blocks(page, "python"):
        if PAGE in code:  # run by test_every_call_of_the_page_shown_works
            continue
        names: dict[str, Any] = {}
        exec(code, names)
        if "report" in names:
            assert names["report"].indexed == 60
            hits = [line for line in capsys.readouterr().out.splitlines() if "'season'" in line]
            assert len(hits) == 10
            assert all("'season': 'Summer'" in line for line in hits)


def test_every_call_of_the_page_shown_works(shop: Path, cli: Cli) -> None:
    from imgsearch.server.settings import Settings

    assert cli("ingest", "./fashion-dataset").code == 0
    calls = [code for page in PAGES for code in _blocks(page, "python") if PAGE in code]
    assert calls
    with serving(replace(Settings(), model="efficientnet-lite0"), with_page=True) as served:
        deadline = time.monotonic() + 90
        while served.client.get("/healthz").json()["page"] != "ready":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for code in calls:
            exec(code.replace(PAGE, served.page), {})


def test_every_call_of_the_api_shown_works(shop: Path, cli: Cli) -> None:
    from imgsearch.server.settings import Settings

    assert cli("ingest", "./fashion-dataset").code == 0
    calls = list(dict.fromkeys(line for line in LINES if line.startswith("curl ")))
    assert len(calls) > 4
    with serving(replace(Settings(), model="efficientnet-lite0")) as served:
        for line in calls:
            address = line.replace("http://127.0.0.1:8888", served.url)
            done = _run(address.replace("curl ", "curl -sS --fail-with-body --noproxy '*' ", 1))
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
            if " -X POST " in line:
                wait_for_jobs(served)


def wait_for_jobs(served: Served) -> None:
    deadline = time.monotonic() + 90
    while any(
        job["state"] in ("queued", "running") for job in served.client.get("/v1/jobs").json()
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.weaviate
@pytest.mark.usefixtures("shop")
def test_every_command_shown_for_weaviate_works(
    cli: Cli, one_node: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = unique_name()
    monkeypatch.setenv("IMGSEARCH_COLLECTION", name)
    for line in dict.fromkeys(LINES):
        if "weaviate://localhost" in line:
            words = shlex.split(line.replace("weaviate://localhost", one_node))
            result = cli(*words[1:])
            assert result.code == 0, f"{line}\n{result.err}"
    assert cli("remove", "--collection", name, "--yes", "--store", one_node).code == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_shown(command: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(rf"imgsearch {command}\b", readme)


def test_every_make_target_shown_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = {match for line in LINES for match in re.findall(r"^make ([\w-]+)", line)}
    assert {"demo", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.M), target


LINKING = [*PAGES, ROOT / "CONTRIBUTING.md", SAMPLES / "README.md"]


@pytest.mark.parametrize("page", LINKING, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if target.name not in GENERATED:
            assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target), link


@pytest.mark.parametrize("page", LINKING, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_and_modules_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    folders = "benchmarks|docs|examples|imgsearch|sample_data|tests|tools"
    for name in re.findall(rf"`((?:{folders})/[\w./-]*)", text):
        assert (ROOT / name).exists(), name
    for module in re.findall(r"python -m ((?:benchmarks|tools)[\w.]*)", text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def _anchors(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8")
    if included := re.match(r'--8<-- "(.+)"$', text.strip()):
        return _anchors(ROOT / included[1])
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return [re.sub(r"[^\w\- ]", "", each).strip().lower().replace(" ", "-") for each in headings]


def test_every_variable_is_documented() -> None:
    page = (ROOT / "docs/reference/configuration.md").read_text(encoding="utf-8")
    for name, value in vars(config).items():
        if name.startswith("ENV_"):
            assert value in page


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
