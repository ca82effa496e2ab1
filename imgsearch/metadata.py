"""A CSV of metadata: found, read once, typed, and joined to pictures by id, file name or path.

The rows are kept in a temporary SQLite file, so that a table of millions of rows takes no memory.
"""

import contextlib
import csv
import hashlib
import json
import os
import re
import sqlite3
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from imgsearch import scratch
from imgsearch.errors import MetadataError, ScratchError
from imgsearch.filters import parse_value
from imgsearch.records import DESCRIPTION, FieldType, Metadata, Value, path_to_uri

if TYPE_CHECKING:
    import _csv

# Kaggle's name for it, in "Fashion Product Images" and in the sets made like it.
STANDARD_NAME = "styles.csv"

# The columns to join by, the surest first: beside a file name an id may be anything.
_STEM_COLUMN = "id"
_JOINING_COLUMNS = (
    "filename", "file_name", _STEM_COLUMN, "file", "image", "filepath", "file_path", "path", "uri",
)  # fmt: skip

# What separates the cells in tables of spreadsheets that do not use commas.
_OTHER_DELIMITERS = (";", "\t")

# From the narrowest type to the widest; a column has the first that all its values are of.
_NARROW_TO_WIDE: tuple[FieldType, ...] = ("bool", "int", "float", "str")


def find_for(folder: str) -> str | None:
    """The `styles.csv` that belongs to a source folder, if there is one.

    Kaggle's layout has it beside `images/`, so it is found as well if the source is that folder.
    """
    places = [Path(folder) / STANDARD_NAME]
    if Path(folder).name == "images":
        places.append(Path(folder).parent / STANDARD_NAME)
    return next((str(place) for place in places if place.is_file()), None)


@dataclass(frozen=True, slots=True)
class MetadataReport:
    """What became of the rows. `malformed` are line numbers, the header being line 1."""

    file: str
    rows: int
    malformed: list[int]
    duplicates: int
    rows_without_picture: int
    pictures_without_row: int

    def to_dict(self) -> dict[str, object]:
        return {
            "file": self.file,
            "rows": self.rows,
            "malformed": len(self.malformed),
            "malformed_lines": self.malformed[:100],
            "duplicates": self.duplicates,
            "rows_without_picture": self.rows_without_picture,
            "pictures_without_row": self.pictures_without_row,
        }


