"""Write the results of many query images to a file: whole or not at all, and resumable.

Results are appended to FILE.partial, as lines of JSON, whose first line says what was searched for.
At the end they are converted to the format of FILE, a row for each hit.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import IO, Any

from imgsearch.bulk.result import QueryResult
from imgsearch.bulk.rows import ColumnType, check_file, writing
from imgsearch.errors import UsageError
from imgsearch.system.atomic import publish
from imgsearch.system.outputs import not_written
from imgsearch.types import FieldType, Value
from imgsearch.uris import path_digest

_COLUMNS = ("query", "rank", "score", "percentile", "id", "uri", "path", "sha256")
_PLACES = ("uri", "path")
_ERROR = "error"


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
        self._format = check_file(file, "the output of a query", _COLUMNS[:2])
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
        columns: dict[str, ColumnType] = dict.fromkeys(self._columns, "str")
        columns |= {"rank": "int32", "score": "float", "percentile": "float"}
        columns |= {**self._fields, _ERROR: "str"}
        with writing(part, self._format, columns) as table:
            for row in self._rows():
                table.add(row)


def _difference(found: str, wanted: str) -> str:
    """Return what another run searched for."""
    try:
        before, now = json.loads(found), json.loads(wanted)
        return ", ".join(
            f"{name} was {before.get(name)!r}" for name in now if before.get(name) != now[name]
        )
    except (ValueError, AttributeError):
        return "its first line is damaged"
