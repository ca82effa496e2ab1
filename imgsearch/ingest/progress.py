"""Account for every file: found = indexed + reused + skipped + rejected."""

from collections import Counter

from imgsearch.errors import StoreError
from imgsearch.events import Listener, Note, Outcome, Status

# The first rejections are enough for a summary; the listener receives all of them.
_MAX_PROBLEMS = 20


class Progress:
    """Counts files and reports the outcome of each to the listener.

    The thread that looks files up counts `found` and "skipped", the thread that writes counts all
    other statuses, so no lock is needed.
    """

    def __init__(self, listener: Listener) -> None:
        self.found = 0
        self.counts: Counter[Status] = Counter()
        self.problems: list[Outcome] = []
        self._listener = listener

    def finish(self, uri: str, status: Status, reason: str = "") -> None:
        """Report the outcome of a file. Call it only after the store has the file's record."""
        outcome = Outcome(uri, status, reason)
        self.counts[status] += 1
        if status == "rejected" and len(self.problems) < _MAX_PROBLEMS:
            self.problems.append(outcome)
        self._listener(outcome)

    def note(self, text: str) -> None:
        self._listener(Note(text))

    def check(self) -> None:
        """Raise StoreError if a file is unaccounted for."""
        if self.found != self.counts.total():
            raise StoreError(
                f"internal error: {self.found} files were found, but {self.counts.total()} are "
                "accounted for; please report this"
            )
