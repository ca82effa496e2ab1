"""A search as an address: what the page shows is told by its query string alone.

So a search can be shared, kept as a bookmark, and gone back to.
"""

from dataclasses import dataclass, replace
from typing import Self
from urllib.parse import parse_qs, urlencode

from imgsearch.errors import UsageError
from imgsearch.images import Region

DEFAULT_K = 24
MAX_K = 200
# A longer address is none of ours.
_LONGEST = 8000


@dataclass(frozen=True, slots=True)
class Asked:
    """What an address asks for.

    `record` is the id of a record, `picture` the SHA-256 of a picture that is held; one at most.
    """

    record: str = ""
    picture: str = ""
    region: str = ""
    """LEFT,TOP,RIGHT,BOTTOM in fractions."""
    words: str = ""
    where: tuple[str, ...] = ()
    k: int = DEFAULT_K
    min_score: float | None = None

    @classmethod
    def at(cls, address: str) -> Self:
        """What a query string asks for. Raises UsageError for numbers that are none."""
        if len(address) > _LONGEST:
            raise UsageError("the address is too long")
        try:
            given = parse_qs(address.removeprefix("?"), max_num_fields=100)
        except ValueError:
            raise UsageError("the address asks for too much at once") from None
        return cls(
            record=given.get("id", [""])[0],
            picture=given.get("picture", [""])[0],
            region=given.get("region", [""])[0],
            words=given.get("q", [""])[0],
            where=tuple(given.get("where", ())),
            k=_number(given.get("k", [str(DEFAULT_K)])[0]),
            min_score=_score(given.get("min_score", [""])[0]),
        )

    @property
    def address(self) -> str:
        """The query string, with its question mark."""
        parts = [
            ("id", self.record),
            ("picture", self.picture),
            ("region", self.region),
            ("q", self.words),
            *(("where", each) for each in self.where),
            ("k", "" if self.k == DEFAULT_K else str(self.k)),
            ("min_score", "" if self.min_score is None else f"{self.min_score:g}"),
        ]
        return "?" + urlencode([(name, value) for name, value in parts if value])

    @property
    def has_picture(self) -> bool:
        return bool(self.record or self.picture)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to search for."""
        return not (self.has_picture or self.words.strip())

    @property
    def area(self) -> Region | None:
        """The part of the picture to search with. Raises UsageError for what is no region."""
        if not self.region:
            return None
        try:
            left, top, right, bottom = map(float, self.region.split(","))
        except ValueError:
            raise UsageError(
                f"region {self.region[:100]!r}: write it as LEFT,TOP,RIGHT,BOTTOM, for example "
                "0.25,0,0.75,0.5"
            ) from None
        return Region(left, top, right, bottom, "fractions")

    def like(self, record_id: str) -> str:
        """The address of a search with a hit, under the same filters."""
        return replace(self, record=record_id, picture="", region="", words="").address

    def without_filters(self) -> str:
        return replace(self, where=()).address

    def without_min_score(self) -> str:
        return replace(self, min_score=None).address

    def without_picture(self) -> str:
        return replace(self, record="", picture="", region="", min_score=None).address

    def without_region(self) -> str:
        return replace(self, region="").address

    def without_condition(self, condition: str) -> str:
        return replace(self, where=tuple(each for each in self.where if each != condition)).address


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 9 and 1 <= int(text) <= MAX_K):
        raise UsageError(f"k is {text[:20]!r}: give a number from 1 to {MAX_K}")
    return int(text)


def _score(text: str) -> float | None:
    if not text:
        return None
    try:
        score = float(text)
    except ValueError:
        score = 2.0
    if not -1 <= score <= 1:
        raise UsageError(f"min_score is {text[:20]!r}: give a number from -1 to 1")
    return score
