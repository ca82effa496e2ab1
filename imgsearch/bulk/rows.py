"""Write rows to a Parquet, CSV or JSON Lines file."""

import csv
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Literal, Protocol, Self

from imgsearch.errors import UsageError
from imgsearch.system.atomic import publish
from imgsearch.system.outputs import check_replaceable, not_written
from imgsearch.types import FieldType, Value

_ROWS_PER_GROUP = 10_000
_FORMATS = (".parquet", ".csv", ".jsonl")

Row = Mapping[str, Value | None]
ColumnType = FieldType | Literal["int32"]
Columns = Mapping[str, ColumnType]


def check_file(file: str, kind: str, columns: tuple[str, ...]) -> str:
    """Return the format of a file of rows, its suffix.

    `columns` are the first ones. Raises UsageError if the suffix is unknown, or if the file exists
    and does not begin as such a file does; SourceError if it cannot be read.
    """
    suffix = os.path.splitext(file)[1].lower()
    beginnings = {
        ".parquet": ("a Parquet file", b"par1"),
        ".csv": (kind, ",".join(columns).encode() + b","),
        ".jsonl": (kind, f'{{"{columns[0]}": '.encode()),
    }
    if suffix not in beginnings:
        known = ", ".join(_FORMATS)
        raise UsageError(f"{file}: the format is unknown: end the name with one of {known}")
    described, beginning = beginnings[suffix]
    check_replaceable(file, described, (beginning,))
    return suffix


class RowWriter(Protocol):
    """Writes rows to an open file."""

    def add(self, row: Row) -> None: ...


@contextmanager
def writing(path: Path, suffix: str, columns: Columns) -> Iterator[RowWriter]:
    """Write the rows that are added to a file, which is whole at the end. Raises OSError."""
    if suffix == ".parquet":
        parquet = _Parquet(path, columns)
        try:
            yield parquet
            parquet.flush()
        finally:
            parquet.close()
        return
    # Names of files may be no text: in CSV, their bytes are written as they are.
    errors = "surrogateescape" if suffix == ".csv" else "strict"
    with path.open("w", encoding="utf-8", errors=errors, newline="") as file:
        yield _Csv(file, columns) if suffix == ".csv" else _Lines(file)


class RowFile:
    """A file of rows that is written whole or not at all.

    Use it as a context manager: without `finish`, no file is written.
    """

    def __init__(self, file: str, kind: str, columns: Columns) -> None:
        """Raises UsageError and SourceError as `check_file` does, with the first two columns."""
        self._file, self._columns = file, columns
        self._suffix = check_file(file, kind, tuple(columns)[:2])
        self._target = Path(os.path.realpath(file))
        self._part = self._target.with_name(f"{self._target.name}.part")
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with self._writing():
            self._rows = self._open.enter_context(writing(self._part, self._suffix, self._columns))
        return self

    def __exit__(self, *_: object) -> None:
        with self._writing():
            try:
                self._open.close()
            finally:
                self._part.unlink(missing_ok=True)

    def add(self, row: Row) -> None:
        """Append a row. Raises SourceError if the disk is full."""
        with self._writing():
            self._rows.add(row)

    def finish(self) -> None:
        """Write the file. Raises SourceError."""
        with self._writing():
            self._open.close()
            publish(self._part, self._target)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise not_written(self._file, error) from error


class _Csv:
    def __init__(self, file: IO[str], columns: Columns) -> None:
        self._table = csv.DictWriter(file, list(columns))
        self._table.writeheader()

    def add(self, row: Row) -> None:
        self._table.writerow(row)


class _Lines:
    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def add(self, row: Row) -> None:
        self._file.write(json.dumps(row) + "\n")


class _Parquet:
    """Writes groups of rows, of which one is in memory."""

    def __init__(self, path: Path, columns: Columns) -> None:
        from imgsearch.stores.lance.arrow import ARROW_TYPES, pa  # first: it hides pandas

        # isort: split
        from pyarrow import parquet

        types: dict[str, Any] = {"int32": pa.int32()}
        types.update(ARROW_TYPES.items())
        self._schema = pa.schema({name: types[kind] for name, kind in columns.items()})
        self._from_rows = pa.Table.from_pylist
        self._writer = parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._group: list[Row] = []

    def add(self, row: Row) -> None:
        self._group.append(_as_text(row))
        if len(self._group) >= _ROWS_PER_GROUP:
            self.flush()

    def flush(self) -> None:
        if self._group:
            self._writer.write_table(self._from_rows(self._group, schema=self._schema))
            self._group = []

    def close(self) -> None:
        self._writer.close()


def _as_text(row: Row) -> Row:
    """Escape what Parquet cannot hold: bytes of file names that are no text."""
    return {
        name: value.encode("utf-8", "backslashreplace").decode()
        if isinstance(value, str)
        else value
        for name, value in row.items()
    }