class MetadataTable:
    """The rows of one CSV file, looked up by the path of a picture.

    `fields` maps each column but the joining one to its type: `bool` (true/false), `int` (64
    bits), `float` or `str`. Empty cells are no values. Of two rows with the same key the first
    counts. Use it as a context manager; the temporary file goes with it.
    """

    def __init__(
        self, file: str, scope: str | None = None, places: Sequence[Path] | None = None
    ) -> None:
        """Read `file`, for pictures under the folder `scope` or for all.

        `places` are folders for the temporary file, the first choice first. Raises MetadataError
        if the table cannot be read, has no header, or no column to join by, and ScratchError if no
        temporary file can be written.
        """
        self.file = file
        # Where the pictures of Kaggle's layout really are, if `images` is a link.
        self._scopes = (scope, os.path.realpath(os.path.join(scope, "images"))) if scope else ()
        real = os.path.realpath(file)
        self._folder = os.path.dirname(real)
        self.id = hashlib.blake2b(os.fsencode(path_to_uri(real)), digest_size=4).hexdigest()
        self._duplicates = 0
        self._rows = 0
        self._malformed: list[int] = []
        self._unmatched_pictures = 0
        with contextlib.ExitStack() as cleanup:
            self._spool = cleanup.enter_context(scratch.folder(places or scratch.places()))
            # One thread at a time uses it: the pipeline's feeding thread, then whoever reports.
            self._rows_db = sqlite3.connect(
                self._spool / "rows.sqlite", isolation_level=None, check_same_thread=False
            )
            cleanup.callback(self._rows_db.close)
            with self._spooling():
                self._read()
            self._cleanup = cleanup.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._cleanup.close()

    @contextlib.contextmanager
    def _spooling(self) -> Iterator[None]:
        """SQLite's errors are those of the disk, or of a folder that went away."""
        try:
            yield
        except sqlite3.Error as error:
            raise ScratchError(
                f"{self._spool}: the rows of {self.file} cannot be kept there for the run: {error}"
            ) from error

    def _read(self) -> None:
        database = self._rows_db
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        database.execute("CREATE TABLE row (key TEXT PRIMARY KEY, cells TEXT, used INT)")
        database.execute("BEGIN")
        try:
            # utf-8-sig: Excel begins its files with a byte order mark.
            with open(self.file, encoding="utf-8-sig", newline="") as stream:
                delimiter = _delimiter_of(stream)
                stream.seek(0)
                self._read_rows(csv.reader(stream, delimiter=delimiter, strict=True))
        except OSError as error:
            raise MetadataError(f"{self.file}: cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise MetadataError(
                f"{self.file}: is not in UTF-8 ({error.reason}); save it again as CSV UTF-8"
            ) from error
        database.execute("COMMIT")

    def _read_rows(self, reader: "_csv.Reader") -> None:
        rows = self._numbered(reader)
        header = [name.strip() for name in next(rows, (1, []))[1]]
        if not header:
            raise MetadataError(f"{self.file}: it is empty: the first line must name the columns")
        if twice := {name for name in header if name and header.count(name) > 1}:
            raise MetadataError(f"{self.file}: two columns are named {sorted(twice)[0]!r}")
        self._key_column, self._by_path = self._joining_column(header)
        self._columns = [
            (index, name) for index, name in enumerate(header) if name and index != self._key_column
        ]
        guesses = {name: _TypeGuess() for _, name in self._columns}
        for line, row in rows:
            self._rows += 1
            # Commas at the end of a line add cells, but say nothing.
            while len(row) > len(header) and not row[-1].strip():
                row.pop()
            key = self._normal_key(row[self._key_column]) if len(row) == len(header) else ""
            if not key:
                self._malformed.append(line)
                continue
            cells = {name: row[index].strip() for index, name in self._columns}
            cells = {name: text for name, text in cells.items() if text}
            for name, text in cells.items():
                guesses[name].see(text, line)
            stored = self._rows_db.execute(
                "INSERT OR IGNORE INTO row VALUES (?, ?, 0)", (key, json.dumps(cells))
            )
            self._duplicates += stored.rowcount == 0
        self._guesses = guesses
        self.fields: dict[str, FieldType] = {
            name: "str" if name == DESCRIPTION else guess.type
            for name, guess in guesses.items()
            if guess.seen
        }

    @property
    def columns(self) -> list[str]:
        """The fields that rows can set, also those that no row sets."""
        return [name for _, name in self._columns]

    def _numbered(self, reader: "_csv.Reader") -> Iterator[tuple[int, list[str]]]:
        """The rows that are not blank, each with its first line's number; [] for a broken one."""
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                # Whatever followed would be taken for a part of that cell.
                if "unexpected end" in str(error) or "field limit" in str(error):
                    raise MetadataError(
                        f"{self.file}: line {line}: a quote is opened there and not closed, or "
                        f"a cell is longer than {csv.field_size_limit():,} characters"
                    ) from error
                yield line, []
            else:
                if any(cell.strip() for cell in row):
                    yield line, row

    def _joining_column(self, header: list[str]) -> tuple[int, bool]:
        """Index of the column to join by, and whether it holds paths rather than stems."""
        names = [name.casefold() for name in header]
        for wanted in _JOINING_COLUMNS:
            if wanted in names:
                return names.index(wanted), wanted != _STEM_COLUMN
        raise MetadataError(
            f"{self.file}: no column to join by: it needs `id` (the file name without its "
            f"extension) or a path in {', '.join(_JOINING_COLUMNS).replace('id, ', '', 1)}; it has "
            f"{', '.join(header)}"
        )

    def _normal_key(self, text: str) -> str:
        text = _composed(text.strip())
        return text.replace("\\", "/").removeprefix("./") if self._by_path else text

    def _keys_of(self, path: str) -> dict[str, None]:
        """What a row for this picture may be called, the most exact first."""
        # A name that is not UTF-8 cannot stand in a CSV that is.
        path = _composed(path.encode("utf-8", "replace").decode())
        if not self._by_path:
            return dict.fromkeys((Path(path).stem, os.path.basename(path)))
        keys = []
        if path.startswith(os.path.join(self._folder, "")):
            keys.append(os.path.relpath(path, self._folder))
        keys.append(path)
        # Then without the folders around it, one after the other: `images/1.jpg`, `1.jpg`.
        parts = Path(path).parts
        keys += [os.path.join(*parts[start:]) for start in range(1, len(parts))]
        return dict.fromkeys(key.replace(os.sep, "/") for key in keys)

    def covers(self, path: str) -> bool:
        """Whether the table speaks of pictures at this place."""
        return not self._scopes or any(
            path.startswith(os.path.join(scope, "")) for scope in self._scopes
        )

    def lookup(self, path: str) -> Metadata | None:
        """The typed row of a picture, or None; counts rows and pictures that found no partner."""
        for key in self._keys_of(path):
            with self._spooling():
                found = self._rows_db.execute(
                    "UPDATE row SET used = 1 WHERE key = ? RETURNING cells", (key,)
                ).fetchone()
            if found:
                return self._typed(json.loads(found[0]))
        self._unmatched_pictures += 1
        return None

    def _typed(self, cells: Mapping[str, str]) -> Metadata:
        values: dict[str, Value] = {}
        for name, text in cells.items():
            value = parse_value(text, self.fields[name])
            if value is not None:
                values[name] = value
        return values

    def widen(self, fields: Mapping[str, FieldType]) -> list[str]:
        """Read the columns as the types that a collection already has for them.

        Values that are not of that type are no values from then on. Returns a sentence for each
        column that has such, with an example.
        """
        misfits = []
        for name, mine in self.fields.items():
            theirs = fields.get(name, mine)
            if not _fits(mine, theirs):
                line, text = self._guesses[name].not_of[theirs]
                misfits.append(
                    f"the collection has {name!r} as {theirs}, but the file has values that are "
                    f"{mine}, for example {text!r} in line {line}"
                )
            self.fields[name] = theirs
        return misfits

    def report(self) -> MetadataReport:
        (unused,) = self._rows_db.execute("SELECT count(*) FROM row WHERE used = 0").fetchone()
        return MetadataReport(
            self.file,
            self._rows,
            self._malformed,
            self._duplicates,
            unused,
            self._unmatched_pictures,
        )


