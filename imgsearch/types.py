"""The nouns that cross the seams: records, stamps, conditions, hits, outcomes. All frozen."""

import json
import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import unquote_to_bytes, urlsplit

Value = str | int | float | bool
Metadata = Mapping[str, Value]
Origins = Mapping[str, str]
FieldType = Literal["int", "float", "bool", "str"]
FIELD_TYPES: tuple[FieldType, ...] = get_args(FieldType)

DESCRIPTION = "description"
"""The field for what is said of a picture in words; always `str`."""


def canonical_path(path: str | os.PathLike[str]) -> str:
    """The one absolute name for a place: the folder's real path, and the entry's own name.

    So a picture reached through a linked folder is the same place, while a link to a picture is
    a place of its own.
    """
    folder, name = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(folder), name)


def path_to_uri(path: str) -> str:
    """`file://` URI of an absolute path, ASCII only; names that are not UTF-8 survive."""
    return Path(path).as_uri()


def uri_to_path(uri: str) -> str:
    """The path of a `file://` URI, on whatever site; any other URI is returned as it is."""
    parts = urlsplit(uri)
    if parts.scheme != "file":
        return uri
    if os.name == "nt":
        from urllib.request import url2pathname

        # What stands before a drive is a site; before a share it is the server.
        shared = parts.netloc and not re.match(r"/[A-Za-z]:", parts.path)
        return url2pathname(f"//{parts.netloc}{parts.path}" if shared else parts.path)
    return os.fsdecode(unquote_to_bytes(parts.path))


def mtime_of(status: os.stat_result) -> int:
    """A file's mtime in nanoseconds, as records hold it: within 64 bits, with a sign.

    Beyond the years 1677 to 2262, where some file systems, network drives and bad clocks are, it is
    another date, but always the same one, and another one for another mtime.
    """
    return (status.st_mtime_ns + 2**63) % 2**64 - 2**63


def record_id(uri: str) -> str:
    """UUIDv5 of the URI, so that writing a record again replaces it and never doubles it."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, uri))


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image at one place.

    `size` is in bytes, `mtime_ns` in nanoseconds since the epoch (see `mtime_of`), `width` and
    `height` in pixels after EXIF orientation; `sha256` is that of the file, in hexadecimal.
    `origins` maps each field whose value comes from a table to the table's id; None is a record of
    an earlier version, which does not say. `site` is that of the file, where it is not of this
    machine (see `sites`).
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
        return record_id(self.uri)

    @property
    def path(self) -> str:
        """The file's path; that of another site with the site before it, which opens nothing."""
        path = uri_to_path(self.uri)
        return f"{self.site}:{path}" if self.site else path


@dataclass(frozen=True, slots=True)
class Stamp:
    """What made a collection's vectors; vectors of different stamps are never compared.

    `weights` is the SHA-256 of the weights file in hexadecimal, `preprocessing` the description
    of every step from file to network input, `dimension` the length of a vector. `precision` is
    `fp32`, or `int8` and the first digits of the SHA-256 of the calibrated model.
    """

    model: str
    weights: str
    preprocessing: str
    dimension: int
    distance: str = "cosine"
    precision: str = "fp32"

    @property
    def number_format(self) -> str:
        """`fp32` or `int8`."""
        return self.precision.partition(" ")[0]

    def to_json(self) -> str:
        """Without `fp32`, as from before there was a choice: names are made from this text."""
        fields = asdict(self)
        if self.precision == "fp32":
            del fields["precision"]
        return json.dumps(fields, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Stamp":
        """Raises ValueError or TypeError where the text is no stamp."""
        return cls(**json.loads(text))

    def differences(self, other: "Stamp") -> list[str]:
        """The parts in which two stamps differ, as `name: mine, not theirs`."""
        mine, theirs = asdict(self), asdict(other)
        return [
            f"{name}: {mine[name]}, not {theirs[name]}"
            for name in mine
            if mine[name] != theirs[name]
        ]


Operator = Literal["=", "!=", "<", "<=", ">", ">="]


@dataclass(frozen=True, slots=True)
class Condition:
    """One test on a metadata field; `value` has the field's own type.

    A record without the field meets no condition but `!=`.
    """

    field: str
    operator: Operator
    value: Value

    def holds(self, metadata: Metadata) -> bool:
        """What the condition means; every store's own filter must agree with it."""
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

    `score` is its cosine similarity to the query, in [-1, 1], or its relevance to words, over 0.
    """

    record: ImageRecord
    score: float


@dataclass(frozen=True, slots=True)
class Hit:
    """One line of an answer. `copies` counts the records that hold this very content.

    `score` is the cosine similarity to the query's picture, and in an answer to words alone their
    relevance, BM25: above 0, comparable within one answer. `text_score` is the relevance wherever
    words were asked for, None for a picture that has none of them.
    """

    rank: int
    score: float
    record: ImageRecord
    copies: int = 1
    text_score: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The form in which `query --json` prints a hit."""
        return {
            "rank": self.rank,
            "score": self.score,
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
    """What `imgsearch info` tells of a collection; `bytes` is its size on disk, where it is known.

    `details` is what else the store can tell, in its own words.
    """

    name: str
    stamp: Stamp
    images: int
    fields: Mapping[str, FieldType]
    bytes: int | None
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "model": self.stamp.model,
            "stamp": asdict(self.stamp),
            "dimension": self.stamp.dimension,
            "images": self.images,
            "fields": dict(self.fields),
            "bytes": self.bytes,
            "details": dict(self.details),
        }
