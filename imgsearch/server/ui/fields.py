"""The filters that a collection's fields and some of their values allow."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from imgsearch.filters import is_field
from imgsearch.server.service import Service
from imgsearch.types import FieldType, ImageRecord, Value

Kind = Literal["choice", "range", "text"]
_ORDER: tuple[Kind, ...] = get_args(Kind)

# Records whose values are suggested; ids are digests, so the first ones are a fair sample. Filters
# of a larger collection take any value: to know all of them, the whole collection must be read.
_SAMPLE = 1000
_MAX_CHOICES = 40
_MAX_SUGGESTIONS = 200
# In characters: nobody chooses a description from a list.
_MAX_SUGGESTION_LENGTH = 80
_SHOWN_RECORDS = 12
# After which the values are read again.
_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter of one field: a choice of values, a range, or a text that it equals."""

    name: str
    kind: Kind
    choices: tuple[str, ...] = ()
    """All values of a `choice`; suggestions for a `text`."""
    least: str = ""
    most: str = ""
    step: str = "any"
    """`1` for whole numbers, or `any`."""


@dataclass(frozen=True, slots=True)
class Overview:
    """What the page shows of a collection before a search."""

    images: int
    filters: tuple[Filter, ...]
    records: tuple[ImageRecord, ...]
    """Examples to begin with."""


@dataclass
class Overviews:
    """The overview of the default collection, read once a minute for all visitors."""

    service: Service
    _known: Overview | None = None
    _until: float = 0.0
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def get(self) -> Overview:
        """Raises StoreError."""
        async with self._reading:
            images = (await self.service.info()).images
            known = self._known
            if known is None or known.images != images or time.monotonic() > self._until:
                records = await self.service.records(limit=_SAMPLE)
                fields = (await self.service.info()).fields
                known = overview(images, fields, records)
                self._known, self._until = known, time.monotonic() + _SECONDS
            return known


def overview(
    images: int, fields: Mapping[str, FieldType], records: Sequence[ImageRecord]
) -> Overview:
    """`records` are some of the collection's `images`, or all of them."""
    made = [
        _filter(
            name,
            kind,
            [each.metadata[name] for each in records if name in each.metadata],
            len(records) if len(records) >= images else None,
        )
        for name, kind in fields.items()
        if is_field(name)
    ]
    filters = sorted((each for each in made if each), key=lambda each: _ORDER.index(each.kind))
    return Overview(images, tuple(filters), _distinct(records))


def _distinct(records: Iterable[ImageRecord]) -> tuple[ImageRecord, ...]:
    """Some records of different contents, those with metadata first."""
    with_metadata_first = sorted(records, key=lambda each: not each.metadata)
    by_content = {each.sha256: each for each in reversed(with_metadata_first)}
    return tuple(reversed(by_content.values()))[:_SHOWN_RECORDS]


def _filter(
    name: str, kind: FieldType, values: Sequence[Value], records: int | None
) -> Filter | None:
    """The filter of a field; `records` is their number if `values` are those of all records."""
    distinct = set(values)
    is_complete = records is not None
    if is_complete and (not distinct or (len(distinct) == 1 and len(values) == records)):
        return None  # it would keep all records, or none
    if kind in ("int", "float"):
        numbers = [value for value in distinct if not isinstance(value, str)]
        step = "1" if kind == "int" else "any"
        if is_complete:
            return Filter(name, "range", (), str(min(numbers)), str(max(numbers)), step)
        return Filter(name, "range", step=step)
    if kind == "bool":
        known = set(map(_text, distinct)) if is_complete else {"false", "true"}
        return Filter(name, "choice", tuple(sorted(known)))
    if is_complete and len(distinct) <= _MAX_CHOICES:
        return Filter(name, "choice", tuple(sorted(map(_text, distinct))))
    return Filter(name, "text", _suggestions(values))


def _suggestions(values: Iterable[Value]) -> tuple[str, ...]:
    """The most frequent values, in alphabetical order."""
    texts = (text for text in map(_text, values) if len(text) <= _MAX_SUGGESTION_LENGTH)
    return tuple(sorted(text for text, _ in Counter(texts).most_common(_MAX_SUGGESTIONS)))


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


_CONDITION = re.compile(r"\s*(?P<field>[^=!<>]+?)\s*(?P<operator>>=|<=|=)(?P<value>.*)", re.S)


def selected(where: Iterable[str]) -> tuple[dict[tuple[str, str], str], list[str]]:
    """Return values of filters by field and operator, and the conditions that are no filter's."""
    settings: dict[tuple[str, str], str] = {}
    others = []
    for text in where:
        match = _CONDITION.fullmatch(text)
        key = (match["field"], match["operator"]) if match else ("", "")
        if match is None or key in settings:
            others.append(text)
        else:
            settings[key] = match["value"].strip()
    return settings, others
