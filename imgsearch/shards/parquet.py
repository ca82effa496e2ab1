"""Read the images in a column of a Parquet file, and the other columns as fields.

The image column holds bytes, or structs of `bytes` and `path` as Hugging Face datasets write them.
"""

import datetime
import decimal
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from imgsearch.shards import sidecars
from imgsearch.shards.base import Member, ShardError
from imgsearch.types import Value

_BATCH_BYTES = 8 << 20
_MAX_BATCH_ROWS = 256
_WINDOW_BYTES = 64 << 20
_STREAM_BYTES = 1 << 20


def members(file: BinaryIO, remark: Callable[[str], None]) -> Iterator[Member]:
    """Yield a member for each row. Raises ShardError for a damaged file, or one without images."""
    try:
        with _opened(file) as table:
            column = _image_column(table.schema_arrow, remark)
            labels = _labels(table.schema_arrow)
            row = 0
            for batch in table.iter_batches(_batch_rows(table, column)):
                contents = batch.column(column)
                fields = batch.drop_columns([column]).to_pylist()
                for at, content in enumerate(contents):
                    yield _member(row, content, _fields(fields[at] if fields else {}, labels))
                    row += 1
    except (pa.ArrowException, ValueError, OverflowError, EOFError) as error:
        raise ShardError(f"the Parquet file is damaged: {_first_line(error)}") from error


def _opened(file: BinaryIO) -> pq.ParquetFile:
    # Without a buffer a whole column of a row group would be in memory.
    return pq.ParquetFile(file, buffer_size=_STREAM_BYTES, pre_buffer=False)


def _batch_rows(table: pq.ParquetFile, column: str) -> int:
    """Return how many rows to hold at once, by the mean size of an image."""
    place = [_name(table, at) for at in range(table.metadata.num_columns)].index(column)
    most = 1.0
    for group in map(table.metadata.row_group, range(table.metadata.num_row_groups)):
        most = max(most, group.column(place).total_uncompressed_size / max(group.num_rows, 1))
    return int(max(1, min(_MAX_BATCH_ROWS, _BATCH_BYTES / most)))


def _name(table: pq.ParquetFile, leaf: int) -> str:
    return str(table.metadata.schema.column(leaf).path).partition(".")[0]


def _image_column(schema: pa.Schema, remark: Callable[[str], None]) -> str:
    features = _features(schema)
    named = [field.name for field in schema if _type_of(features.get(field.name)) == "Image"]
    structs = [field.name for field in schema if _is_image_struct(field.type)]
    plain = [field.name for field in schema if _is_bytes(field.type)]
    found = named or structs or plain
    if not found:
        raise ShardError(
            "no column of images: it needs one of bytes, or of structs with the field `bytes`; it "
            f"has {', '.join(schema.names)}"
        )
    if others := [name for name in {*named, *structs, *plain} if name != found[0]]:
        remark(f"the images are those of the column {found[0]!r}; not read: {sorted(others)}")
    return str(found[0])


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_image_struct(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind):
        return False
    return any(field.name == "bytes" and _is_bytes(field.type) for field in kind)


def _features(schema: pa.Schema) -> Mapping[str, Any]:
    """Return what Hugging Face datasets write about the columns."""
    try:
        found = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _type_of(feature: Any) -> Any:
    return feature.get("_type") if isinstance(feature, dict) else None


def _labels(schema: pa.Schema) -> dict[str, list[str]]:
    """Return the names of classes by column, which holds their numbers."""
    return {
        name: feature["names"]
        for name, feature in _features(schema).items()
        if _type_of(feature) == "ClassLabel" and isinstance(feature.get("names"), list)
    }


def _fields(row: Mapping[str, Any], labels: Mapping[str, list[str]]) -> dict[str, Value]:
    fields = {}
    for name, found in row.items():
        if name in labels and isinstance(found, int) and 0 <= found < len(labels[name]):
            found = labels[name][found]
        if (value := _value(found)) is not None:
            fields[name] = value
    return fields


