"""`python -m imgsearch` is the `imgsearch` command, in a process of its own."""

import os
import sys

from imgsearch.system.interrupts import end_on_ctrl_c

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing takes a while to load, in which Ctrl-C would still be Python's
    from typing import NoReturn


def run() -> "NoReturn":
    """Run the command and exit without clean-up, which would take a sixth of a query's time.

    Python would take all that is loaded apart, piece by piece, only to hand it back to the system.
    What libraries have asked to be done at the end is done. With IMGSEARCH_DEBUG the process ends
    the ordinary way, as a profiler needs it, and Ctrl-C shows where it was.
    """
    debug = bool(os.environ.get("IMGSEARCH_DEBUG"))
    if not debug:
        end_on_ctrl_c()
    from imgsearch.cli import main

    try:
        main()
    except SystemExit as stop:
        if debug or not isinstance(stop.code, int | None):
            raise
        _end(stop.code or 0)
    _end(0)


def _end(code: int) -> "NoReturn":
    import atexit
    import contextlib

    atexit._run_exitfuncs()
    try:
        print(end="", flush=True)  # noqa: T201
    except OSError as error:  # whoever read the output has gone, or its disk is full
        if not isinstance(error, BrokenPipeError) and not code and sys.stderr:
            reason = f"error: the output cannot be written: {error.strerror}"
            with contextlib.suppress(OSError):
                print(reason, file=sys.stderr)  # noqa: T201
        code = code or 1
    with contextlib.suppress(OSError):  # of what was only said by the way
        print(end="", file=sys.stderr, flush=True)  # noqa: T201
    os._exit(code)


if __name__ == "__main__":
    run()
