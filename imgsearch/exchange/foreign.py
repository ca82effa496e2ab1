"""Turn rows that other programs wrote into records.

The place of an image is a URI: of a column `uri`, of the file that a column names, or a URL. An
image with nothing of these gets `item:NAME`, which no command takes for a file. A file that is on
this machine is read, as only its content gives a SHA-256; for others it is `unread_digest`.
"""

import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

from imgsearch import images
from imgsearch.errors import ImageError, MetadataError, Remedy
from imgsearch.metadata.values import is_storable, unstorable_reason
from imgsearch.sites import Sites
from imgsearch.types import FieldType, ImageRecord, Value, unread_digest
from imgsearch.uris import canonical_path

_URIS = ("uri",)
_PATHS = (
    *("path", "filepath", "file_path", "image_path", "img_path", "filename", "file_name"),
    *("image", "file"),
)
_URLS = ("url", "image_url")
_NAMES = ("key", "id", "name")
# The place of an image and what a record holds besides, but not as metadata.
_OF_RECORDS = ("sha256", "width", "height")
# What img2dataset notes about the download.
_OF_DOWNLOADS = ("status", "error_message", "exif")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:[^\s]+")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_READERS = 8


class ForeignRows:
    """Makes records of the rows of one file."""

    def __init__(
        self, file: str, columns: Mapping[str, FieldType], folder: str | None, sites: Sites
    ) -> None:
        """`folder` is what relative paths are relative to; None stands for the current folder.

        Raises MetadataError if no column says where the images are.
        """
        lower = {name.lower(): name for name in reversed(list(columns))}

        def those(names: Sequence[str]) -> list[str]:
            return [lower[name] for name in names if name in lower]

        self._uris, self._paths, self._urls = those(_URIS), those(_PATHS), those(_URLS)
        self._names = those(_NAMES)
        if not (self._uris or self._paths or self._urls or self._names):
            raise MetadataError(
                f"{file}: no column says where the images are: it needs `path`, `image_path`, "
                f"`filename`, `uri`, `url` or `id`; it has {', '.join(columns) or 'none'}"
            )
        self._folder = folder
        self._sites = sites
        self._sha256, self._width, self._height = (lower.get(name) for name in _OF_RECORDS)
        used = (self._uris or self._paths or self._urls or self._names)[:1]
        left_out = {*used, *those([*_OF_RECORDS, *_OF_DOWNLOADS])}
        self.fields: dict[str, FieldType] = {
            name: kind
            for name, kind in columns.items()
            if name not in left_out and is_storable(name)
        }
        """The metadata fields of the records."""
        self.unstored = 0
        """Values that no store can hold, and that were left out."""
        self.read = 0
        """Files on this machine, whose content is known."""

    def records(
        self, rows: Sequence[Mapping[str, Any]], pool: ThreadPoolExecutor
    ) -> list[ImageRecord | str]:
        """Return a record for each row, or why there is none."""
        places = [self._place(row) for row in rows]
        prints = list(pool.map(_fingerprint, [path for path, _ in places]))
        return [
            self._record(row, uri, found) if uri else "it does not say which image it is"
            for row, (_, uri), found in zip(rows, places, prints, strict=True)
        ]

    def _place(self, row: Mapping[str, Any]) -> tuple[str | None, str | None]:
        """Return the path of the image's file, if it may be on this machine, and its URI."""
        for value in self._values(row, self._uris):
            if _URI.fullmatch(value) and is_storable(value):
                return None, value
        names = self._values(row, self._paths)
        for value in names:
            if _URI.fullmatch(value) and "://" in value and is_storable(value):
                return None, value
            joined = os.path.join(self._folder or "", value)
            known = os.path.isabs(joined) or self._folder is not None
            if "\0" not in joined and (known or os.path.isfile(joined)):
                path = canonical_path(joined)
                return path, self._sites.uri(path)
        for value in self._values(row, self._urls):
            if _URI.fullmatch(value) and is_storable(value):
                return None, value
        for value in [*names, *self._values(row, self._names)]:
            return None, "item:" + quote(value, errors="replace")
        return None, None

    @staticmethod
    def _values(row: Mapping[str, Any], names: Sequence[str]) -> list[str]:
        return [str(row[name]) for name in names if row[name] not in (None, "")]

    def _record(
        self, row: Mapping[str, Any], uri: str, found: images.Fingerprint | None
    ) -> ImageRecord:
        self.read += found is not None
        return ImageRecord(
            uri=uri,
            sha256=found.sha256 if found else self._digest(row, uri),
            size=found.size if found else 0,
            mtime_ns=found.mtime_ns if found else 0,
            width=_pixels(row, self._width),
            height=_pixels(row, self._height),
            metadata=self._metadata(row),
            origins={},
        )

    def _digest(self, row: Mapping[str, Any], uri: str) -> str:
        """Return the digest of an image elsewhere. img2dataset takes it of the download.

        A file may have been resized after the download, so that the digest is not the file's.
        """
        stated = str(row[self._sha256]) if self._sha256 else ""
        is_file = uri.startswith("file:")
        return stated.lower() if _SHA256.fullmatch(stated) and not is_file else unread_digest(uri)

    def _metadata(self, row: Mapping[str, Any]) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for name, kind in self.fields.items():
            if (value := row[name]) is None:
                continue
            if kind == "float":
                value = float(value)
                if value != value:  # how pandas writes a missing number
                    continue
            if unstorable_reason(value):
                self.unstored += 1
            else:
                values[name] = value
        return values


def _pixels(row: Mapping[str, Any], column: str | None) -> int:
    """Return a width or height; 0 if it is unknown."""
    value = row[column] if column else None
    return int(value) if isinstance(value, int | float) and 0 < value < 2**31 else 0


def _fingerprint(path: str | None) -> images.Fingerprint | None:
    """Return the fingerprint of a file, without its bytes; None if it cannot be read."""
    if path is None:
        return None
    try:
        found = images.fingerprint(path)
    except (ImageError, ValueError):
        return None
    return images.Fingerprint(found.sha256, found.size, found.mtime_ns, None)


def check_model(model: str | None, file: str) -> str:
    """Return the name of the model that made foreign vectors. Raises MetadataError without one."""
    if not model or not model.strip():
        raise MetadataError(
            f"{file}: was not exported by imgsearch, and does not say which model made the vectors",
            Remedy.NAME_THE_MODEL_OF_VECTORS,
        )
    return model.strip()
