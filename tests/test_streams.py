"""Output that cannot be written or encoded, and closed pipes."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from subprocess import PIPE
from typing import IO

import pytest

from imgsearch import config
from imgsearch.errors import UsageError
from imgsearch.ingest import ingest
from imgsearch.stores import open_store
from tests.conftest import Cli, Painter
from tests.fakes import ColorEncoder

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")


@pytest.fixture
def filled(paint: Painter, tmp_path: Path) -> Path:
    """A store of two images, with a field whose name is outside Latin-1."""
    paint("shop/1.png", 1)
    paint("shop/2.png", 2)
    (tmp_path / "shop" / "styles.csv").write_text("id,鞋\n1,a\n2,b\n", encoding="utf-8")
    with open_store(str(tmp_path / "store")) as store:
        ingest([str(tmp_path / "shop")], store, "images", encoder_opener=ColorEncoder().open)
    return tmp_path / "store"


def run(
    *words: object, stdout: IO[bytes] | int = PIPE, stderr: IO[bytes] | int = PIPE, **variables: str
) -> "subprocess.CompletedProcess[bytes]":
    """Run the command in its own process."""
    return subprocess.run(
        [sys.executable, "-m", "imgsearch", *map(str, words)],
        stdout=stdout,
        stderr=stderr,
        env={**os.environ, **variables},
        timeout=240,
    )


@ON_LINUX
@pytest.mark.parametrize("json", [(), ("--json",)])
def test_output_onto_a_full_disk_is_a_clear_error(filled: Path, json: tuple[str, ...]) -> None:
    with open("/dev/full", "wb") as full:
        ended = run("info", "--store", filled, *json, stdout=full)
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        b"error: the output cannot be written: No space left on device"
    ]


@ON_LINUX
def test_a_log_on_a_full_disk_does_not_end_the_run(filled: Path, tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        ended = run("copy", "--from", filled, "--to", tmp_path / "copy", stderr=full)
    assert ended.returncode == 0
    assert b"images: 2 " in run("info", "--store", tmp_path / "copy").stdout


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_characters_outside_the_output_encoding_are_escaped(filled: Path, encoding: str) -> None:
    ended = run("info", "--store", filled, PYTHONIOENCODING=encoding)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert rb"\u978b" in ended.stdout


def test_a_missing_home_is_an_error_naming_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> Path:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.delenv("IMGSEARCH_HOME")
    monkeypatch.setattr("platformdirs.user_data_path", fail)
    with pytest.raises(UsageError, match="no home folder: set IMGSEARCH_HOME"):
        config.home()


def test_a_limit_on_threads_is_a_clear_error(
    cli: Cli, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    ended = cli("ingest", filled.parent / "shop", "--store", filled)
    assert ended.code == 1
    assert "the system allows no more threads" in ended.err
