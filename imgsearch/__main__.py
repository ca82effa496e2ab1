"""The entry point of `imgsearch` and `python -m imgsearch`."""

import os
import sys

from imgsearch.system.interrupts import end_on_ctrl_c

TYPE_CHECKING = False
if TYPE_CHECKING:  # not from typing: Ctrl-C would show a traceback while it loads
    from typing import NoReturn


def run() -> "NoReturn":
    """Run the command, and exit without destroying all objects.

    That would take a sixth of the time of a query. Exit handlers are run. With IMGSEARCH_DEBUG, the
    process exits normally, as profilers need it, and Ctrl-C shows a traceback.
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
    except OSError as error:  # the reader of a pipe has gone, or the disk is full
        if not isinstance(error, BrokenPipeError) and not code and sys.stderr:
            reason = f"error: the output cannot be written: {error.strerror}"
            with contextlib.suppress(OSError):
                print(reason, file=sys.stderr)  # noqa: T201
        code = code or 1
    with contextlib.suppress(OSError):  # messages are not worth a failure
        print(end="", file=sys.stderr, flush=True)  # noqa: T201
    os._exit(code)


if __name__ == "__main__":
    run()
