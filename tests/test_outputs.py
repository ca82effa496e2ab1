"""Output files are written, and files of another kind are never overwritten."""

import json
import os
import sys
from pathlib import Path

import pytest

from imgsearch.errors import SourceError, UsageError
from imgsearch.events import Outcome
from imgsearch.system.outputs import outcome_report
from tests.conftest import SAMPLES, Cli

SHIRT = SAMPLES / "images" / "10101.jpg"


def _report(file: Path, *outcomes: Outcome) -> None:
    with outcome_report(str(file)) as write:
        for outcome in outcomes:
            write(outcome)


def test_a_complete_or_truncated_report_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "report.jsonl"
    for old in (None, b"", b'{"uri": "file:///a.jpg", "sta', b'{"uri": "x"}\n{"uri": "y"}\n'):
        if old is not None:
            file.write_bytes(old)
        _report(file, Outcome("file:///b.jpg", "rejected", "bad"))
        assert [json.loads(line) for line in file.read_text().splitlines()] == [
            {"uri": "file:///b.jpg", "status": "rejected", "reason": "bad"}
        ]


@pytest.mark.parametrize("content", [b"\xff\xd8\xff", b"id,name\n1,x\n", b'{"other": 1}\n'])
def test_other_files_are_not_overwritten(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "precious"
    file.write_bytes(content)
    with pytest.raises(UsageError, match="precious: exists and is not the report"):
        _report(file)
    assert file.read_bytes() == content


def test_the_check_follows_links(tmp_path: Path) -> None:
    (tmp_path / "image.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "link").symlink_to(tmp_path / "image.jpg")
    with pytest.raises(UsageError, match="not overwritten"):
        _report(tmp_path / "link")


def test_a_folder_and_a_missing_place_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a file"):
        _report(tmp_path)
    with pytest.raises(SourceError, match="cannot be written: No such file or directory"):
        _report(tmp_path / "nowhere" / "report.jsonl")


@pytest.mark.skipif(sys.platform == "win32", reason="no such devices")
def test_devices_are_written_to() -> None:
    _report(Path(os.devnull), Outcome("file:///a", "indexed"))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_is_a_clear_error() -> None:
    with pytest.raises(SourceError, match=r"/dev/full: cannot be written: No space left"):
        _report(Path("/dev/full"), Outcome("file:///a", "indexed"))


@pytest.mark.parametrize(
    "command",
    [("ingest", SAMPLES, "--report", "{file}"), ("query", SHIRT, "--gallery", "{file}")],
    ids=["ingest --report", "query --gallery"],
)
def test_no_command_writes_over_an_image(
    command: tuple[object, ...], cli: Cli, tmp_path: Path, sample_store: str
) -> None:
    file = tmp_path / "cat.jpg"
    file.write_bytes(SHIRT.read_bytes())
    words = [str(word).format(file=file) for word in command]
    done = cli(*words, "--store", sample_store)
    assert done.code == 2
    assert "cat.jpg: exists and is not " in done.err
    assert file.read_bytes() == SHIRT.read_bytes()
