"""What shards consist of, and their errors."""

from dataclasses import dataclass, field
from typing import Literal

from imgsearch.types import Metadata

Method = Literal["plain", "stored", "deflated", "row"]
"""How the content of a member is held: as it is, in a zip, compressed in a zip, in Parquet."""

MAX_FIELDS_BYTES = 1 << 20
"""A `.json` or `.txt` of more bytes is no description of an image."""
MAX_UNPACKED = 1 << 30
"""A compressed member may be this large: more is a zip bomb rather than an image."""


class ShardError(OSError):
    """A shard or a member cannot be read; `strerror` is the reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(0, reason)


class ShardChangedError(ShardError):
    """A shard is not the one that was opened."""

    def __init__(self) -> None:
        super().__init__("the shard has changed")


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a shard.

    Its content takes `length` bytes from `offset`; unpacked, it has `size` bytes. `problem` says
    why it cannot be read, if so. `fields` is the shard's metadata for it.
    """

    name: str
    offset: int
    length: int
    size: int
    method: Method = "plain"
    head: int = 0
    """Bytes before the content in a zip, as far as its directory knows."""
    crc: int | None = None
    problem: str = ""
    fields: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Described:
    """A file in a shard that describes the images of the same stem."""

    name: str
    text: bytes
