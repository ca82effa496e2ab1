"""What a map holds of each record: kept small, as all records are in memory together."""

import hashlib
import threading
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgsearch.events import Listener, Stage, ignore
from imgsearch.stores.base import Collection
from imgsearch.types import Condition, FieldType, ImageRecord, Value, digest_bytes
from imgsearch.uris import path_to_uri


@dataclass(slots=True)
class Column:
    """The values of a field, one for each record.

    A column of texts or truth values keeps each distinct `values` once, in the order in which they
    come, and `data` is the number of each record's value, -1 for none. For other types `values` is
    None, and `data` has the numbers, NaN for none.
    """

    name: str
    kind: FieldType
    values: list[str] | None = None
    data: "array[Any]" = field(default_factory=lambda: array("d"))
    _codes: dict[Value, int] = field(default_factory=dict)

    def add(self, value: Value | None) -> None:
        if self.values is None:
            self.data.append(float("nan") if value is None else float(value))
        elif value is None:
            self.data.append(-1)
        else:
            code = self._codes.setdefault(value, len(self._codes))
            if code == len(self.values):
                self.values.append(_text(value))
            self.data.append(code)


@dataclass(slots=True)
class Records:
    """The records of a map in the order of a scan.

    Records with the same SHA-256 digest are one content. `content` of shape (records,) is its
    number, and `first` of shape (contents,) the number of its first record. Memory holds the path,
    the URI and the metadata of each record: some hundred bytes.
    """

    columns: list[Column]
    """The metadata fields, then what a map adds."""
    ids: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    digests: dict[bytes, int] = field(default_factory=dict)
    """The number of each content, by SHA-256 digest."""
    content: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    first: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def contents(self) -> int:
        """The number of distinct contents."""
        return len(self.digests)


def read_records(
    collection: Collection,
    where: Sequence[Condition],
    fields: Mapping[str, FieldType],
    listener: Listener = ignore,
    stop: threading.Event | None = None,
) -> Records:
    """Return the records that meet all conditions. Setting `stop` ends the reading early."""
    listener(Stage("reading the records"))
    records = Records([_column(name, kind) for name, kind in fields.items()])
    content, first = array("i"), array("i")
    for batch in collection.scan(where=where):
        if stop and stop.is_set():
            break
        for record in batch:
            number = records.digests.setdefault(digest_bytes(record.sha256), len(first))
            if number == len(first):
                first.append(len(records.ids))
            content.append(number)
            records.ids.append(record.id)
            records.paths.append(record.path)
            records.links.append(_link(record))
            for column in records.columns:
                column.add(record.metadata.get(column.name))
    records.content = np.frombuffer(content, np.int32) if content else records.content
    records.first = np.frombuffer(first, np.int32) if first else records.first
    return records


def fingerprint(collection: Collection, stop: threading.Event | None = None) -> str:
    """Return a digest of what a map shows of all records, whatever their order.

    Setting `stop` ends it early, with a digest that means nothing.
    """
    total = 0
    for batch in collection.scan():
        if stop and stop.is_set():
            break
        for record in batch:
            shown = repr((record.id, record.sha256, record.uri, sorted(record.metadata.items())))
            digest = hashlib.blake2b(shown.encode("utf-8", "surrogatepass"), digest_size=16)
            total += int.from_bytes(digest.digest(), "big")
    return f"{total % 2**128:032x}"


def _column(name: str, kind: FieldType) -> Column:
    if kind in ("str", "bool"):
        return Column(name, kind, [], array("i"))
    return Column(name, kind)


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _link(record: ImageRecord) -> str:
    """Return the address of an image for a browser, or an empty text.

    A store could hold a `javascript:` URI, and a file of another machine cannot be opened here.
    """
    uri = record.uri
    if uri.startswith("file:"):
        return "" if record.site else path_to_uri(record.path)
    return uri if uri.startswith(("http:", "https:")) else ""
