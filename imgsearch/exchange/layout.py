"""What a file of exported records holds: a column for each part of a record, and for each field.

The description of the columns, with the stamp of the vectors, is stored in the file, so that an
import restores the collection.
"""

import json
from collections.abc import Collection as Container
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from imgsearch.errors import MetadataError
from imgsearch.metadata import origins
from imgsearch.metadata.values import is_unicode
from imgsearch.sites import Sites
from imgsearch.stores.base import Collection
from imgsearch.types import FIELD_TYPES, FieldType, ImageRecord, Stamp, Value, VectorDtype

Row = Mapping[str, Value | None]

VECTOR = "vector"
"""The column of vectors: a list of as many float32 as the model has dimensions."""

RECORD_COLUMNS: Mapping[str, FieldType] = {
    "id": "str",
    "uri": "str",
    "site": "str",
    "path": "str",
    "sha256": "str",
    "size": "int",
    "mtime_ns": "int",
    "width": "int",
    "height": "int",
    "origins": "str",
}
"""The columns of a record but its vector and metadata. `uri` is without the site.

`path` is empty if the file is on another machine, or the path is not Unicode.
"""

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Layout:
    """The collection that was exported, and its metadata fields, as name and type by column."""

    collection: str
    stamp: Stamp
    vector_dtype: VectorDtype
    fields: Mapping[str, tuple[str, FieldType]]

    @classmethod
    def of(cls, collection: Collection) -> "Layout":
        """Return the layout of a collection with its current fields."""
        taken = {VECTOR, *RECORD_COLUMNS}
        fields: dict[str, tuple[str, FieldType]] = {}
        for name, kind in collection.refresh_fields().items():
            column = _free_name(name, taken)
            # Some programs do not distinguish the case of columns.
            taken.add(column.casefold())
            fields[column] = name, kind
        return cls(collection.name, collection.stamp, collection.vector_dtype, fields)

    @property
    def columns(self) -> dict[str, FieldType]:
        """All columns but the vector, in order, with their types."""
        return {**RECORD_COLUMNS, **{column: kind for column, (_, kind) in self.fields.items()}}

    @property
    def field_types(self) -> dict[str, FieldType]:
        return dict(self.fields.values())

    def to_json(self) -> str:
        return json.dumps(
            {
                "imgsearch": _VERSION,
                "collection": self.collection,
                "stamp": self.stamp.to_dict(),
                "vector_dtype": self.vector_dtype,
                "fields": {column: list(each) for column, each in self.fields.items()},
            }
        )

    @classmethod
    def from_json(cls, text: str | bytes, file: str) -> "Layout":
        """Parse a `to_json` that is stored in `file`. Raises MetadataError."""
        try:
            header = json.loads(text)
            if header["imgsearch"] != _VERSION:
                raise MetadataError(f"{file}: was exported by a later version of imgsearch")
            fields = {column: (name, kind) for column, (name, kind) in header["fields"].items()}
            if any(kind not in FIELD_TYPES for _, kind in fields.values()):
                raise ValueError("unknown type of a field")
            stamp = Stamp.from_dict(header["stamp"])
            return cls(header["collection"], stamp, header["vector_dtype"], fields)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise MetadataError(f"{file}: the description of the export is damaged") from error

    def to_row(self, record: ImageRecord, sites: Sites) -> dict[str, Value | None]:
        """Return the values of a record by column."""
        site, uri = sites.split(record.uri)
        is_here = record.site is None and uri.startswith("file:")
        row: dict[str, Value | None] = {
            "id": record.id,
            "uri": uri,
            "site": (site or sites.own or None) if uri.startswith("file:") else None,
            "path": record.path if is_here and is_unicode(record.path) else None,
            "sha256": record.sha256,
            "size": record.size,
            "mtime_ns": record.mtime_ns,
            "width": record.width,
            "height": record.height,
            "origins": origins.to_text(record.origins),
        }
        for column, (name, _) in self.fields.items():
            row[column] = record.metadata.get(name)
        return row

    def to_record(self, row: Mapping[str, Any], uri: str) -> ImageRecord:
        """Return the record of a row, which gets this URI. Raises KeyError or TypeError."""
        return ImageRecord(
            uri=uri,
            sha256=row["sha256"],
            size=int(row["size"]),
            mtime_ns=int(row["mtime_ns"]),
            width=int(row["width"]),
            height=int(row["height"]),
            metadata={
                name: row[column]
                for column, (name, _) in self.fields.items()
                if row[column] is not None
            },
            origins=origins.from_text(row["origins"]),
        )


def _free_name(name: str, taken: Container[str]) -> str:
    """Return the name, or one derived from it that is not taken."""

    def candidates() -> Iterator[str]:
        yield name
        yield f"field_{name}"
        for number in count(2):
            yield f"field_{name}_{number}"

    return next(each for each in candidates() if each.casefold() not in taken)
