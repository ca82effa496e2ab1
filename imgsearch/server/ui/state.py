"""A search as an address: the query string is the whole state of the page.

So a search can be shared, bookmarked and gone back to.
"""

from dataclasses import dataclass, replace
from typing import Self
from urllib.parse import parse_qs, urlencode

from imgsearch.errors import UsageError
from imgsearch.images import Region

DEFAULT_K = 24
MAX_K = 200
_MAX_LENGTH = 8000


@dataclass(frozen=True, slots=True)
class SearchState:
    """What an address asks for.

    `record` is the id of a record, `image` the name of a query image; one at most is given.
    """

    record: str = ""
    image: str = ""
    region: str = ""
    """LEFT,TOP,RIGHT,BOTTOM in fractions."""
    words: str = ""
    where: tuple[str, ...] = ()
    k: int = DEFAULT_K
    min_score: float | None = None

    @classmethod
    def parse(cls, address: str) -> Self:
        """Return the state of a query string. Raises UsageError for numbers that are none."""
        if len(address) > _MAX_LENGTH:
            raise UsageError("the address is too long")
        try:
            given = parse_qs(address.removeprefix("?"), max_num_fields=100)
        except ValueError:
            raise UsageError("the address asks for too much at once") from None
        return cls(
            record=given.get("id", [""])[0],
            image=given.get("picture", [""])[0],
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
            ("picture", self.image),
            ("region", self.region),
            ("q", self.words),
            *(("where", each) for each in self.where),
            ("k", "" if self.k == DEFAULT_K else str(self.k)),
            ("min_score", "" if self.min_score is None else f"{self.min_score:g}"),
        ]
        return "?" + urlencode([(name, value) for name, value in parts if value])

    @property
    def has_image(self) -> bool:
        return bool(self.record or self.image)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to search with."""
        return not (self.has_image or self.words.strip())

    @property
    def area(self) -> Region | None:
        """The region of the image to search with. Raises UsageError if it is malformed."""
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
        """The address of a search with a record, under the same filters."""
        return replace(self, record=record_id, image="", region="", words="").address

    def without_filters(self) -> str:
        return replace(self, where=()).address

    def without_min_score(self) -> str:
        return replace(self, min_score=None).address

    def without_image(self) -> str:
        return replace(self, record="", image="", region="", min_score=None).address

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
