"""Columns of a collection's dataset; records to rows, and back."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from imgsearch.errors import CollectionMismatchError
from imgsearch.metadata.changes import OriginChanges, changed_origins
from imgsearch.metadata.origins import from_text, to_text
from imgsearch.sites import HERE
from imgsearch.stores.base import Vectors
from imgsearch.stores.lance.arrow import ARROW_TYPES, pa
from imgsearch.text import record_words
from imgsearch.types import FieldType, ImageRecord, Metadata, Stamp, Value, VectorDtype

WORDS = "words"
"""The column that a text search reads."""

VECTOR = "vector"

_ORIGINS = "origins"
_RECORD_COLUMNS = ("uri", "sha256", "size", "mtime_ns", "width", "height")
_PRIMARY_KEY = {b"lance-schema:unenforced-primary-key": b"true"}
_STAMP_KEY = b"imgsearch:stamp"
_FIELD_NAME_KEY = b"imgsearch:field"
_FIELD_TYPES = {arrow: kind for kind, arrow in ARROW_TYPES.items()}
_VECTOR_TYPES: dict[VectorDtype, pa.DataType] = {"float32": pa.float32(), "float16": pa.float16()}
_VECTOR_DTYPES = {arrow: dtype for dtype, arrow in _VECTOR_TYPES.items()}


def collection_schema(
    stamp: Stamp,
    fields: Mapping[str, FieldType],
    vector_dtype: VectorDtype,
    *,
    primary_key: bool = False,
) -> pa.Schema:
    """Return the Arrow schema of a new collection.

    With a primary key, of two concurrent upserts of the same new ids one fails as a conflict.
    Without it each adds rows of its own.
    """
    texts = ("id", "uri", "sha256")
    columns = [
        pa.field(name, pa.string() if name in texts else pa.int64(), nullable=False)
        for name in ("id", *_RECORD_COLUMNS)
    ]
    if primary_key:
        columns[0] = columns[0].with_metadata(_PRIMARY_KEY)
    columns += [pa.field(WORDS, pa.string()), origins_column()]
    vectors = pa.list_(_VECTOR_TYPES[vector_dtype], stamp.dimension)
    columns.append(pa.field(VECTOR, vectors, nullable=False))
    columns += [metadata_column(field, kind) for field, kind in fields.items()]
    return pa.schema(columns, metadata={_STAMP_KEY: stamp.to_json().encode()})


def read_stamp(url: str, schema: pa.Schema) -> Stamp:
    """Return the stamp that a schema holds. Raises CollectionMismatchError if it holds none."""
    try:
        return Stamp.from_json((schema.metadata or {})[_STAMP_KEY].decode())
    except (KeyError, ValueError, TypeError) as error:
        raise CollectionMismatchError(
            f"{url}: this is no collection of this version of imgsearch's"
        ) from error


def metadata_column(field: str, kind: FieldType) -> pa.Field:
    """Return the column of a field.

    Lance's SQL wants plain names; a digest keeps apart fields whose plain names are equal.
    """
    plain = re.sub(r"[^a-z0-9]+", "_", field.lower())[:40]
    if plain != field:
        plain += "_" + hashlib.blake2b(field.encode(), digest_size=4).hexdigest()
    name = f"meta_{plain}"
    return pa.field(name, ARROW_TYPES[kind], metadata={_FIELD_NAME_KEY: field.encode()})


def origins_column() -> pa.Field:
    """Return the column that says which table set each field."""
    return pa.field(_ORIGINS, pa.string())


def to_numpy(column: pa.ChunkedArray | pa.Array, dimension: int) -> Vectors:
    """Return a column of vectors as float32 of shape (n, dimension), L2-normalized."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    flat = whole.flatten().to_numpy(zero_copy_only=False)
    vectors = np.asarray(flat, dtype=np.float32).reshape(-1, dimension)
    if flat.dtype == np.float16:
        # Rounding changes the length by some 1e-5, too little to be rounded otherwise next time.
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return vectors


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of one version of a dataset.

    Collections of earlier versions have no column of words, or of origins.
    """

    schema: pa.Schema
    fields: Mapping[str, FieldType]
    by_field: Mapping[str, str]

    @classmethod
    def of(cls, schema: pa.Schema) -> "Columns":
        fields: dict[str, FieldType] = {}
        by_field: dict[str, str] = {}
        for column in schema:
            if name := (column.metadata or {}).get(_FIELD_NAME_KEY):
                fields[name.decode()] = _FIELD_TYPES[column.type]
                by_field[name.decode()] = column.name
        return cls(schema, fields, by_field)

    @property
    def vector_dtype(self) -> VectorDtype:
        """The number format of the stored vectors."""
        return _VECTOR_DTYPES[self.schema.field(VECTOR).type.value_type]

    @property
    def has_words(self) -> bool:
        return WORDS in self.schema.names

    @property
    def has_origins(self) -> bool:
        return _ORIGINS in self.schema.names

    @property
    def of_records(self) -> list[str]:
        """The columns that `to_record` needs."""
        origins = [_ORIGINS] if self.has_origins else []
        return [*_RECORD_COLUMNS, *origins, *self.by_field.values()]

    def to_record(self, row: Mapping[str, Any]) -> ImageRecord:
        metadata = {
            field: row[column]
            for field, column in self.by_field.items()
            if row.get(column) is not None
        }
        return ImageRecord(
            uri=row["uri"],
            sha256=row["sha256"],
            size=row["size"],
            mtime_ns=row["mtime_ns"],
            width=row["width"],
            height=row["height"],
            site=HERE.split(row["uri"])[0],
            metadata=metadata,
            origins=from_text(row.get(_ORIGINS)),
        )

    def to_table(self, records: Sequence[ImageRecord], vectors: Vectors) -> pa.Table:
        """Return rows to write; `vectors` has shape (n, dimension)."""
        columns: dict[str, Any] = {
            "id": [record.id for record in records],
            **{name: [getattr(each, name) for each in records] for name in _RECORD_COLUMNS},
            **self._metadata([record.metadata for record in records]),
            WORDS: [record_words(record.metadata) or None for record in records],
            _ORIGINS: [to_text(record.origins) for record in records],
            VECTOR: pa.FixedSizeListArray.from_arrays(
                pa.array(np.ascontiguousarray(vectors, dtype=self.vector_dtype).reshape(-1)),
                vectors.shape[1],
            ),
        }
        return self._table({name: columns[name] for name in self.schema.names})

    def to_changes(
        self,
        known: Mapping[str, ImageRecord],
        metadata: Mapping[str, Metadata],
        origins: Mapping[str, OriginChanges] | None,
    ) -> pa.Table:
        """Return the new metadata, by id, of known records, with what is derived from it."""
        columns: dict[str, Any] = {"id": list(metadata), **self._metadata(metadata.values())}
        if self.has_words:
            columns[WORDS] = [record_words(values) or None for values in metadata.values()]
        if origins is not None:
            columns[_ORIGINS] = [
                to_text(changed_origins(known[key].origins, origins.get(key, {})))
                for key in metadata
            ]
        return self._table(columns)

    def _metadata(self, metadata: Iterable[Metadata]) -> dict[str, list[Value | None]]:
        records = list(metadata)
        return {
            column: [values.get(field) for values in records]
            for field, column in self.by_field.items()
        }

    def _table(self, columns: Mapping[str, Any]) -> pa.Table:
        schema = pa.schema([self.schema.field(name) for name in columns], self.schema.metadata)
        return pa.table(dict(columns), schema=schema)
