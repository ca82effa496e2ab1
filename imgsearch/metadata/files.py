"""Read CSV files with any common delimiter, as spreadsheets and pandas write them.

`csv.Sniffer` fails on tables of one column, so the header decides about the delimiter.
"""

import codecs
import contextlib
import csv
import io
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, TextIO

from imgsearch import objects
from imgsearch.errors import MetadataError
from imgsearch.uris import ObjectUrl

if TYPE_CHECKING:
    import _csv

_DELIMITERS = (",", ";", "\t", "|")
# Enough for the names of ten thousand columns.
_HEAD = 1 << 20
# The bytes of a table that is an object; more are in a temporary file.
_IN_MEMORY = 16 << 20
# Excel's own line before the header.
_SEP = re.compile(r'"?sep=([^\w\s"]|\t)"?\r?\n', re.IGNORECASE)
_NO_TEXT = "is not in UTF-8"


@dataclass(frozen=True, slots=True)
class Rows:
    """An open table: the names of its columns, and an iterator of its rows that are not blank.

    Each row comes with the number of its first line. A malformed row is [].
    """

    header: list[str]
    delimiter: str
    rows: Iterator[tuple[int, list[str]]]


@contextlib.contextmanager
def open_table(file: str, is_likely_header: Callable[[list[str]], bool]) -> Iterator[Rows]:
    """Open a table. `is_likely_header` decides which delimiter gives a plausible header.

    Raises MetadataError if the file cannot be read, is not text in UTF-8 or UTF-16, or is empty.
    """
    try:
        with (
            _opened(file) as binary,
            io.TextIOWrapper(binary, encoding=_encoding(file, binary), newline="") as stream,
        ):
            yield _read(file, stream, is_likely_header)
    except OSError as error:
        raise MetadataError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeError as error:
        reason = getattr(error, "reason", None) or str(error)
        raise MetadataError(f"{file}: {_NO_TEXT} ({reason}); save it again as CSV UTF-8") from error


def _opened(file: str) -> BinaryIO:
    """Open a table, a file or an object. Raises OSError or MetadataError."""
    if url := ObjectUrl.parse(file):
        return objects.open_object(url, _IN_MEMORY)
    mode = os.stat(file).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # opening a folder fails below
        raise MetadataError(f"{file}: not a regular file; a table is read twice, so save it first")
    return open(file, "rb")


def _encoding(file: str, binary: BinaryIO) -> str:
    """Detect the encoding by the byte order mark. Without one it is UTF-8; others are ambiguous."""
    head = binary.read(1024)
    binary.seek(0)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if b"\0" in head:
        raise MetadataError(
            f"{file}: {_NO_TEXT} (it contains NUL bytes); if it is a table, save it again as CSV "
            "UTF-8"
        )
    return "utf-8-sig"


def _read(file: str, stream: TextIO, is_likely_header: Callable[[list[str]], bool]) -> Rows:
    head = stream.read(_HEAD)
    stream.seek(0)
    skipped = 0
    if match := _SEP.match(head):
        delimiter = match[1]
        stream.readline()
        skipped = 1
    else:
        delimiter = _delimiter(head, is_likely_header)
    rows = _numbered(file, csv.reader(stream, delimiter=delimiter, strict=True), skipped)
    header = [name.strip() for name in next(rows, (1, []))[1]]
    if not header:
        raise MetadataError(f"{file}: the file is empty: the first line must name the columns")
    if twice := {name for name in header if name and header.count(name) > 1}:
        raise MetadataError(f"{file}: two columns are named {sorted(twice)[0]!r}")
    return Rows(header, delimiter, rows)


def _delimiter(head: str, is_likely_header: Callable[[list[str]], bool]) -> str:
    """Return the delimiter with a plausible header, else a comma, else the one with most cells."""

    def rank(delimiter: str) -> tuple[bool, bool, int]:
        cells = _header(head, delimiter)
        return is_likely_header(cells), delimiter == "," and len(cells) > 1, len(cells)

    return max(_DELIMITERS, key=rank)


def _header(head: str, delimiter: str) -> list[str]:
    try:
        rows = csv.reader(io.StringIO(head, newline=""), delimiter=delimiter, strict=True)
        return [cell.strip() for cell in next((row for row in rows if any(row)), [])]
    except csv.Error:
        return []


def _numbered(file: str, reader: "_csv.Reader", skipped: int) -> Iterator[tuple[int, list[str]]]:
    while True:
        line = reader.line_num + 1 + skipped
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # Everything that follows would become part of that cell.
            if "unexpected end" in str(error) or "field limit" in str(error):
                raise MetadataError(
                    f"{file}: line {line}: a quote is opened there and not closed, or "
                    f"a cell is longer than {csv.field_size_limit():,} characters"
                ) from error
            yield line, []
        else:
            if any(cell.strip() for cell in row):
                yield line, row
