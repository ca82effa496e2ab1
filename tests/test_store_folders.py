"""A store in any folder: it works, or one clear refusal comes before anything is written."""

import os
import sys
from pathlib import Path

import pytest

from imgsearch.errors import UsageError
from imgsearch.stores import open_store
from tests.conftest import SAMPLES, Cli

SHIRT = SAMPLES / "images" / "10101.jpg"

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")


@posix
@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("./a:b", "a:b"),
        ("{here}/a:b", "a:b"),
        ("../{last}/lance:c", "lance:c"),
        ("lance:a:b", "a:b"),
        ("lance:{here}/a:b", "a:b"),
        ("{here}/x://y", "x:/y"),
        ("~/a:b", "a:b"),
        ("{here}/h#a?b=c", "h#a?b=c"),
        ("{here}/100%20", "100%20"),
        ("{here}/ünï 鞋", "ünï 鞋"),
    ],
)
def test_a_path_is_a_path_whatever_it_holds(
    name: str, folder: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    to = ("--store", name.format(here=tmp_path, last=tmp_path.name))
    done = cli("ingest", SHIRT, "-q", "--model", "efficientnet-lite0", *to)
    assert done.code == 0, done.err
    assert (tmp_path / folder / "images.lance").is_dir()
    assert cli("query", SHIRT, "--paths", *to).out == f"{SHIRT}\n"
    assert cli("info", "--json", *to).json["collections"][0]["images"] == 1
    assert cli("remove", SHIRT, *to).code == 0


@pytest.mark.parametrize("name", ["ftp://host/x", "a1:b", "http://localhost:8080"])
def test_another_kind_of_store_is_rejected_with_the_way_to_name_a_folder(
    name: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli("ingest", SHIRT, "--store", name)
    assert done.code == 2
    assert f"{name}: this kind of store is not known; use a folder (./NAME" in done.err
    assert list(tmp_path.iterdir()) == []


@posix
@pytest.mark.parametrize("name", ["new\nline", "tab\tx", "bell\a", "del\x7f", "caf\udce9"])
def test_a_name_that_lance_cannot_take_is_rejected_before_anything_is_written(
    name: str, cli: Cli, tmp_path: Path
) -> None:
    for words in (("ingest", SHIRT), ("query", SHIRT), ("info",), ("remove", SHIRT)):
        done = cli(*words, "--store", tmp_path / name)
        assert done.code == 2
        assert "this folder cannot hold a store" in done.err
        assert len(done.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@posix
def test_a_relative_store_in_such_a_folder_is_rejected_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "new\nline").mkdir()
    monkeypatch.chdir(tmp_path / "new\nline")
    with pytest.raises(UsageError, match="this folder cannot hold a store"):
        open_store("store")
    with pytest.raises(UsageError, match="this folder cannot hold a store"):
        open_store("lance:store")
    assert os.listdir(".") == []


def test_text_between_colons_is_printed_as_it_is(cli: Cli) -> None:
    assert "xx:b:y: this kind" in cli("info", "--store", "xx:b:y").err
