"""Write exported records: to Parquet, or to .npy with the records in a CSV file beside it.

Each writer writes to temporary files in the folder of the target, and `publish` renames them.
"""

import contextlib
import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from imgsearch.errors import ScratchError, UsageError
from imgsearch.exchange.layout import VECTOR, Layout, Row
from imgsearch.stores.base import Vectors
from imgsearch.system import atomic, scratch
from imgsearch.system.outputs import check_replaceable, not_written

_NPY = b"\x93numpy"
_CSV = b"id,uri,site,path,sha256,"
_JSON = b'{"imgsearch": '


class Writer(Protocol):
    """Writes the files of one export."""

    @property
    def files(self) -> Sequence[Path]:
        """The files to write, the one that the user named first."""
        ...

    def add(self, rows: Sequence[Row], vectors: Vectors) -> None:
        """Append rows and their vectors, of shape (n, dimension)."""
        ...

    def close(self) -> None:
        """Complete the temporary files."""
        ...


@contextlib.contextmanager
def open_writer(file: str, layout: Layout) -> Iterator[Writer]:
    """Open a writer for the format of `file`. Its files appear when the context ends.

    They do not if an exception ends it. Raises UsageError for an unknown format, or if a file
    exists and is something else; SourceError if a file cannot be written.
    """
    target = Path(os.path.realpath(os.path.expanduser(file)))
    kind = target.suffix.lower()
    if kind not in _WRITERS:
        raise UsageError(f"{file}: the format is unknown: end the name with .parquet or .npy")
    try:
        target.parent.stat()  # a missing folder is an error, as scratch.folder would create it
        with scratch.folder([target.parent]) as folder, contextlib.ExitStack() as cleanup:
            writer = _WRITERS[kind](target, folder, layout)
            cleanup.callback(writer.close)
            yield writer
            writer.close()
            if len(writer.files) > 1:  # old vectors must not stay beside a new table
                target.unlink(missing_ok=True)
            for path in reversed(writer.files):  # the one that the user named comes last
                atomic.publish(folder / path.name, path)
    except (OSError, ScratchError) as error:
        raise not_written(file, error) from error


class ParquetWriter:
    """One file, whose schema describes the collection. Each batch is a row group."""

    def __init__(self, target: Path, folder: Path, layout: Layout) -> None:
        from imgsearch.stores.lance.arrow import ARROW_TYPES, pa  # first: it hides pandas

        # isort: split
        from pyarrow import parquet

        check_replaceable(str(target), "a Parquet file", (b"par1",))
        self.files = [target]
        self._pa = pa
        self._columns = layout.columns
        vectors = pa.list_(
            pa.field("element", pa.float32(), nullable=False), layout.stamp.dimension
        )
        fields = [pa.field(name, ARROW_TYPES[kind]) for name, kind in self._columns.items()]
        fields.append(pa.field(VECTOR, vectors, nullable=False))
        self._schema = pa.schema(fields, {"imgsearch": layout.to_json()})
        self._writer = parquet.ParquetWriter(
            folder / target.name,
            self._schema,
            # Vectors neither repeat nor compress.
            compression={**dict.fromkeys(self._columns, "zstd"), f"{VECTOR}.list.element": "none"},
            use_dictionary=list(self._columns),
        )

    def add(self, rows: Sequence[Row], vectors: Vectors) -> None:
        pa = self._pa
        arrays = [
            pa.array([row[name] for row in rows], self._schema.field(name).type)
            for name in self._columns
        ]
        flat = pa.array(np.ascontiguousarray(vectors, np.float32).reshape(-1))
        arrays.append(pa.FixedSizeListArray.from_arrays(flat, type=self._schema.field(VECTOR).type))
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


class NpyWriter:
    """Vectors in FILE.npy, the records in FILE.csv, the description in FILE.json."""

    def __init__(self, target: Path, folder: Path, layout: Layout) -> None:
        table, description = target.with_suffix(".csv"), target.with_suffix(".json")
        check_replaceable(str(target), "a .npy file", (_NPY,))
        check_replaceable(str(table), "the table of an export", (_CSV,))
        check_replaceable(str(description), "the description of an export", (_JSON,))
        self.files = [target, table, description]
        self._columns = list(layout.columns)
        self._dimension = layout.stamp.dimension
        self._count = 0
        self._closed = False
        (folder / description.name).write_text(layout.to_json() + "\n", encoding="utf-8")
        self._table = (folder / table.name).open("w", encoding="utf-8", newline="")
        self._lines = csv.writer(self._table, lineterminator="\n")
        self._lines.writerow(self._columns)
        self._vectors = (folder / target.name).open("wb")
        self._header_bytes = self._write_header()

    def _write_header(self) -> int:
        """Write the header for the vectors so far; numpy reserves the room for any number."""
        shape = (self._count, self._dimension)
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._vectors, header)
        return self._vectors.tell()

    def add(self, rows: Sequence[Row], vectors: Vectors) -> None:
        self._lines.writerows([_cell(row[name]) for name in self._columns] for row in rows)
        self._vectors.write(np.ascontiguousarray(vectors, "<f4").tobytes())
        self._count += len(rows)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            self._vectors.seek(0)
            assert self._write_header() == self._header_bytes
        finally:
            self._vectors.close()
            self._table.close()


_WRITERS: Mapping[str, type[ParquetWriter] | type[NpyWriter]] = {
    ".parquet": ParquetWriter,
    ".npy": NpyWriter,
}


def _cell(value: object) -> object:
    """Return a value as a CSV file has it: floats with all digits, booleans as `true`."""
    return str(value).lower() if isinstance(value, bool) else value
