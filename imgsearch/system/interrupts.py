"""How Ctrl-C ends the process. Light, as it is needed before anything else is loaded."""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import NoReturn
else:
    # Until the handler is set, Ctrl-C is Python's own, with a traceback. `signal` takes 10 ms to
    # load, for its enumerations; what it is made of takes none.
    try:
        import _signal as signal
    except ImportError:  # not CPython
        import signal

INTERRUPTED = 130
"""The exit code."""

_SHOW_CURSOR = b"\x1b[?25h"


def end_on_ctrl_c() -> None:
    """Let Ctrl-C end the process, unless it is ignored, as in the background of a shell script."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end_now)


def end_now(*_: object) -> "NoReturn":
    """End the process with `INTERRUPTED`, wherever it is; a signal handler.

    An exception would not do: libraries take it for an error of their own, or swallow it.
    """
    try:
        if os.isatty(2):
            os.write(2, _SHOW_CURSOR)  # a progress bar has hidden it
    finally:
        os._exit(INTERRUPTED)
