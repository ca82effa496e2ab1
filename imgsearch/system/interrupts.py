"""End the process on Ctrl-C. Imports almost nothing, because it is loaded first."""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import NoReturn
else:
    # Until the handler is set, Ctrl-C prints a traceback. `signal` takes 10 ms to import, for its
    # enumerations; `_signal` takes none.
    try:
        import _signal as signal
    except ImportError:  # not CPython
        import signal

INTERRUPTED = 130
"""The exit code of an interrupted process."""

_SHOW_CURSOR = b"\x1b[?25h"


def end_on_ctrl_c() -> None:
    """Let Ctrl-C end the process, unless SIGINT is ignored, as in background jobs of a script."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end_now)


def end_now(*_: object) -> "NoReturn":
    """Signal handler that exits with `INTERRUPTED`.

    An exception is not enough: libraries swallow it or report it as their own error.
    """
    try:
        if os.isatty(2):
            os.write(2, _SHOW_CURSOR)  # a progress bar has hidden it
    finally:
        os._exit(INTERRUPTED)
