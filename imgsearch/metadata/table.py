"""A CSV of metadata, typed, and joined to images by id, file name or path.

Rows are stored in a temporary SQLite file, so that a table of millions of rows takes no memory.
"""

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Self

from imgsearch import objects
from imgsearch.errors import MetadataError, ScratchError
from imgsearch.metadata import files as table_files
from imgsearch.metadata import joining
from imgsearch.metadata.columns import TEXT, Column, Format, parse_as
from imgsearch.system import scratch
from imgsearch.types import DESCRIPTION, FieldType, Metadata, Value
from imgsearch.uris import ObjectUrl, path_to_uri

# The name in Kaggle's "Fashion Product Images" and in sets of the same layout.
STANDARD_NAME = "styles.csv"

# Rows that are searched for columns that may name the images.
_FIRST_ROWS = 100
MAX_EXAMPLES = 2_000
"""Images that decide which of several columns names them."""
_MAX_LINES = 100
_SHOWN = 3


def find_for(folder: str) -> str | None:
    """Return the `styles.csv` of a source folder, or None.

    In Kaggle's layout it is next to `images/`, so it is also found if the source is that folder.
    """
    if url := ObjectUrl.parse(folder):
        return _find_object(url)
    places = [Path(folder) / STANDARD_NAME]
    if Path(folder).name == "images":
        places.append(Path(folder).parent / STANDARD_NAME)
    return next((str(place) for place in places if place.is_file()), None)


def _find_object(folder: ObjectUrl) -> str | None:
    places = [folder / STANDARD_NAME]
    if folder.key.rpartition("/")[2] == "images":
        places.append(folder.parent / STANDARD_NAME)
    for place in places:
        with contextlib.suppress(OSError):  # the scan of the folder reports what is unreachable
            objects.describe(place)
            return str(place)
    return None


@dataclass(frozen=True, slots=True)
class MetadataReport:
    """Counts of a table's rows.

    `column` joins rows to images. `malformed` has the line numbers of the first `malformed_rows`;
    the header is line 1. If no row matches any image, `unmatched` shows how both are named.
    """

    file: str
    column: str
    rows: int
    malformed_rows: int
    malformed: list[int]
    duplicates: int
    rows_without_image: int
    images_without_row: int
    unmatched: str | None = None

    def to_dict(self) -> dict[str, object]:
        return {
            "file": self.file,
            "column": self.column,
            "rows": self.rows,
            "malformed": self.malformed_rows,
            "malformed_lines": self.malformed,
            "duplicates": self.duplicates,
            "rows_without_picture": self.rows_without_image,
            "pictures_without_row": self.images_without_row,
        }


