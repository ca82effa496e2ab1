"""Measurements for scripts that tests run in their own process."""

import sys
from pathlib import Path


def peak_memory() -> int:
    """Return the peak resident set size of this process in bytes. Linux only.

    `resource.getrusage` does not serve: its maximum includes what the parent process used before
    this one started (`ru_maxrss` survives `execve`), here a test runner of some gigabytes.
    """
    assert sys.platform == "linux"
    status = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
