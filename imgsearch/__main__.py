"""`python -m imgsearch` is the `imgsearch` command, in a process of its own."""

import atexit
import os
import sys
from typing import NoReturn

from imgsearch.cli import main


def run() -> NoReturn:
    """Run the command and end the process at once: a sixth of a query's time.

    Python would take all that is loaded apart, piece by piece, only to hand it back to the system.
    What libraries have asked to be done at the end is done. With IMGSEARCH_DEBUG the process ends
    the ordinary way, as a profiler needs it.
    """
    try:
        main()
    except SystemExit as stop:
        if os.environ.get("IMGSEARCH_DEBUG") or not isinstance(stop.code, int | None):
            raise
        _end(stop.code or 0)
    _end(0)


def _end(code: int) -> NoReturn:
    atexit._run_exitfuncs()
    try:
        print(end="", flush=True)  # noqa: T201
        print(end="", file=sys.stderr, flush=True)  # noqa: T201
    except OSError:  # whoever read the output has gone, or its disk is full
        code = code or 1
    os._exit(code)


if __name__ == "__main__":
    run()
