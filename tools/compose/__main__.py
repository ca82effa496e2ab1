"""The command: `python -m tools.compose`."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

from tools import weaviate
from tools.compose.docker import responds
from tools.compose.existing_engine import test_with_existing_engine
from tools.compose.own_engine import INSIDE, SKIPPED, inside, remove, test_with_own_engine
from tools.compose.shell import Impossible, say


def main(arguments: list[str]) -> int:
    """Run the command line; return the exit code."""
    # SIGTERM cleans up as Ctrl-C does. The first process of a namespace ignores it by default.
    signal.signal(signal.SIGTERM, _interrupt)
    started = time.monotonic()
    within = arguments[:1] == [INSIDE]
    try:
        if within:
            inside(Path(arguments[1]), socket.socket(fileno=int(arguments[2])))
            return 0
        _test()
    except (Impossible, weaviate.ServerUnavailable) as error:
        return _skip(str(error), within=within)
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except (AssertionError, RuntimeError, subprocess.SubprocessError) as error:
        say(f"FAILED: {error}")
        return 1
    say(f"passed in {time.monotonic() - started:.0f} s")
    return 0


def _test() -> None:
    work = Path(tempfile.mkdtemp(prefix="imgsearch-compose-"))
    try:
        if shutil.which("docker") and responds(os.environ):
            test_with_existing_engine(work)
        else:
            test_with_own_engine(work)
    finally:
        remove(work)


def _skip(reason: str, *, within: bool) -> int:
    if within:
        say(reason)
        return SKIPPED
    forbidden = bool(os.environ.get("IMGSEARCH_NO_SKIPS"))
    say(f"{'FAILED: must not be ' if forbidden else ''}skipped: {reason}")
    return 1 if forbidden else 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
