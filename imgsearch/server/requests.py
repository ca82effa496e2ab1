"""What is asked of the service, and what it answers."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from imgsearch.images import Region
from imgsearch.types import Hit

# A page is cut out of the first so many hits, which are found anew for each page.
MAX_DEPTH = 1000
MAX_PICTURES = 16


@dataclass(frozen=True, slots=True)
class Question:
    """What to search for, and how.

    Of several `pictures` (the bytes of files) and `records` (ids), what they have in common is
    searched for. `text` are words to look for in the metadata, beside them or alone. `region` is a
    part of each picture. `where` are texts such as `year>=2012`; all must hold.
    """

    pictures: Sequence[bytes] = ()
    records: Sequence[str] = ()
    text: str = ""
    region: Region | None = None
    k: int = 10
    offset: int = 0
    where: Sequence[str] = ()
    min_score: float | None = None
    copies: bool = False
    """Whether to give each of several equal pictures, not one for all."""
    exclude_self: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """Hits `offset` to `offset + k`; `seconds` from the question to the answer."""

    collection: str
    model: str
    seconds: float
    hits: list[Hit] = field(default_factory=list)
