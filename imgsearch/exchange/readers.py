"""Read files with vectors and the rows that belong to them, a batch at a time."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from imgsearch.errors import MetadataError, Remedy, SourceError, UsageError
from imgsearch.exchange.layout import VECTOR, Layout
from imgsearch.exchange.vectors import as_float32, load_vectors, unreadable
from imgsearch.filters import parse_value
from imgsearch.metadata.columns import Column, parse_as
from imgsearch.metadata.files import open_table
from imgsearch.stores.base import Vectors
from imgsearch.types import FieldType, Value

_ROWS = 2048
# Names of the column of vectors, if a table has several columns of lists of floats.
_VECTOR_NAMES = (VECTOR, "embedding", "embeddings", "image_embedding", "img_emb", "emb", "vectors")
_TABLES = (".csv", ".parquet")


@dataclass(frozen=True, slots=True)
class Rows:
    """A batch of rows, with their vectors as read, of shape (n, dimension).

    `unusable` has the reason why a row has no vector, by its place in the batch; its vector is 0.
    """

    rows: Sequence[Mapping[str, Any]]
    vectors: Vectors
    unusable: Mapping[int, str] = field(default_factory=dict)


class Part(Protocol):
    """One file of vectors with its rows."""

    @property
    def file(self) -> str: ...

    @property
    def layout(self) -> Layout | None:
        """What imgsearch wrote into the file, or None if another program made it."""
        ...

    @property
    def columns(self) -> Mapping[str, FieldType]:
        """The columns whose values can be metadata, with their types."""
        ...

    @property
    def ignored(self) -> Sequence[str]:
        """Columns whose type no field can have, such as lists."""
        ...

    @property
    def dimension(self) -> int: ...

    @property
    def count(self) -> int:
        """The number of rows."""
        ...

    def batches(self) -> Iterator[Rows]:
        """Yield all rows in order. Raises SourceError if the file cannot be read to its end."""
        ...


def open_parts(
    source: str, table: str | None = None, vector_column: str | None = None
) -> list[Part]:
    """Open the files of a source: a .parquet or .npy file, or a folder of them.

    In a folder as clip-retrieval writes it, `img_emb` has the vectors and `metadata` the tables.
    Raises SourceError, UsageError or MetadataError.
    """
    path = Path(os.path.expanduser(source))
    if path.is_dir():
        if table:
            raise UsageError("a table belongs to one file of vectors, not to a folder")
        files = _files_in(path)
    elif path.exists():
        files = [path]
    else:
        raise SourceError(f"{source}: no such file or folder; nothing was done")
    return [_open(file, table, vector_column) for file in files]


def _files_in(folder: Path) -> list[Path]:
    try:
        for place, suffix in ((folder / "img_emb", ".npy"), (folder, ".npy"), (folder, ".parquet")):
            found = [each for each in place.iterdir() if each.suffix == suffix] * place.is_dir()
            if found:
                return sorted(found, key=_numerically)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise unreadable(folder, error) from error
    raise SourceError(f"{folder}: has neither .npy nor .parquet files; nothing was done")


def _numerically(path: Path) -> list[tuple[bool, int, str]]:
    parts = re.split(r"(\d+)", path.name)
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


def _open(file: Path, table: str | None, vector_column: str | None) -> Part:
    try:
        if file.suffix.lower() == ".parquet":
            if table:
                raise UsageError(f"{file}: has its rows itself; a table is for a .npy file")
            return ParquetPart(file, vector_column)
        if file.suffix.lower() == ".npy":
            if vector_column:
                raise UsageError(f"{file}: has no columns; a vector column is for a .parquet file")
            return NpyPart(file, Path(os.path.expanduser(table)) if table else _table_of(file))
    except OSError as error:
        raise unreadable(file, error) from error
    raise UsageError(f"{file}: the format is unknown: it must be .parquet, .npy or a folder")


def _table_of(vectors: Path) -> Path:
    """Return the table of a .npy file: of the same name, or as clip-retrieval names it."""
    places = [vectors.with_suffix(suffix) for suffix in _TABLES]
    if vectors.name.startswith("img_emb_"):
        name = vectors.with_suffix(".parquet").name.replace("img_emb_", "metadata_", 1)
        places += [vectors.with_name(name), vectors.parent.parent / "metadata" / name]
    for place in places:
        if place.is_file():
            return place
    raise SourceError(
        f"{vectors}: there is no table that says which image each vector is of (looked for "
        f"{', '.join(map(str, places))})",
        Remedy.NAME_THE_TABLE,
    )


class _ParquetTable:
    """The rows of a Parquet file."""

    def __init__(self, file: Path) -> None:
        from imgsearch.stores.lance.arrow import pa  # first: it hides pandas

        # isort: split
        from pyarrow import parquet

        self._pa = pa
        self.file = file
        try:
            self._parquet = parquet.ParquetFile(file)
        except pa.ArrowException as error:
            raise unreadable(file, error) from error
        self.schema = self._parquet.schema_arrow
        self.count: int = self._parquet.metadata.num_rows
        description = (self.schema.metadata or {}).get(b"imgsearch")
        self.layout = Layout.from_json(description, str(file)) if description else None
        if len(set(self.schema.names)) < len(self.schema.names):
            raise MetadataError(f"{file}: two columns have the same name")
        self.columns: dict[str, FieldType] = {}
        self.ignored: list[str] = []
        for column in self.schema:
            kind = self._kind(column.type)
            if kind:
                self.columns[column.name] = kind
            elif not pa.types.is_null(column.type) and not self._vector_size(column.type):
                self.ignored.append(column.name)

    def _kind(self, kind: Any) -> FieldType | None:
        types = self._pa.types
        if types.is_dictionary(kind):
            kind = kind.value_type
        if types.is_boolean(kind):
            return "bool"
        if types.is_integer(kind):
            return "int"
        if types.is_floating(kind) or types.is_decimal(kind):
            return "float"
        is_text = types.is_string(kind) or types.is_large_string(kind)
        return "str" if is_text or types.is_date(kind) or types.is_timestamp(kind) else None

    def _vector_size(self, kind: Any) -> int:
        """Return the dimension of a column of vectors, -1 if it varies, 0 if it is none."""
        types = self._pa.types
        is_list = types.is_list(kind) or types.is_large_list(kind)
        if not (is_list or types.is_fixed_size_list(kind)):
            return 0
        if not types.is_floating(kind.value_type):
            return 0
        return -1 if is_list else int(kind.list_size)

    def vector_columns(self) -> dict[str, int]:
        """Return the columns of vectors with their dimension, -1 if it varies."""
        sizes = {column.name: self._vector_size(column.type) for column in self.schema}
        return {name: size for name, size in sizes.items() if size}

    def batches(self, *more: str) -> Iterator[tuple[list[dict[str, Any]], Any]]:
        """Yield rows, and the batch of Arrow that they come from, with more columns."""
        names = list(self.columns)
        try:
            for batch in self._parquet.iter_batches(_ROWS, columns=[*names, *more]):
                yield self._rows(batch.select(names)), batch
        except (OSError, self._pa.ArrowException) as error:
            raise unreadable(self.file, error) from error

    def _rows(self, batch: Any) -> list[dict[str, Any]]:
        if not batch.num_columns:
            return [{} for _ in range(batch.num_rows)]
        columns = {}
        for column in batch.schema:
            values = batch[column.name]
            if self._kind(column.type) == "str" and not self._pa.types.is_dictionary(column.type):
                values = values.cast(self._pa.string())  # dates as ISO
            columns[column.name] = values.to_pylist()
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


class ParquetPart:
    """A Parquet file with a column of vectors."""

    def __init__(self, file: Path, vector_column: str | None = None) -> None:
        self._table = _ParquetTable(file)
        self.file = str(file)
        self.layout = self._table.layout
        self.columns = self._table.columns
        self.ignored = self._table.ignored
        self.count = self._table.count
        vectors = self._table.vector_columns()
        self._column = self._choose(vectors, vector_column)
        size = vectors[self._column]
        self.dimension = size if size > 0 else self._first_size()
        self.ignored += [name for name in vectors if name != self._column]

    def _choose(self, columns: Mapping[str, int], wanted: str | None) -> str:
        if wanted is not None and wanted not in columns:
            known = ", ".join(columns) or "none"
            raise UsageError(f"{self.file}: {wanted} is no column of vectors (there is {known})")
        if not columns:
            raise MetadataError(
                f"{self.file}: has no column of vectors, that is of lists of floats; it has "
                f"{', '.join(self._table.schema.names)}"
            )
        by_name = [each for name in _VECTOR_NAMES for each in columns if each.lower() == name]
        if wanted is None and len(columns) > 1 and not by_name:
            raise UsageError(
                f"{self.file}: has several columns of vectors: {', '.join(columns)}",
                Remedy.NAME_THE_VECTOR_COLUMN,
            )
        return wanted or next(iter([*by_name, *columns]))

    def _first_size(self) -> int:
        """Return the length of the first vector, as the schema does not tell."""
        for _, batch in self._table.batches(self._column):
            for value in batch[self._column]:
                if value.is_valid and len(value):
                    return len(value)
        raise MetadataError(f"{self.file}: the column {self._column} has no vector")

    def batches(self) -> Iterator[Rows]:
        for rows, batch in self._table.batches(self._column):
            yield Rows(rows, *_vectors_of(batch[self._column], self.dimension))


def _vectors_of(column: Any, dimension: int) -> tuple[Vectors, dict[int, str]]:
    from imgsearch.stores.lance.arrow import pc

    lengths = pc.list_value_length(column).to_pylist()
    if all(length == dimension for length in lengths):
        flat = column.flatten().to_numpy(zero_copy_only=False)
        return as_float32(flat.reshape(-1, dimension)), {}
    vectors, unusable = np.zeros((len(lengths), dimension), np.float32), dict[int, str]()
    for place, length in enumerate(lengths):
        if length == dimension:
            vectors[place] = as_float32(column[place].values.to_numpy(zero_copy_only=False))
        else:
            unusable[place] = (
                "it has no vector"
                if length is None
                else f"its vector has {length} dimensions, not {dimension}"
            )
    return vectors, unusable


class NpyPart:
    """A .npy file of vectors, and a CSV or Parquet file with as many rows."""

    def __init__(self, file: Path, table: Path) -> None:
        self.file = str(file)
        self._vectors = load_vectors(file)
        if self._vectors.ndim != 2:
            raise MetadataError(
                f"{file}: has the shape {self._vectors.shape}, and vectors have (n, dimension)"
            )
        self.count, self.dimension = self._vectors.shape
        if not table.is_file():
            raise SourceError(f"{table}: no such file; nothing was done")
        self._table: _ParquetTable | _CsvTable
        self._table = _ParquetTable(table) if table.suffix == ".parquet" else _CsvTable(table)
        self.layout = self._table.layout
        self.columns = self._table.columns
        self.ignored = self._table.ignored
        if self._table.count != self.count:
            raise MetadataError(
                f"{file} has {self.count:,} vectors, but {table} has {self._table.count:,} rows: "
                "they do not belong together"
            )

    def batches(self) -> Iterator[Rows]:
        start = 0
        for rows, _ in self._table.batches():
            yield Rows(rows, as_float32(self._vectors[start : start + len(rows)]))
            start += len(rows)


class _CsvTable:
    """The rows of a CSV file, typed by the description beside it, or else by their values."""

    def __init__(self, file: Path) -> None:
        self._file = str(file)
        self.layout = self._described(file)
        self.ignored: list[str] = []
        self.count = 0
        with open_table(self._file, lambda cells: len(cells) > 1) as table:
            self._header = table.header
            inferred = [Column(table.delimiter) for _ in table.header]
            for line, row in table.rows:
                self.count += 1
                if len(row) != len(self._header):
                    raise MetadataError(
                        f"{file}: line {line} has {len(row)} cells, and the header "
                        f"{len(self._header)}: a row is needed for each vector"
                    )
                if not self.layout:
                    for column, text in zip(inferred, row, strict=True):
                        if text.strip():
                            column.add(text.strip(), line)
        self._formats = [column.format for column in inferred]
        if self.layout:
            self.columns = self.layout.columns
            if self._header != [name.strip() for name in self.columns]:
                raise MetadataError(f"{file}: its columns are not those of its description")
            self._header = list(self.columns)
        else:
            self.columns = {
                name: column.format.type
                for name, column in zip(self._header, inferred, strict=True)
                if name and column.seen
            }

    @staticmethod
    def _described(file: Path) -> Layout | None:
        description = file.with_suffix(".json")
        try:
            text = description.read_text(encoding="utf-8")
            if not isinstance(header := json.loads(text), dict) or "imgsearch" not in header:
                return None
        except (FileNotFoundError, ValueError):
            return None
        return Layout.from_json(text, str(description))

    def batches(self) -> Iterator[tuple[list[dict[str, Any]], None]]:
        with open_table(self._file, lambda cells: len(cells) > 1) as table:
            rows = (self._typed(row) for _, row in table.rows)
            while some := list(islice(rows, _ROWS)):
                yield some, None

    def _typed(self, row: Sequence[str]) -> dict[str, Value | None]:
        values: dict[str, Value | None] = {}
        for name, format_, text in zip(self._header, self._formats, row, strict=True):
            kind = self.columns.get(name)
            if kind is None:
                continue
            if self.layout:
                values[name] = parse_value(text, kind) if text else None
            else:
                values[name] = parse_as(text.strip(), format_, kind) if text.strip() else None
        return values
