"""Write output files that users name, without overwriting files of another kind."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from imgsearch.errors import SourceError, UsageError
from imgsearch.events import Outcome

_REPORT = b'{"uri": '


def check_replaceable(file: str, kind: str, beginnings: tuple[bytes, ...]) -> None:
    """Raise UsageError if a file exists and, in lower case, starts with none of `beginnings`.

    An empty file may be replaced. Raises SourceError if it cannot be read.
    """
    target = Path(os.path.realpath(file))
    if target.exists() and not target.is_file():
        raise UsageError(f"{file}: exists and is not a file")
    try:
        with target.open("rb") as old:
            head = old.read(64).lower().removeprefix(b"\xef\xbb\xbf").lstrip()
    except FileNotFoundError:
        return
    except OSError as error:
        raise not_written(file, error) from error
    if head and not head.startswith(beginnings):
        raise UsageError(f"{file}: exists and is not {kind}; not overwritten")


def not_written(file: str, error: Exception) -> SourceError:
    """Return the error to raise for a file that cannot be written."""
    return SourceError(f"{file}: cannot be written: {getattr(error, 'strerror', None) or error}")


@contextlib.contextmanager
def outcome_report(file: str) -> Iterator[Callable[[Outcome], None]]:
    """Open a report and yield a function that writes an outcome to it as a line of JSON.

    Replaces an existing report; writes to pipes and devices too. Raises UsageError if the file
    exists and is not a report, and SourceError if it cannot be written.
    """
    if os.path.isdir(file) or os.path.isfile(file):
        check_replaceable(file, "the report of an ingest", (_REPORT,))
    try:
        lines = open(file, "w", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise not_written(file, error) from error

    def write(outcome: Outcome) -> None:
        line = {"uri": outcome.uri, "status": outcome.status, "reason": outcome.reason}
        try:
            lines.write(json.dumps(line) + "\n")
        except OSError as error:
            raise not_written(file, error) from error

    try:
        yield write
    finally:
        try:
            lines.close()
        except OSError as error:
            raise not_written(file, error) from error