def _value(found: Any) -> Value | None:
    match found:
        case datetime.date() | datetime.time():
            return found.isoformat()
        case decimal.Decimal():
            return float(found)
        case dict() | list():
            try:
                return json.dumps(found, ensure_ascii=False)
            except (TypeError, ValueError):  # of bytes
                return None
    return sidecars.value_of(found)


def _member(row: int, content: pa.Scalar, fields: Mapping[str, Value]) -> Member:
    buffer = _bytes_of(content)
    if buffer is None:
        problem = "the row has the path of an image, but not its bytes" * _has_path(content)
        return Member(f"row={row}", row, 0, 0, "row", problem=problem)
    return Member(f"row={row}", row, buffer.size, buffer.size, "row", fields=fields)


def _bytes_of(content: pa.Scalar) -> pa.Buffer | None:
    if isinstance(content, pa.StructScalar):
        if not content.is_valid:
            return None
        content = content["bytes"]
    return content.as_buffer() if content.is_valid else None


def _has_path(content: pa.Scalar) -> bool:
    if not isinstance(content, pa.StructScalar) or not content.is_valid:
        return False
    return "path" in content.type.names and content["path"].is_valid


class Rows:
    """The images of a Parquet file by row. Threads may use it at once; one at a time reads.

    A row group is decoded from its start up to the row that is asked for, some rows at a time.
    Those that were passed are remembered, up to 64 MB: so rows in about their order are decoded
    once, and a single one costs up to a row group.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._lock = threading.Lock()
        self._file = file
        try:
            self._table = _opened(file)
            self._column = _image_column(self._table.schema_arrow, lambda _: None)
            self._batch_rows = _batch_rows(self._table, self._column)
        except (pa.ArrowException, ValueError) as error:
            raise ShardError(f"the Parquet file is damaged: {_first_line(error)}") from error
        self._groups: list[tuple[int, int]] = []
        start = 0
        for group in range(self._table.metadata.num_row_groups):
            stop = start + self._table.metadata.row_group(group).num_rows
            self._groups.append((start, stop))
            start = stop
        self._window: OrderedDict[int, bytes] = OrderedDict()
        self._held = 0
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._next, self._stop = 0, 0

    def close(self) -> None:
        self._file.close()

    def content(self, row: int) -> bytes:
        """Return the image in a row. Raises ShardError."""
        with self._lock:
            try:
                return self._content(row)
            except (pa.ArrowException, StopIteration, ValueError) as error:
                self._next = self._stop = 0
                raise ShardError(
                    f"the Parquet file is damaged: {_first_line(error) or 'a row is missing'}"
                ) from error

    def _content(self, row: int) -> bytes:
        if (found := self._window.get(row)) is None:
            if not self._next <= row < self._stop:
                self._begin(row)
            while row >= self._next:
                self._advance()
            found = self._window[row]
        self._window.move_to_end(row, last=False)  # the first to be dropped
        while self._held > _WINDOW_BYTES and len(self._window) > 1:
            self._held -= len(self._window.popitem(last=False)[1])
        return found

    def _begin(self, row: int) -> None:
        for group, (start, stop) in enumerate(self._groups):
            if start <= row < stop:
                self._batches = self._table.iter_batches(
                    self._batch_rows, row_groups=[group], columns=[self._column]
                )
                self._next, self._stop = start, stop
                return
        raise ShardError("no such row in the Parquet file")

    def _advance(self) -> None:
        for content in next(self._batches).column(self._column):
            buffer = _bytes_of(content)
            known = self._window.pop(self._next, b"")
            data = buffer.to_pybytes() if buffer else b""
            self._window[self._next] = data
            self._held += len(data) - len(known)
            self._next += 1
        while self._held > _WINDOW_BYTES and len(self._window) > 2 * self._batch_rows:
            self._held -= len(self._window.popitem(last=False)[1])


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
