"""The wheel and the source distribution are built, installed into a fresh environment, and run."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

UV = Path(sys.executable).with_name("uv")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with both distributions, the wheel built from the source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    command = [str(UV), "build", "--quiet", "--python", sys.executable]
    subprocess.run([*command, "--out-dir", str(folder), str(ROOT)], check=True)
    return folder


def _wheel(built: Path) -> Path:
    (wheel,) = built.glob("*.whl")
    return wheel


def test_the_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    names = set(zipfile.ZipFile(_wheel(built)).namelist())
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {
        "imgsearch",
        "imgsearch_cli",
    }
    data = [
        path for path in (ROOT / "imgsearch").rglob("*") if path.suffix in (".html", ".css", ".js")
    ]
    assert data
    assert {path.relative_to(ROOT).as_posix() for path in data} <= names


def test_the_source_distribution_holds_what_builds_the_wheel(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "imgsearch/__init__.py"} <= names
    assert {name.partition("/")[0] for name in names} <= {
        "",
        ".gitignore",
        "CHANGELOG.md",
        "LICENSE",
        "PKG-INFO",
        "README.md",
        "imgsearch",
        "pyproject.toml",
    }


def test_the_installed_command_runs(built: Path, tmp_path: Path) -> None:
    """The environment sees the dependencies of this one, so that nothing is downloaded."""
    environment = tmp_path / "env"
    subprocess.run(
        [str(UV), "venv", "--quiet", "--python", sys.executable, str(environment)], check=True
    )
    python = environment / "bin" / "python"
    install = [str(UV), "pip", "install", "--quiet", "--no-deps", "--python", str(python)]
    subprocess.run([*install, str(_wheel(built))], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    dependencies = Path(sys.executable).parent.parent / packages.relative_to(environment)
    # Added at the end of the path, without the .pth files that would add the checkout.
    (packages / "dependencies.pth").write_text(f"{dependencies}\n")
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for words, expected in ((["--version"], "imgsearch "), (["query", "--help"], "--gallery")):
        done = subprocess.run(
            [str(environment / "bin" / "imgsearch"), *words],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=clean,
        )
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout
    done = subprocess.run(
        [str(python), "-c", "import imgsearch; print(imgsearch.__file__)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=clean,
    )
    assert str(packages) in done.stdout
