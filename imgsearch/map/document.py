"""The HTML file of a map: self-contained, and without requests to other places.

Data are blocks of gzip in base64, which no name or value can leave; the viewer writes them into the
page as text. The policy allows only the two scripts whose digests it names.
"""

import base64
import gzip
import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, BinaryIO

import numpy as np
from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from numpy.typing import NDArray

from imgsearch.map import palette
from imgsearch.map.clusters import Cluster
from imgsearch.map.records import Records
from imgsearch.map.sprites import Sheets

_STATIC = files("imgsearch.map") / "static"
_MARKER = "<!-- thumbnails -->"


@dataclass(frozen=True, slots=True)
class Content:
    """What a document shows.

    `places` are float32 of shape (records, 2). `numbers` and `scores` of shape (contents, k) are
    the neighbors of each content and their similarities, -1 and anything where there are fewer.
    """

    title: str
    records: Records
    places: NDArray[np.float32]
    numbers: NDArray[np.int32]
    scores: NDArray[np.float32]
    color_by: int
    groups: Sequence[Cluster] = ()
    paths: bool = True
    ids: bool = False
    """Instead of links to the images; see `MapOptions`."""


class Page:
    """A document whose sheets are not known yet."""

    def __init__(self, content: Content) -> None:
        self._content = content
        records = content.records
        self._blocks = {
            "positions": _packed(content.places.astype("<f4")),
            "nearest": _packed(content.numbers.astype("<i4")),
            "scores": _packed(_rounded(content.scores)),
            "contents": _packed(records.content.astype("<u4")),
            "firsts": _packed(records.first.astype("<u4")),
        }
        if content.paths:
            self._blocks["paths"] = _packed_json(records.paths)
        if content.ids:
            self._blocks["ids"] = _packed(b"".join(uuid.UUID(each).bytes for each in records.ids))
        else:
            self._blocks["links"] = _packed_json(records.links)
        for number, column in enumerate(records.columns):
            kind = "<f8" if column.values is None else "<i4"
            self._blocks[f"field-{number}"] = _packed(np.asarray(column.data).astype(kind))
        self._meta: dict[str, Any] = {
            "title": content.title,
            "count": len(records),
            "neighbors": int(content.numbers.shape[1]),
            "fields": [
                {"name": column.name, "values": column.values} for column in records.columns
            ],
            "color_by": content.color_by,
            "groups": [
                {"name": group.name, "size": group.size, "place": group.place}
                for group in content.groups
            ],
            "palette": palette.COLORS,
            "scale": palette.SCALE,
        }

    @property
    def size(self) -> int:
        """The size in bytes without sheets, and without what says which images have one."""
        scripts = sum(len(_static(name)) for name in ("deck.min.js", "map.js", "map.css"))
        blocks = sum(map(len, self._blocks.values()))
        cells = 4 * self._content.records.contents
        return scripts + blocks + cells + len(_packed_json(self._meta)) + 8192

    def write(self, file: BinaryIO, sheets: Sheets, subtitle: str) -> None:
        """Write the whole document. Raises OSError."""
        meta = self._meta | {
            "subtitle": subtitle,
            "side": sheets.side,
            "columns": sheets.columns,
            "thumbnails": sheets.thumbnails,
        }
        blocks = self._blocks | {
            "meta": _packed_json(meta),
            "thumbnails": _packed(sheets.cell.astype("<i4")),
        }
        before, _, after = _render(self._content.title, blocks).partition(_MARKER)
        file.write(before.encode())
        for number, path in enumerate(sheets.files):
            text = base64.b64encode(path.read_bytes())
            file.write(b'<script type="text/plain" id="sheet-%d">%s</script>\n' % (number, text))
        file.write(after.encode())


def _render(title: str, blocks: Mapping[str, str]) -> str:
    environment = Environment(loader=PackageLoader("imgsearch"), autoescape=True)
    scripts = [_static("deck.min.js"), _static("map.js")]
    return environment.get_template("map.html").render(
        title=title.encode("utf-8", "backslashreplace").decode(),
        policy=_policy(scripts),
        style=Markup(_static("map.css")),  # noqa: S704  (our own file)
        library=Markup(scripts[0]),  # noqa: S704
        viewer=Markup(scripts[1]),  # noqa: S704
        blocks=Markup("\n".join(_tags(blocks))),  # noqa: S704  (base64)
        marker=Markup(_MARKER),  # noqa: S704
    )


def _policy(scripts: Sequence[str]) -> str:
    # The browser hashes what is between the tags, with the line ends of the template.
    digests = (hashlib.sha256(f"\n{script}\n".encode()).digest() for script in scripts)
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _tags(blocks: Mapping[str, str]) -> Iterator[str]:
    for name, text in blocks.items():
        yield f'<script type="text/plain" id="data-{name}">{text}</script>'


def _static(name: str) -> str:
    return (_STATIC / name).read_text(encoding="utf-8")


def _packed(values: NDArray[Any] | bytes) -> str:
    raw = values if isinstance(values, bytes) else np.ascontiguousarray(values).tobytes()
    return base64.b64encode(gzip.compress(raw, 6, mtime=0)).decode()


def _packed_json(value: object) -> str:
    return _packed(json.dumps(value, separators=(",", ":")).encode())


def _rounded(scores: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return similarities as shares of 65535; those below 0 are 0."""
    return (np.clip(np.nan_to_num(scores, neginf=0), 0, 1) * 65535).round().astype("<u2")
