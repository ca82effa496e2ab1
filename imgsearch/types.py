"""Records, stamps, conditions and hits: immutable values that all packages share."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from imgsearch.uris import record_id, uri_to_path

Value = str | int | float | bool
Metadata = Mapping[str, Value]
Origins = Mapping[str, str]
FieldType = Literal["int", "float", "bool", "str"]
FIELD_TYPES: tuple[FieldType, ...] = get_args(FieldType)

VectorDtype = Literal["float32", "float16"]
VECTOR_DTYPES: tuple[VectorDtype, ...] = get_args(VectorDtype)

DESCRIPTION = "description"
"""The field for the description of an image in words; always of type `str`."""


def mtime_of(status: os.stat_result) -> int:
    """Return the mtime of a file in nanoseconds, reduced to a signed 64-bit integer.

    Some file systems, network drives and wrong clocks give dates before 1677 or after 2262. They
    wrap around: the date is wrong, but different mtimes stay different.
    """
    return (status.st_mtime_ns + 2**63) % 2**64 - 2**63


_UNREAD = "unread:"


def unread_digest(uri: str) -> str:
    """Return what a record has in place of a SHA-256 if its file was never read.

    It is no digest, and no other record has it: the contents of such records are not known to be
    equal.
    """
    return _UNREAD + record_id(uri)


def digest_bytes(sha256: str) -> bytes:
    """Return the `sha256` of a record as 32 bytes, also if its file was never read."""
    if sha256.startswith(_UNREAD):
        return hashlib.sha256(sha256.encode()).digest()
    return bytes.fromhex(sha256)


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image at one place.

    `sha256` is the digest of the file in hexadecimal, `size` its length in bytes and `mtime_ns` its
    mtime in nanoseconds since the epoch (see `mtime_of`). `width` and `height` are in pixels, after
    EXIF orientation. If the vector was imported and the file never read, `sha256` is
    `unread_digest`, and the numbers that are unknown are 0. `origins` maps each metadata field that
    a table has set to the id of that table; it is None in records of early versions. `site` names
    the machine that has the file, or is None for this one (see `imgsearch.sites`).
    """

    uri: str
    sha256: str
    size: int
    mtime_ns: int
    width: int
    height: int
    metadata: Metadata = field(default_factory=dict)
    origins: Origins | None = None
    site: str | None = field(default=None, compare=False)

    @property
    def id(self) -> str:
        """The UUIDv5 of the URI."""
        return record_id(self.uri)

    @property
    def path(self) -> str:
        """The path of the file; on another machine, `SITE:PATH`, which cannot be opened here.

        If the URI is not that of a file, such as `https://...`, the URI itself.
        """
        path = uri_to_path(self.uri)
        return f"{self.site}:{path}" if self.site else path


_MADE_ELSEWHERE = "made elsewhere"


