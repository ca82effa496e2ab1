"""Join rows of a table to images, by the names that tables have for files.

A cell may hold a path, the end of one, a file name, or a name without its extension. Such a match
is exact. If there is none, a loose match also counts: programs change the case, `10` to `10.0`
(pandas) and `0001` to `1` (spreadsheets). A loose match must be unambiguous.
"""

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from imgsearch.sources import IMAGE_EXTENSIONS
from imgsearch.uris import MemberUrl, readable_path, uri_to_path

# Normalized, the most reliable first: next to a file name, an id may be anything.
_NAMES = (
    "filename", "id", "file", "image", "filepath", "path", "uri", "img", "picture", "photo",
    "imagename", "imagefile", "imagefilename", "imagepath", "imageid", "imgname", "imgfile",
    "imgpath", "imgid", "photoid", "photoname", "pictureid", "picturename", "productid", "itemid",
    "articleid", "assetid", "sku", "stem",
)  # fmt: skip
_FLOAT_OF_INT = re.compile(r"(0|[1-9][0-9]*)\.0+")
_PADDED = re.compile(r"0+([1-9][0-9]*|0)")
# Maximum number of folders of a path that a cell can contain.
_MAX_FOLDERS = 16


def normalize_name(column: str) -> str:
    """Return a column's name without punctuation and case."""
    return re.sub(r"[\W_]+", "", column).casefold()


def joining_columns(header: list[str], first_rows: Iterable[list[str]]) -> list[int]:
    """Return the indexes of the columns that may name the images, the most likely first.

    A column qualifies by its name, or by a cell with the extension of an image file.
    """
    names = [normalize_name(name) for name in header]
    found = [names.index(name) for name in _NAMES if name in names]
    for row in first_rows:
        for index, cell in enumerate(row[: len(header)]):
            if index not in found and is_image_name(cell):
                found.append(index)
    return found


def has_joining_name(header: list[str]) -> bool:
    return any(normalize_name(name) in _NAMES for name in header)


def is_image_name(cell: str) -> bool:
    return os.path.splitext(cell.strip())[1].lower() in IMAGE_EXTENSIONS


def key_of(cell: str) -> str:
    """Return the key of a cell, in the form of `exact_keys`. A `file:` URI becomes its path."""
    text = cell.strip()
    if text.startswith("file:///"):
        text = uri_to_path(text).encode("utf-8", "replace").decode()
    return composed(text).replace("\\", "/").removeprefix("./")


def loose_key(key: str) -> str:
    """Return a key without what programs change, in the form of `loose_keys`."""
    match = _FLOAT_OF_INT.fullmatch(key)
    return match[1] if match else key.casefold()


def _named(path: str) -> str:
    """Return the path of an image as tables have it: a shard counts as a folder."""
    if member := MemberUrl.parse(path):
        path = f"{readable_path(member.shard_path)}/{member.name}"
    else:
        path = readable_path(path)
    # A CSV in UTF-8 cannot contain a name that is not.
    return composed(path.encode("utf-8", "replace").decode())


def exact_keys(path: str, folder: str) -> list[str]:
    """Return the possible keys of an image's row, the most exact first.

    `folder` is that of the table: paths may be relative to it. Keys with the file's extension come
    before those without.
    """
    path = _named(path)
    folder = readable_path(folder)
    whole = [path]
    if path.startswith(os.path.join(folder, "")):
        whole.insert(0, os.path.relpath(path, folder))
    # Then with fewer and fewer folders: `images/1.jpg`, `1.jpg`.
    parts = Path(path).parts
    start = max(1, len(parts) - _MAX_FOLDERS)
    whole += [os.path.join(*parts[begin:]) for begin in range(start, len(parts))]
    names = [name.replace(os.sep, "/") for name in whole]
    stems = [os.path.splitext(name)[0] for name in names]
    return list(dict.fromkeys(names + stems))


def file_keys(path: str) -> list[str]:
    """Return those of `exact_keys` without a folder."""
    name = os.path.basename(_named(path))
    return list(dict.fromkeys((name, os.path.splitext(name)[0])))


def loose_keys(keys: Iterable[str]) -> Iterator[str]:
    """Yield the loose keys of rows that may belong to an image with these exact keys."""
    for key in dict.fromkeys(keys):
        yield key.casefold()
        if match := _PADDED.fullmatch(key):
            yield match[1]


def padded_length(key: str, path: str) -> int | None:
    """Return the number of digits of a file's name if a row's key lacks its leading zeros."""
    stem = os.path.splitext(os.path.basename(path))[0]
    return len(stem) if _PADDED.fullmatch(stem) and len(loose_key(key)) < len(stem) else None


def names_another_file(key: str, path: str) -> bool:
    """Return whether another file in the image's folder has exactly the name of a row's key."""
    extension = os.path.splitext(path)[1]
    name = os.path.basename(key)
    for other in (name, name + extension):
        other_path = os.path.join(os.path.dirname(path), other)
        try:
            # Both names may be the same file, on a file system that ignores case.
            if not os.path.samefile(other_path, path):
                return True
        except (OSError, ValueError):
            continue
    return False


def composed(text: str) -> str:
    """Return text in NFC: macOS decomposes accents in file names."""
    return unicodedata.normalize("NFC", text)


class MatchCounter:
    """Counts, for each column that may name the images, the example images that it names."""

    def __init__(self, columns: Sequence[int], examples: Iterable[str], folder: str) -> None:
        self._columns = columns
        self._whole: dict[str, list[int]] = {}
        self._stems: dict[str, list[int]] = {}
        self._loose: dict[str, list[int]] = {}
        for number, path in enumerate(examples):
            extension = os.path.splitext(composed(path))[1]
            keys = exact_keys(path, folder)
            for key in keys:
                kind = self._whole if extension and key.endswith(extension) else self._stems
                kind.setdefault(key, []).append(number)
            for key in loose_keys(keys):
                self._loose.setdefault(key, []).append(number)
        kinds = (self._whole, self._stems, self._loose)
        self._found: dict[int, tuple[set[int], ...]] = {
            column: tuple(set() for _ in kinds) for column in columns
        }

    def add(self, row: Sequence[str]) -> None:
        for column in self._columns:
            key = key_of(row[column])
            whole, stems, loose = self._found[column]
            whole.update(self._whole.get(key, ()))
            stems.update(self._stems.get(key, ()))
            loose.update(self._loose.get(loose_key(key), ()))

    def best(self) -> int:
        """Return the column with the most exact matches, then with extension, then loose ones."""

        def rank(column: int) -> tuple[int, int, int]:
            whole, stems, loose = self._found[column]
            return len(whole | stems), len(whole), len(loose)

        return max(self._columns, key=rank)
