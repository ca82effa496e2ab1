"""A search as an address: the query string is the whole state of the page.

So a search can be shared, bookmarked and gone back to.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, Self
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
    text: str = ""
    where: tuple[str, ...] = ()
    k: int = DEFAULT_K
    min_score: float | None = None
    confident: bool = False

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
            image=given.get("image", [""])[0],
            region=given.get("region", [""])[0],
            text=given.get("q", [""])[0],
            where=tuple(given.get("where", ())),
            k=_number(given.get("k", [str(DEFAULT_K)])[0]),
            min_score=_score(given.get("min_score", [""])[0]),
            confident=given.get("confident", [""])[0] == "1",
        )

    @property
    def address(self) -> str:
        """The query string, with its question mark."""
        parts = [
            ("id", self.record),
            ("image", self.image),
            ("region", self.region),
            ("q", self.text),
            *(("where", each) for each in self.where),
            ("k", "" if self.k == DEFAULT_K else str(self.k)),
            ("min_score", "" if self.min_score is None else f"{self.min_score:g}"),
            ("confident", "1" if self.confident else ""),
        ]
        return "?" + urlencode([(name, value) for name, value in parts if value])

    @property
    def has_image(self) -> bool:
        return bool(self.record or self.image)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to search with."""
        return not (self.has_image or self.text.strip())

    @property
    def area(self) -> Region | None:
        """The region of the image to search with. Raises UsageError if it is malformed."""
        return Region.parse(self.region) if self.region else None

    @property
    def edges(self) -> tuple[float, float, float, float]:
        """The region's left, top, right and bottom in fractions; those of the whole image."""
        try:
            area = self.area
        except UsageError:
            area = None
        return (area.left, area.top, area.right, area.bottom) if area else (0.0, 0.0, 1.0, 1.0)

    def like(self, record_id: str) -> str:
        """The address of a search with a record, under the same filters."""
        return replace(self, record=record_id, image="", region="", text="").address

    def without(self, *names: str) -> str:
        """The address of the same search with the defaults of some fields."""
        defaults: dict[str, Any] = {each.name: each.default for each in fields(self)}
        return replace(self, **{name: defaults[name] for name in names}).address

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
