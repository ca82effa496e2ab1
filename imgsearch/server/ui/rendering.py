"""The page's own parts as HTML, escaped by default."""

from typing import Any

from jinja2 import Environment, PackageLoader

from imgsearch.gallery import plain
from imgsearch.types import ImageRecord

_environment = Environment(
    loader=PackageLoader("imgsearch.server.ui"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)
# Of a record's fields, those that are told at once.
_environment.globals["TOLD"] = 3
# In characters: what it is told by; all of it stands under its fields.
_LONGEST = 200


def render(template: str, **values: Any) -> str:
    return _environment.get_template(template).render(values)


def _title(record: ImageRecord) -> str:
    """A record in words, as far as its metadata has any: its description, or its longest text."""
    if description := record.metadata.get("description"):
        return str(description)
    texts = [value for value in record.metadata.values() if isinstance(value, str)]
    return max(texts, key=len, default="")


def _described(record: ImageRecord) -> str:
    text = plain(_title(record)) or "a picture without a description"
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


_environment.filters["title"] = _title
_environment.filters["described"] = _described
_environment.filters["plain"] = lambda value: plain(
    str(value).lower() if isinstance(value, bool) else str(value)
)
