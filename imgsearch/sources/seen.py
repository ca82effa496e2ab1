"""The paths that a scan has seen, in bounded memory."""

import contextlib
import sqlite3
import tempfile
from collections.abc import Iterator

from imgsearch.errors import SourceError
from imgsearch.uris import path_digest

_IN_MEMORY = 500_000
_CACHE_KIB = 32_000


class SeenPaths:
    """A set of paths, kept as a digest of each.

    The first half million take 75 bytes each in memory. SQLite keeps the others in a file without
    a name where temporary files go, 20 to 30 bytes each, of which 32 MB are in memory. Methods
    raise SourceError if it cannot be written.
    """

    def __init__(self) -> None:
        self._first = set[bytes]()
        self._others: sqlite3.Connection | None = None

    def __contains__(self, path: str) -> bool:
        if not self._first:  # most scans list no files
            return False
        digest = path_digest(path)
        if digest in self._first or self._others is None:
            return digest in self._first
        with _translated_errors():
            found = self._others.execute("SELECT 1 FROM seen WHERE digest = ?", (digest,))
            return found.fetchone() is not None

    def add(self, path: str) -> None:
        digest = path_digest(path)
        if len(self._first) < _IN_MEMORY:
            self._first.add(digest)
            return
        with _translated_errors():
            if self._others is None:
                self._others = _temporary_table()
            self._others.execute("INSERT OR IGNORE INTO seen VALUES (?)", (digest,))


@contextlib.contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise SourceError(
            f"{tempfile.gettempdir()}: the paths of a long list cannot be kept in a temporary "
            f"file: {error}; free some space"
        ) from error


def _temporary_table() -> sqlite3.Connection:
    # Without a journal, in one transaction: a hundred times faster, and nothing to recover. A scan
    # may go on in another thread than it has begun in, but is never in two at a time.
    database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{_CACHE_KIB}"):
        database.execute(f"PRAGMA {setting}")
    database.execute("CREATE TABLE seen (digest BLOB PRIMARY KEY) WITHOUT ROWID")
    database.execute("BEGIN")
    return database
