"""Run a program, tell what is done, wait."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping

HEALTHY_SECONDS = 180


class Impossible(Exception):  # noqa: N818  (no error: it is a reason to skip)
    """The test cannot be made here; the text says why."""


def run(*command: str, environment: Mapping[str, str] | None = None, timeout: float = 300) -> str:
    """Run a program; its stdout. An error carries what it said."""
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    if done.returncode:
        tail = "\n".join(text.strip()[-3000:] for text in (done.stdout, done.stderr))
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{tail}")
    return done.stdout


def say(text: str) -> None:
    """Tell what is done, with the time of day: some of it takes minutes."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def wait(condition: Callable[[], bool], complaint: str) -> None:
    """Until it holds; an AssertionError when it does not in HEALTHY_SECONDS."""
    until = time.monotonic() + HEALTHY_SECONDS
    while not condition():
        assert time.monotonic() < until, f"{complaint} after {HEALTHY_SECONDS} s"
        time.sleep(0.5)
