"""The page's HTML, escaped by default."""

from typing import Any

from jinja2 import Environment, PackageLoader

from imgsearch.calibration import percentile_text
from imgsearch.gallery import plain
from imgsearch.types import ImageRecord

_environment = Environment(
    loader=PackageLoader("imgsearch.server.ui"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)
# Of a record's fields, those shown before it is opened.
_environment.globals["SHOWN_FIELDS"] = 3
# In characters; the whole text is among the fields.
_MAX_TITLE = 200


def render(template: str, **values: Any) -> str:
    return _environment.get_template(template).render(values)


def _title(record: ImageRecord) -> str:
    """The description of a record, or its longest text; empty if it has none."""
    if description := record.metadata.get("description"):
        return str(description)
    texts = [value for value in record.metadata.values() if isinstance(value, str)]
    return max(texts, key=len, default="")


def _described(record: ImageRecord) -> str:
    text = plain(_title(record)) or "an image without a description"
    return text if len(text) <= _MAX_TITLE else text[: _MAX_TITLE - 1] + "…"


_environment.filters["title"] = _title
_environment.filters["described"] = _described


def plain_text(value: object) -> str:
    """A value as one line without control characters."""
    return plain(str(value).lower() if isinstance(value, bool) else str(value))


_environment.filters["plain"] = plain_text
_environment.filters["percentile"] = percentile_text