def _delimiter_of(stream: TextIO) -> str:
    """A comma, unless the first line has none and another usual one instead."""
    header = next((line for line in stream if line.strip()), "")
    found = (other for other in _OTHER_DELIMITERS if other in header)
    return "," if "," in header else next(found, ",")


def _composed(text: str) -> str:
    """Accents and letters as one character: macOS keeps them apart in file names."""
    return unicodedata.normalize("NFC", text)


def _fits(narrow: FieldType, wide: FieldType) -> bool:
    return narrow == wide or wide == "str" or (narrow == "int" and wide == "float")


def common_types(tables: Iterable[Mapping[str, FieldType]]) -> dict[str, FieldType]:
    """For each field the narrowest type that holds what every table has in it."""
    common: dict[str, FieldType] = {}
    for fields in tables:
        for name, mine in fields.items():
            theirs = common.get(name, mine)
            either = (each for each in (mine, theirs) if _fits(mine, each) and _fits(theirs, each))
            common[name] = next(either, "str")
    return common


class _TypeGuess:
    """The narrowest type that all values seen are of; `not_of` has an example against each other.

    An example is a line's number and the text there, shortened.
    """

    def __init__(self) -> None:
        self.seen = False
        self.not_of: dict[FieldType, tuple[int, str]] = {}
        self._possible = list(_NARROW_TO_WIDE)

    def see(self, text: str, line: int) -> None:
        self.seen = True
        if all(_is_of(text, kind) for kind in self._possible):
            return
        for kind in self._possible:
            if not _is_of(text, kind):
                self.not_of[kind] = (line, text[:40])
        self._possible = [kind for kind in self._possible if kind not in self.not_of]

    @property
    def type(self) -> FieldType:
        return self._possible[0]


def _is_of(text: str, kind: FieldType) -> bool:
    if kind in ("int", "float"):
        # 007 is a code, not a number: as a number it would lose its zeros.
        if re.match(r"[+-]?0[0-9]", text):
            return False
        # So is what has more digits than a float can hold.
        if kind == "float" and len(text) > 15 and re.fullmatch(r"[+-]?[0-9]+", text):
            return False
    return parse_value(text, kind) is not None
