"""Write the results of many query images to a file: whole or not at all, and resumable.

Results are appended to FILE.partial, as lines of JSON, whose first line says what was searched for.
At the end they are converted to the format of FILE, a row for each hit.
"""

import contextlib
import csv
import json
import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import IO, Any

from imgsearch.bulk.result import QueryResult
from imgsearch.errors import UsageError
from imgsearch.system.atomic import publish
from imgsearch.system.outputs import check_replaceable, not_written
from imgsearch.types import FieldType, Value
from imgsearch.uris import path_digest

_COLUMNS = ("query", "rank", "score", "percentile", "id", "uri", "path", "sha256")
_PLACES = ("uri", "path")
_ERROR = "error"
# By suffix: what a file is called, and how one that may be replaced begins, in lower case.
_FORMATS = {
    ".parquet": ("a Parquet file", b"par1"),
    ".csv": ("the output of a query", b"query,rank,"),
    ".jsonl": ("the output of a query", b'{"query": '),
}
_ROWS_PER_GROUP = 10_000

Row = Mapping[str, Value | None]


class ResultFile:
    """Collects results, and writes the file when all are there.

    A row has the columns query, rank, score, percentile, id, uri, path and sha256, then the
    metadata fields `fields`, then error. An image without hits has one row without a rank; `error`
    says why it could not be searched for. Use it as a context manager: without `finish`, what was
    added stays in FILE.partial, for a run that resumes.
    """

    def __init__(
        self,
        file: str,
        settings: Mapping[str, Any],
        fields: Mapping[str, FieldType],
        *,
        resume: bool = False,
        places: bool = True,
    ) -> None:
        """Open the partial file. `settings` are what decides the results, as JSON values.

        Without `places`, there are no columns uri and path, which name places of this machine.
        With `resume`, continues the file of an interrupted run. Raises UsageError if that run had
        other settings, if FILE has an unknown suffix, or exists and is something else; SourceError
        if it cannot be written.
        """
        self._file = file
        self._fields = fields
        self._columns = [name for name in _COLUMNS if places or name not in _PLACES]
        self._format = os.path.splitext(file)[1].lower()
        if self._format not in _FORMATS:
            known = ", ".join(_FORMATS)
            raise UsageError(f"{file}: the format is unknown: end the name with one of {known}")
        kind, beginning = _FORMATS[self._format]
        check_replaceable(file, kind, (beginning,))
        self._target = Path(os.path.realpath(file))
        self._partial = self._target.with_name(f"{self._target.name}.partial")
        self._done: set[bytes] = set()
        self.rejected = 0
        """Images of the interrupted run that could not be searched for."""
        header = json.dumps({"imgsearch": 2, **settings})
        with self._writing():
            if resume and self._partial.exists():
                self._resume(header)
            else:
                self._partial.write_text(header + "\n", encoding="utf-8")
            self._lines: IO[str] = self._partial.open("a", encoding="utf-8")

    def __enter__(self) -> "ResultFile":
        return self

    def __exit__(self, *_: object) -> None:
        with self._writing():
            self._lines.close()

    @property
    def done(self) -> int:
        """The number of images that have a result."""
        return len(self._done)

    def has(self, path: str) -> bool:
        """Return whether the image at a path has a result."""
        return path_digest(path) in self._done

    def add(self, result: QueryResult) -> None:
        """Append a result. Raises SourceError if the disk is full."""
        hits = [
            [
                hit.rank,
                hit.score,
                hit.percentile,
                *(getattr(hit.record, name) for name in self._columns[4:]),
                *(hit.record.metadata.get(field) for field in self._fields),
            ]
            for hit in result.hits
        ]
        line = {"query": result.path, "hits": hits, _ERROR: result.error}
        with self._writing():
            self._lines.write(json.dumps(line) + "\n")
        self._done.add(path_digest(result.path))

    def finish(self) -> None:
        """Write the file. Raises SourceError, and then leaves the partial one."""
        with self._writing():
            self._lines.close()
            part = self._target.with_name(f"{self._target.name}.part")
            try:
                self._convert(part)
                publish(part, self._target)
            finally:
                part.unlink(missing_ok=True)
            self._partial.unlink()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise not_written(self._file, error) from error

    def _resume(self, header: str) -> None:
        """Read which images have a result, and cut off a line that was not written to its end."""
        with self._partial.open("rb+") as lines:
            if (first := lines.readline().decode("utf-8", "replace").rstrip("\n")) != header:
                raise UsageError(
                    f"{self._partial}: is not of this search ({_difference(first, header)}): "
                    "repeat the search of the interrupted run, or start again"
                )
            end = lines.tell()
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                end += len(line)
                result = json.loads(line)
                self._done.add(path_digest(result["query"]))
                self.rejected += result[_ERROR] is not None
            lines.truncate(end)

    def _rows(self) -> Iterator[dict[str, Value | None]]:
        names = [*self._columns[1:], *self._fields]
        with self._partial.open(encoding="utf-8") as lines:
            for line in islice(lines, 1, None):
                result = json.loads(line)
                for hit in result["hits"] or [[None] * len(names)]:
                    values = dict(zip(names, hit, strict=True))
                    yield {"query": result["query"], **values, _ERROR: result[_ERROR]}

    def _convert(self, part: Path) -> None:
        if self._format == ".parquet":
            self._write_parquet(part)
        elif self._format == ".csv":
            names = [*self._columns, *self._fields, _ERROR]
            # Names of files may be no text: their bytes are written as they are.
            with part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
                table = csv.DictWriter(file, names)
                table.writeheader()
                table.writerows(self._rows())
        else:
            with part.open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in self._rows())

    def _write_parquet(self, part: Path) -> None:
        from imgsearch.stores.lance.arrow import ARROW_TYPES, pa  # first: it hides pandas

        # isort: split
        from pyarrow import parquet

        columns = {name: pa.string() for name in self._columns}
        columns |= {"rank": pa.int32(), "score": pa.float64(), "percentile": pa.float64()}
        columns |= {name: ARROW_TYPES[kind] for name, kind in self._fields.items()}
        schema = pa.schema({**columns, _ERROR: pa.string()})
        rows = self._rows()
        with parquet.ParquetWriter(part, schema, compression="zstd") as writer:
            while group := [_as_text(row) for row in islice(rows, _ROWS_PER_GROUP)]:
                writer.write_table(pa.Table.from_pylist(group, schema=schema))


def _as_text(row: Row) -> Row:
    """Escape what Parquet cannot hold: bytes of file names that are no text."""
    return {
        name: value.encode("utf-8", "backslashreplace").decode()
        if isinstance(value, str)
        else value
        for name, value in row.items()
    }


def _difference(found: str, wanted: str) -> str:
    """Return what another run searched for."""
    try:
        before, now = json.loads(found), json.loads(wanted)
        return ", ".join(
            f"{name} was {before.get(name)!r}" for name in now if before.get(name) != now[name]
        )
    except (ValueError, AttributeError):
        return "its first line is damaged"
