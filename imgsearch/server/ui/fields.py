"""The filters that a collection's fields and some of their values allow."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from imgsearch.filters import is_field
from imgsearch.server.service import Service
from imgsearch.types import FieldType, ImageRecord, Value

Kind = Literal["choice", "number", "text"]
_ORDER: tuple[Kind, ...] = get_args(Kind)

# Up to so many records, all are read. Filters of a larger collection take any value, and suggest
# those of a few records; ids are digests, so the first ones are a fair sample.
_MOST_READ = 1000
_SAMPLE = 400
_MAX_CHOICES = 40
_MAX_SUGGESTIONS = 200
# In characters: nobody chooses a description from a list.
_MAX_SUGGESTION_LENGTH = 80
_SHOWN_RECORDS = 12
# After which the values are read again.
_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Filter:
    """A control that sets one condition: a field, an operator, and the visitor's value."""

    name: str
    operator: Literal["=", ">=", "<="]
    kind: Kind
    choices: tuple[str, ...] = ()
    """All values of a `choice`; suggestions for a `text`."""
    hint: str = ""
    """The least or greatest value of a `number`."""

    def condition(self, value: str | None) -> str:
        """Return the condition for a value of the control; empty if nothing is set."""
        return f"{self.name}{self.operator}{value}" if value else ""


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
            known = self._known
            if known is None or time.monotonic() > self._until or await self._has_changed(known):
                info = await self.service.info()
                limit = info.images if info.images <= _MOST_READ else _SAMPLE
                records = await self.service.records(limit=limit)
                known = overview(info.images, info.fields, records)
                self._known, self._until = known, time.monotonic() + _SECONDS
            return known

    async def _has_changed(self, known: Overview) -> bool:
        return await self.service.count() != known.images


def overview(
    images: int, fields: Mapping[str, FieldType], records: Sequence[ImageRecord]
) -> Overview:
    """`records` are some of the collection's `images`, or all of them."""
    filters: list[Filter] = []
    for name, kind in fields.items():
        if is_field(name):
            values = [each.metadata[name] for each in records if name in each.metadata]
            filters += _filters(
                name, kind, values, len(records) if len(records) >= images else None
            )
    filters.sort(key=lambda each: _ORDER.index(each.kind))
    return Overview(images, tuple(filters), _distinct(records))


def _distinct(records: Iterable[ImageRecord]) -> tuple[ImageRecord, ...]:
    """Some records of different contents, those with metadata first."""
    with_metadata_first = sorted(records, key=lambda each: not each.metadata)
    by_content = {each.sha256: each for each in reversed(with_metadata_first)}
    return tuple(reversed(by_content.values()))[:_SHOWN_RECORDS]


def _filters(
    name: str, kind: FieldType, values: Sequence[Value], records: int | None
) -> list[Filter]:
    """The filters of a field; `records` is their number if `values` are those of all records."""
    distinct = set(values)
    is_complete = records is not None
    if is_complete and (not distinct or (len(distinct) == 1 and len(values) == records)):
        return []  # it would keep all records, or none
    if kind in ("int", "float"):
        numbers = [value for value in distinct if not isinstance(value, str)]
        least, most = (str(min(numbers)), str(max(numbers))) if is_complete else ("", "")
        return [
            Filter(name, ">=", "number", hint=least),
            Filter(name, "<=", "number", hint=most),
        ]
    if kind == "bool":
        known = set(map(text_of, distinct)) if is_complete else {"false", "true"}
        return [Filter(name, "=", "choice", tuple(sorted(known)))]
    if is_complete and len(distinct) <= _MAX_CHOICES:
        return [Filter(name, "=", "choice", tuple(sorted(map(text_of, distinct))))]
    return [Filter(name, "=", "text", _suggestions(values))]


def _suggestions(values: Iterable[Value]) -> tuple[str, ...]:
    """The most frequent values, in alphabetical order."""
    texts = (text for text in map(text_of, values) if len(text) <= _MAX_SUGGESTION_LENGTH)
    return tuple(sorted(text for text, _ in Counter(texts).most_common(_MAX_SUGGESTIONS)))


def text_of(value: Value) -> str:
    """Return a value as conditions write it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


_CONDITION = re.compile(r"\s*(?P<field>[^=!<>]+?)\s*(?P<operator>>=|<=|=)(?P<value>.*)", re.S)


def settings(filters: Sequence[Filter], where: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the value that conditions set each filter to, and the conditions of no filter."""
    values = dict.fromkeys(((each.name, each.operator) for each in filters), "")
    others = []
    for text in where:
        match = _CONDITION.fullmatch(text)
        key: Any = (match["field"], match["operator"]) if match else None
        value = match["value"].strip() if match else ""
        if values.get(key) == "" and value:
            values[key] = value
        else:
            others.append(text)
    return list(values.values()), others
