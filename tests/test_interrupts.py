"""Ctrl-C at any moment of any command: exit code 130, and nothing on stderr that looks like a bug.

A moment is the n-th of the audit events that Python counts, so that no test depends on the time.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SAMPLES

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT to send")

SHIRT = SAMPLES / "images" / "10101.jpg"


def _fractions(count: int) -> list[float]:
    """Moments as fractions of a run, denser at the start, where most modules are imported."""
    return [(moment / count) ** 1.5 for moment in range(count)]


COMMANDS = {
    "info": "info --store {store}",
    "models": "models",
    "query": f"query {SHIRT} --store {{store}}",
    "query --text": "query --text shoe --store {store}",
    "eval": "eval --label articleType --sample 20 --store {store}",
    "ingest": f"ingest {SAMPLES} --store {{store}}",
    "ingest anew": f"ingest {SAMPLES} --store {{new}} --model efficientnet-lite0",
    "remove": f"remove {SHIRT} --store {{store}}",
    "copy": "copy --from {store} --to {new}",
    "bench": f"bench {SAMPLES} --seconds 0.1 --limit 4 --model efficientnet-lite0",
    "--help": "--help",
}
# What a command has printed of its progress by then.
PROGRESS = {"eval": "comparing 20 images with all others\n"}
# They finish what is in flight, and say so.
ORDERLY = {"ingest", "ingest anew", "copy", "bench"}

# Each moment is a process of up to two seconds, after one that counts the moments.
QUICK = _fractions(2)
# Commands whose moments are all slow tests: each resembles another one.
SLOW = {"models", "query --text", "ingest anew", "remove", "bench"}


def _moments() -> Iterator[Any]:
    """Yield a command and a fraction of its run; most are slow tests."""
    for name in COMMANDS:
        for fraction in sorted({*QUICK, *_fractions(20)}):
            # The first moment of all comes before a command is chosen.
            quick = fraction in QUICK and (fraction or name == "query") and name not in SLOW
            yield pytest.param(name, fraction, marks=() if quick else pytest.mark.slow)


Run = Callable[[str, int], tuple[subprocess.CompletedProcess[str], str]]


@pytest.fixture
def run(sample_store: str, tmp_path: Path) -> Run:
    def once(name: str, moment: int) -> tuple[subprocess.CompletedProcess[str], str]:
        """The ended process, and what it wrote of its moments."""
        shutil.copytree(sample_store, tmp_path / "store", dirs_exist_ok=True)
        words = COMMANDS[name].format(store=tmp_path / "store", new=tmp_path / "new").split()
        written = tmp_path / "written"
        done = subprocess.run(
            [sys.executable, "-m", "tests.interrupted", str(moment), str(written), *words],
            capture_output=True,
            text=True,
            timeout=240,
        )
        return done, written.read_text().strip()

    return once


@pytest.fixture(scope="module")
def totals() -> dict[str, int]:
    """How many moments each command has, once one has been counted."""
    return {}


@pytest.mark.parametrize(("name", "fraction"), list(_moments()))
def test_an_interrupted_command_exits_with_130(
    name: str, fraction: float, run: Run, totals: dict[str, int], tmp_path: Path
) -> None:
    if name not in totals:
        done, written = run(name, 0)
        assert done.returncode == 0, done.stderr
        shutil.rmtree(tmp_path / "store", ignore_errors=True)
        shutil.rmtree(tmp_path / "new", ignore_errors=True)
        totals[name] = int(written)
    done, written = run(name, 1 + int(0.95 * fraction * totals[name]))
    assert written == "sent"
    assert done.returncode == 130, done.stderr
    if name in ORDERLY:
        for word in ("Traceback", "KeyboardInterrupt", "internal error", "Exception ignored"):
            assert word not in done.stderr
    else:
        assert done.stderr in ("", PROGRESS.get(name, ""))


def test_ctrl_c_that_a_shell_has_switched_off_stays_off() -> None:
    script = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "sys.argv = ['imgsearch', '--version']\n"
        "import imgsearch.__main__ as entry\n"
        "def end(code):\n"
        "    print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)\n"
        "entry._end = end\n"
        "entry.run()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "True" in done.stdout.splitlines(), done.stderr