@dataclass(frozen=True, slots=True)
class Stamp:
    """How the vectors of a collection were made. Only vectors with equal stamps are comparable.

    `weights` is the SHA-256 of the weights file in hexadecimal, `preprocessing` describes every
    step from the file to the input of the network, and `dimension` is the length of a vector.
    `variant` is `fp32`, or `int8` followed by the first digits of the SHA-256 of the calibrated
    model. Its key in stores and in JSON is `precision`.
    """

    model: str
    weights: str
    preprocessing: str
    dimension: int
    distance: str = "cosine"
    variant: str = "fp32"

    @classmethod
    def elsewhere(cls, model: str, dimension: int) -> "Stamp":
        """Return the stamp of vectors that another program made, by a model of this name.

        `weights` is empty, as it is unknown.
        """
        return cls(model, "", _MADE_ELSEWHERE, dimension)

    @property
    def made_elsewhere(self) -> bool:
        """Whether another program made the vectors, so that imgsearch cannot make more of them."""
        return self.preprocessing == _MADE_ELSEWHERE

    @property
    def dtype(self) -> str:
        """The number format of the model: `fp32` or `int8`."""
        return self.variant.partition(" ")[0]

    def to_dict(self) -> dict[str, Any]:
        """Return the stamp as it is stored, and printed by `imgsearch info --json`."""
        fields = asdict(self)
        fields["precision"] = fields.pop("variant")
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Stamp":
        """Return the stamp of a `to_dict`. Raises ValueError or TypeError for other input."""
        known = dict(fields)
        return cls(variant=known.pop("precision", "fp32"), **known)

    def to_json(self) -> str:
        """Return the stamp as JSON with sorted keys.

        `fp32` is omitted, as before there were variants: stores derive names from this text.
        """
        fields = self.to_dict()
        if self.variant == "fp32":
            del fields["precision"]
        return json.dumps(fields, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Stamp":
        """Return the stamp of a `to_json`. Raises ValueError or TypeError for other input."""
        return cls.from_dict(json.loads(text))

    def differences(self, other: "Stamp") -> list[str]:
        """Return the fields in which two stamps differ, as `NAME: MINE, not THEIRS`."""
        mine, theirs = self.to_dict(), other.to_dict()
        return [
            f"{name}: {mine[name]}, not {theirs[name]}"
            for name in mine
            if mine[name] != theirs[name]
        ]


Operator = Literal["=", "!=", "<", "<=", ">", ">="]


@dataclass(frozen=True, slots=True)
class Condition:
    """A test of one metadata field. `value` has the type of the field.

    A record without the field meets only `!=` conditions.
    """

    field: str
    operator: Operator
    value: Value

    def holds(self, metadata: Metadata) -> bool:
        """Return whether metadata meets the condition. Stores filter by the same rule."""
        if self.field not in metadata:
            return self.operator == "!="
        have: Any = metadata[self.field]
        want: Any = self.value
        match self.operator:
            case "=":
                return bool(have == want)
            case "!=":
                return bool(have != want)
            case "<":
                return bool(have < want)
            case "<=":
                return bool(have <= want)
            case ">":
                return bool(have > want)
            case ">=":
                return bool(have >= want)


@dataclass(frozen=True, slots=True)
class Scored:
    """A record that a store found.

    `score` is the cosine similarity to a query vector, in [-1, 1], or the BM25 relevance to words,
    above 0.
    """

    record: ImageRecord
    score: float


@dataclass(frozen=True, slots=True)
class Hit:
    """A search result.

    `rank` starts at 1. `score` is the cosine similarity to the query image, in [-1, 1]. In a search
    by text alone it is the BM25 relevance: above 0, and comparable only within one search.
    `text_score` is the BM25 relevance of a search with text, None if no word matches. `copies` is
    the number of records with the same content. `percentile` says what share of the pairs of
    different images in the collection is less similar than the score, in percent. It is None
    without a query image, and in a collection that is not calibrated (`imgsearch.calibration`).
    """

    rank: int
    score: float
    record: ImageRecord
    copies: int = 1
    text_score: float | None = None
    percentile: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the object that `imgsearch query --json` prints for a hit."""
        return {
            "rank": self.rank,
            "score": self.score,
            "percentile": self.percentile,
            "text_score": self.text_score,
            "id": self.record.id,
            "uri": self.record.uri,
            "path": self.record.path,
            "site": self.record.site,
            "sha256": self.record.sha256,
            "copies": self.copies,
            "metadata": dict(self.record.metadata),
        }


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """A description of a collection.

    `images` is the number of records, `bytes` the size on disk, or None if the store does not know
    it. `vector_dtype` is the number format in which the store keeps the vectors. `details` depends
    on the store. `calibration` says when and by how many pairs scores were calibrated, None if they
    were not.
    """

    name: str
    stamp: Stamp
    images: int
    fields: Mapping[str, FieldType]
    bytes: int | None
    details: Mapping[str, Any] = field(default_factory=dict)
    vector_dtype: VectorDtype = "float32"
    calibration: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the object that `imgsearch info --json` prints for a collection."""
        return {
            "name": self.name,
            "model": self.stamp.model,
            "stamp": self.stamp.to_dict(),
            "dimension": self.stamp.dimension,
            "vector_dtype": self.vector_dtype,
            "images": self.images,
            "fields": dict(self.fields),
            "bytes": self.bytes,
            "details": dict(self.details),
            "calibration": dict(self.calibration) if self.calibration else None,
        }
