"""Filters, made from a collection's fields and some of their values."""

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

# Records whose values are offered; ids are digests, so that the first ones are a fair sample.
# Filters of a larger collection take any other value, too: to know all of its values would mean to
# read the whole of it.
_SAMPLE = 1000
_MOST_CHOICES = 40
_MOST_SUGGESTIONS = 200
# In characters: a description is nothing to choose from a list.
_LONGEST_SUGGESTION = 80
_SHOWN_RECORDS = 12
# After which a collection is looked through anew.
_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Filter:
    """One field: a choice of its values, from and to, or a text that it equals."""

    name: str
    kind: Kind
    choices: tuple[str, ...] = ()
    """All values of a `choice`; of a `text`, some that are suggested."""
    least: str = ""
    most: str = ""
    step: str = "any"
    """How numbers are counted, as HTML has it."""


@dataclass(frozen=True, slots=True)
class Overview:
    """What the page shows of a collection before anything is searched for."""

    images: int
    filters: tuple[Filter, ...]
    records: tuple[ImageRecord, ...]
    """Some, to begin with."""


@dataclass
class Overviews:
    """Looks through the default collection now and then, once for all who ask."""

    service: Service
    _known: Overview | None = None
    _until: float = 0.0
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def get(self) -> Overview:
        """Raises StoreError."""
        async with self._looking:
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
    """Some records of different contents, that have something to tell if any has."""
    told = sorted(records, key=lambda each: not each.metadata)
    by_content = {each.sha256: each for each in reversed(told)}
    return tuple(reversed(by_content.values()))[:_SHOWN_RECORDS]


def _filter(
    name: str, kind: FieldType, values: Sequence[Value], records: int | None
) -> Filter | None:
    """The filter of a field with these values, of all `records` or, if that is None, of some."""
    distinct = set(values)
    is_complete = records is not None
    if is_complete and (not distinct or (len(distinct) == 1 and len(values) == records)):
        return None  # it would leave all, or none
    if kind in ("int", "float"):
        numbers = [value for value in distinct if not isinstance(value, str)]
        step = "1" if kind == "int" else "any"
        if is_complete:
            return Filter(name, "range", (), str(min(numbers)), str(max(numbers)), step)
        return Filter(name, "range", step=step)
    if kind == "bool":
        known = set(map(_text, distinct)) if is_complete else {"false", "true"}
        return Filter(name, "choice", tuple(sorted(known)))
    if is_complete and len(distinct) <= _MOST_CHOICES:
        return Filter(name, "choice", tuple(sorted(map(_text, distinct))))
    return Filter(name, "text", _suggestions(values))


def _suggestions(values: Iterable[Value]) -> tuple[str, ...]:
    """The most frequent values, in alphabetical order."""
    texts = (text for text in map(_text, values) if len(text) <= _LONGEST_SUGGESTION)
    return tuple(sorted(text for text, _ in Counter(texts).most_common(_MOST_SUGGESTIONS)))


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


_CONDITION = re.compile(r"\s*(?P<field>[^=!<>]+?)\s*(?P<operator>>=|<=|=)(?P<value>.*)", re.S)


def chosen(where: Iterable[str]) -> tuple[dict[tuple[str, str], str], list[str]]:
    """What filters are set to, by field and operator; and the conditions that no filter can be."""
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
