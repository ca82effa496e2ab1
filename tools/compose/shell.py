"""Run programs, print progress, wait."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping

HEALTHY_SECONDS = 180


class Impossible(Exception):  # noqa: N818  (a reason to skip, not an error)
    """The test cannot run here; the message gives the reason."""


def run(*command: str, environment: Mapping[str, str] | None = None, timeout: float = 300) -> str:
    """Run a program; return its stdout. Raises RuntimeError with the end of its output."""
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    if done.returncode:
        tail = "\n".join(text.strip()[-3000:] for text in (done.stdout, done.stderr))
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{tail}")
    return done.stdout


def say(text: str) -> None:
    """Print a message with the time of day: some steps take minutes."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def wait(condition: Callable[[], bool], complaint: str) -> None:
    """Wait for a condition; raise AssertionError after HEALTHY_SECONDS."""
    until = time.monotonic() + HEALTHY_SECONDS
    while not condition():
        assert time.monotonic() < until, f"{complaint} after {HEALTHY_SECONDS} s"
        time.sleep(0.5)