class MetadataTable:
    """The rows of one CSV file, looked up by the path of an image.

    `fields` maps each column but the joining one to its type: `bool` (true/false), `int` (64
    bits), `float` or `str`; dates are `str` in ISO order. Empty cells are no values, nor is `N/A`
    or the like in a column of numbers. If two rows have the same key, the first counts. Use it as a
    context manager, which removes the temporary file.
    """

    def __init__(
        self,
        file: str,
        scope: str | None = None,
        places: Sequence[Path] | None = None,
        examples: Iterable[str] = (),
    ) -> None:
        """Read `file`, for images below the folder `scope`, or for all if it is None.

        `places` are folders for the temporary file, by preference. `examples` are paths of images,
        which decide if several columns may name the images. Raises MetadataError if the table
        cannot be read, or has no header or no column to join by, and ScratchError if no temporary
        file can be written.
        """
        self.file = file
        # In Kaggle's layout `images` may be a link to another folder.
        images = () if scope and ObjectUrl.parse(scope) else ("images",)
        self._scopes = (
            (scope, *(os.path.realpath(os.path.join(scope, each)) for each in images))
            if scope
            else ()
        )
        real = file if ObjectUrl.parse(file) else os.path.realpath(file)
        self._folder = os.path.dirname(real)
        self.id = hashlib.blake2b(os.fsencode(path_to_uri(real)), digest_size=4).hexdigest()
        self._duplicates = 0
        self._rows = 0
        self._malformed_rows = 0
        self._malformed: list[int] = []
        self._unmatched_images = 0
        self._unmatched_names: list[str] = []
        self._has_folders = False
        self._padded_length: int | None = None
        self._key_column = self._joining_column(examples)
        with contextlib.ExitStack() as cleanup:
            self._spool = cleanup.enter_context(
                scratch.folder(places or scratch.places(), anywhere=True)
            )
            # One thread at a time uses it: the one that looks files up, then the caller's.
            self._rows_db = sqlite3.connect(
                self._spool / "rows.sqlite", isolation_level=None, check_same_thread=False
            )
            cleanup.callback(self._rows_db.close)
            with self._spooling(), self._opened() as table:
                self._read(table)
            self._cleanup = cleanup.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._cleanup.close()

    def _opened(self) -> contextlib.AbstractContextManager[table_files.Rows]:
        return table_files.open_table(self.file, joining.has_joining_name)

    @contextlib.contextmanager
    def _spooling(self) -> Iterator[None]:
        """Raise ScratchError for errors of SQLite: the disk fails, or the folder was deleted."""
        try:
            yield
        except sqlite3.Error as error:
            raise ScratchError(
                f"{self._spool}: the rows of {self.file} cannot be stored there: {error}"
            ) from error

    def _joining_column(self, examples: Iterable[str]) -> int:
        """Return the index of the column whose cells name most of the examples."""
        with self._opened() as table:
            rows = (row for _, row in table.rows)
            first = list(islice(rows, _FIRST_ROWS))
            columns = joining.joining_columns(table.header, first)
            if not columns:
                raise MetadataError(
                    f"{self.file}: no column to join by: it needs `id` (the file name without its "
                    f"extension), `filename` or `path`, or a column of image file names; it has "
                    f"{', '.join(table.header)}"
                )
            if len(columns) == 1:
                return columns[0]
            matches = joining.MatchCounter(columns, islice(examples, MAX_EXAMPLES), self._folder)
            for row in chain(first, rows):
                if len(row) >= len(table.header):
                    matches.add(row)
            return matches.best()

    @property
    def column(self) -> str:
        """The column that joins rows to images."""
        return self._header[self._key_column]

    def _read(self, table: table_files.Rows) -> None:
        database = self._rows_db
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        database.execute(
            "CREATE TABLE row (key TEXT PRIMARY KEY, loose TEXT, cells TEXT, image TEXT)"
        )
        database.execute("CREATE INDEX loosely ON row (loose) WHERE loose IS NOT NULL")
        database.execute("BEGIN")
        self._header = header = table.header
        self._columns = {
            name: Column(table.delimiter)
            for index, name in enumerate(header)
            if name and index != self._key_column
        }
        for line, row in table.rows:
            self._rows += 1
            # Extra delimiters at the end of a line add empty cells.
            while len(row) > len(header) and not row[-1].strip():
                row.pop()
            key = joining.key_of(row[self._key_column]) if len(row) == len(header) else ""
            if not key:
                self._malformed_rows += 1
                if len(self._malformed) < _MAX_LINES:
                    self._malformed.append(line)
                continue
            self._store(key, dict(zip(header, row, strict=True)), line)
        database.execute("COMMIT")
        self._formats: dict[str, Format] = {
            name: TEXT if name == DESCRIPTION else column.format
            for name, column in self._columns.items()
            if column.seen
        }
        self.fields: dict[str, FieldType] = {
            name: format_.type for name, format_ in self._formats.items()
        }

    def _store(self, key: str, row: Mapping[str, str], line: int) -> None:
        cells = {}
        for name, column in self._columns.items():
            if text := row[name].strip():
                cells[name] = text
                column.add(text, line)
        self._has_folders = self._has_folders or "/" in key
        loose = joining.loose_key(key)
        stored = self._rows_db.execute(
            "INSERT OR IGNORE INTO row VALUES (?, ?, ?, NULL)",
            (key, None if loose == key else loose, json.dumps(cells)),
        )
        self._duplicates += stored.rowcount == 0

    @property
    def columns(self) -> list[str]:
        """All fields that rows can set, including those that no row sets."""
        return list(self._columns)

    def covers(self, path: str) -> bool:
        """Return whether the table applies to an image at this path."""
        return not self._scopes or any(
            path.startswith(os.path.join(scope, "")) for scope in self._scopes
        )

    def lookup(self, path: str) -> Metadata | None:
        """Return the typed row of an image, or None, and count both for the report."""
        with self._spooling():
            found = self._row_of(path)
        if found is None:
            self._unmatched_images += 1
            if len(self._unmatched_names) < _SHOWN:
                self._unmatched_names.append(os.path.basename(path))
            return None
        return self._parse(json.loads(found))

    def _row_of(self, path: str) -> str | None:
        """Return the cells of an image's row, as JSON."""
        has_folders = self._has_folders
        keys = joining.exact_keys(path, self._folder) if has_folders else joining.file_keys(path)
        exact = {
            key: (cells, image)
            for key, cells, image in self._rows_db.execute(
                f"SELECT key, cells, image FROM row WHERE key IN ({_marks(keys)})",  # noqa: S608
                keys,
            )
        }
        name = os.path.basename(path).encode("utf-8", "replace").decode()
        key = next((key for key in keys if key in exact), None)
        if key is not None:
            cells, image = exact[key]
        elif (found := self._loose_match(keys, path, name)) is not None:
            key, cells, image = found
        else:
            return None
        if image != name:
            self._rows_db.execute("UPDATE row SET image = ? WHERE key = ?", (name, key))
        return str(cells)

    def _loose_match(
        self, keys: Sequence[str], path: str, name: str
    ) -> tuple[str, str, Any] | None:
        for loose in joining.loose_keys(keys):
            rows = self._rows_db.execute(
                "SELECT key, cells, image FROM row WHERE loose = ? "
                "UNION ALL SELECT key, cells, image FROM row WHERE key = ? AND loose IS NULL "
                "LIMIT 2",
                (loose, loose),
            ).fetchall()
            if not rows:
                continue
            key, cells, image = rows[0]
            if len(rows) > 1 or image not in (None, name) or self._may_be_another(key, path):
                return None
            return key, cells, image
        return None

    def _may_be_another(self, key: str, path: str) -> bool:
        """Return whether a row that matches an image loosely may belong to another image."""
        if digits := joining.padded_length(key, path):
            # If all names have the same number of digits, each number is one image.
            self._padded_length = self._padded_length or digits
            if digits != self._padded_length:
                return True
        return joining.names_another_file(key, path)

    def _parse(self, cells: Mapping[str, str]) -> Metadata:
        values: dict[str, Value] = {}
        for name, text in cells.items():
            value = parse_as(text, self._formats[name], self.fields[name])
            if value is not None:
                values[name] = value
        return values

    def adopt_types(self, fields: Mapping[str, FieldType]) -> list[str]:
        """Parse the columns as the types that a collection already has for them.

        Values of another type are ignored from then on. Returns a sentence for each column with
        such values, with an example.
        """
        misfits = []
        for name, mine in self.fields.items():
            theirs = fields.get(name, mine)
            example = self._columns[name].mismatches.get(theirs)
            if example and not _fits(mine, theirs):
                line, text = example
                misfits.append(
                    f"the collection has {name!r} as {theirs}, but the file has values that are "
                    f"{mine}, for example {text!r} in line {line}"
                )
            self.fields[name] = theirs
        return misfits

    def report(self) -> MetadataReport:
        with self._spooling():
            unused, used = self._rows_db.execute(
                "SELECT count(*) - count(image), count(image) FROM row"
            ).fetchone()
        no_match = unused and not used and self._unmatched_images
        return MetadataReport(
            self.file,
            self.column,
            self._rows,
            self._malformed_rows,
            self._malformed,
            self._duplicates,
            unused,
            self._unmatched_images,
            self._describe_unmatched() if no_match else None,
        )

    def _describe_unmatched(self) -> str:
        keys = self._rows_db.execute(f"SELECT key FROM row LIMIT {_SHOWN}")  # noqa: S608
        return (
            f"no row of {self.file} matches an image: the images are named "
            f"{_shown(self._unmatched_names)}, and the rows, in the column {self.column}, "
            f"{_shown(key for (key,) in keys)}"
        )


def _shown(names: Iterable[str]) -> str:
    return ", ".join(repr(name[:60]) for name in names)


def _marks(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values))


def _fits(narrow: FieldType, wide: FieldType) -> bool:
    return narrow == wide or wide == "str" or (narrow == "int" and wide == "float")


def common_types(tables: Iterable[Mapping[str, FieldType]]) -> dict[str, FieldType]:
    """Return, for each field, the narrowest type that holds the values of every table."""
    common: dict[str, FieldType] = {}
    for fields in tables:
        for name, mine in fields.items():
            theirs = common.get(name, mine)
            either = (each for each in (mine, theirs) if _fits(mine, each) and _fits(theirs, each))
            common[name] = next(either, "str")
    return common
