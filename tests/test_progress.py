"""Progress is shown by tqdm: images against their total, with outcomes, and downloads in bytes."""

import contextlib
import io
import os
from functools import partial
from pathlib import Path

import pytest
from tqdm import tqdm

from imgsearch.cli.console import Display
from imgsearch.events import Counted, Note, Outcome, Stage, Transfer
from imgsearch.index import ImageIndex
from imgsearch.progress import ProgressBars
from tests.conftest import Painter
from tests.fakes import ColorEncoder


def drawn(*events: Counted | Note | Outcome | Stage | Transfer, columns: int = 120) -> str:
    output = io.StringIO()
    with ProgressBars(partial(tqdm, file=output, ncols=columns, mininterval=0)) as bars:
        for event in events:
            bars(event)
    return output.getvalue()


def test_images_are_counted_by_outcome_against_their_total() -> None:
    shown = drawn(
        Outcome("a", "indexed"),
        Counted(4),
        Outcome("b", "reused"),
        Outcome("c", "rejected", "no image"),
        Outcome("d", "removed"),
    )
    last = shown.split("\r")[-3]
    assert last.startswith("images:  75%|")
    assert "3/4 [" in last
    assert "images/s, 1 indexed, 1 reused, 1 rejected]" in last


def test_without_a_total_the_count_and_rate_are_shown() -> None:
    assert "images: 1 images [" in drawn(Outcome("a", "indexed"))


def test_downloads_are_shown_in_bytes() -> None:
    shown = drawn(Transfer("weights", 0, 2_000_000), Transfer("weights", 500_000, 2_000_000))
    assert "weights:  25%|" in shown
    assert "500k/2.00M [" in shown
    assert "B/s" in shown


def test_a_stage_takes_the_place_of_the_images() -> None:
    shown = drawn(Outcome("a", "indexed"), Stage("verifying"))
    assert shown.index("images") < shown.index("verifying")


@pytest.mark.parametrize("columns", [20, 80])
def test_a_bar_fits_its_line(columns: int) -> None:
    events = [Outcome(str(number), "indexed") for number in range(3)]
    lines = drawn(Counted(3), *events, columns=columns).split("\r")
    assert max(map(len, lines)) <= columns


def test_add_shows_progress_on_request(
    paint: Painter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = paint("shop/a.png", 1).parent
    with ImageIndex(store=tmp_path / "store", encoder_opener=ColorEncoder().open) as index:
        index.add(folder)
        assert capsys.readouterr().err == ""
        index.add(folder, progress=True)
    assert "images: 100%|" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_notes_are_lines_of_their_own_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    import pty

    master, slave = pty.openpty()
    with open(slave, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr("sys.stderr", terminal)
        with Display() as display:
            display(Outcome("a", "indexed"))
            display(Note("a note"))
    written = b""
    with contextlib.suppress(OSError):  # at the end, when the writer has closed
        while part := os.read(master, 10_000):
            written += part
    os.close(master)
    shown = written.decode().replace("\r", "\n").split("\n")
    bars = [number for number, line in enumerate(shown) if line.startswith("images: ")]
    assert bars[0] < shown.index("a note") < bars[-1]
