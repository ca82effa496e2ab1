"""A small process that ends servers when the process that started them is gone.

It works however that process ends: kill -9 closes the pipe as well, and if a forked child keeps the
pipe open, the watchdog's parent changes.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Sequence

# Each line of stdin names a process to kill at the end ("+PID"), one that has ended ("-PID"), or
# says that everything is in order ("done"). The arguments are a command to run after an end that
# was not in order.
PROGRAM = """
import os, signal, subprocess, sys, threading, time
pids = set()
owner = os.getppid()

def clean_up():
    for pid in tuple(pids):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    if sys.argv[1:]:
        subprocess.run(sys.argv[1:])
    os._exit(0)

def look_for_owner():
    while os.getppid() == owner:
        time.sleep(0.5)
    clean_up()

threading.Thread(target=look_for_owner, daemon=True).start()
for line in sys.stdin:
    if line == "done\\n":
        os._exit(0)
    (pids.add if line[0] == "+" else pids.discard)(int(line[1:]))
clean_up()
"""


class Watchdog:
    """A context in which processes can be watched; leaving it ends the watchdog, not them."""

    def __init__(self, command: Sequence[str]) -> None:
        """Take a command that cleans up if this process dies; it may be empty."""
        self._command = command

    def __enter__(self) -> Watchdog:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", PROGRAM, *self._command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._send("done")
        self._process.communicate()

    def watch(self, pid: int) -> None:
        """Kill this process if the present one dies."""
        self._send(f"+{pid}")

    def forget(self, pid: int) -> None:
        """Stop watching a process that has ended: its number may be reused."""
        self._send(f"-{pid}")

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        # If the watchdog itself was killed, the servers still run.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
