"""Runs the imgsearch command, and sends SIGINT to itself at a moment that is counted, not timed.

`python -m tests.interrupted MOMENT FILE WORDS...`: a moment is one of Python's audit events: an
import, an opened file, a call into the system. Writes to FILE whether the moment came; MOMENT 0
writes how many there are.
"""

import os
import signal
import sys

moment, file = int(sys.argv[1]), os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
sys.argv = ["imgsearch", *sys.argv[3:]]
count = 0


def watch(_event: str, _given: object) -> None:
    global count
    count += 1
    if count == moment:
        os.write(file, b"sent\n")
        os.kill(os.getpid(), signal.SIGINT)


def finish(code: int) -> None:
    if not moment:
        os.write(file, b"%d\n" % count)
    leave(code)


from imgsearch.__main__ import run  # noqa: E402

leave = os._exit
os._exit = finish  # type: ignore[assignment]
sys.addaudithook(watch)
run()
