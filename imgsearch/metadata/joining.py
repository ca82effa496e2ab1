"""Which row of a table belongs to which image: the names of files as tables write them.

A cell may hold a path, the end of one, a file name, or that without its extension. Such a match is
exact. Where there is none, a row also belongs to an image if a program has changed only what
programs change: the case, `10` to `10.0` (pandas), `0001` to `1` (spreadsheets). That counts only
where it is clear which row and which image are meant.
"""

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from imgsearch.sources import PICTURE_EXTENSIONS
from imgsearch.types import uri_to_path

# Without signs and capitals, the surest first: beside a file name an id may be anything.
_NAMES = (
    "filename", "id", "file", "image", "filepath", "path", "uri", "img", "picture", "photo",
    "imagename", "imagefile", "imagefilename", "imagepath", "imageid", "imgname", "imgfile",
    "imgpath", "imgid", "photoid", "photoname", "pictureid", "picturename", "productid", "itemid",
    "articleid", "assetid", "sku", "stem",
)  # fmt: skip
_FLOAT_OF_INT = re.compile(r"(0|[1-9][0-9]*)\.0+")
_PADDED = re.compile(r"0+([1-9][0-9]*|0)")
# Of the folders around a file, so many may stand in a cell.
_MOST_FOLDERS = 16


def plain_name(column: str) -> str:
    return re.sub(r"[\W_]+", "", column).casefold()


def joining_columns(header: list[str], first_rows: Iterable[list[str]]) -> list[int]:
    """Indexes of the columns that may name the images, the likeliest first.

    By their own names, or because a cell ends like the name of an image file. Cells beyond the
    header are in no column.
    """
    names = [plain_name(name) for name in header]
    found = [names.index(name) for name in _NAMES if name in names]
    for row in first_rows:
        for index, cell in enumerate(row[: len(header)]):
            if index not in found and is_image_name(cell):
                found.append(index)
    return found


def has_joining_name(header: list[str]) -> bool:
    return any(plain_name(name) in _NAMES for name in header)


def is_image_name(cell: str) -> bool:
    return os.path.splitext(cell.strip())[1].lower() in PICTURE_EXTENSIONS


def key_of(cell: str) -> str:
    """What a cell names, in the form of `exact_keys`. A `file:` URI is the path it stands for."""
    text = cell.strip()
    if text.startswith("file:///"):
        text = uri_to_path(text).encode("utf-8", "replace").decode()
    return composed(text).replace("\\", "/").removeprefix("./")


def loose_key(key: str) -> str:
    """A key without what programs change, in the form of `loose_keys`."""
    match = _FLOAT_OF_INT.fullmatch(key)
    return match[1] if match else key.casefold()


def exact_keys(path: str, folder: str) -> list[str]:
    """What a row for this image may be called, the most exact first.

    `folder` is the table's own, to which paths may be relative. All but the last ones have the
    file's extension.
    """
    # A name that is not UTF-8 cannot stand in a CSV that is.
    path = composed(path.encode("utf-8", "replace").decode())
    whole = [path]
    if path.startswith(os.path.join(folder, "")):
        whole.insert(0, os.path.relpath(path, folder))
    # Then without the folders around it, one after the other: `images/1.jpg`, `1.jpg`.
    parts = Path(path).parts
    start = max(1, len(parts) - _MOST_FOLDERS)
    whole += [os.path.join(*parts[begin:]) for begin in range(start, len(parts))]
    names = [name.replace(os.sep, "/") for name in whole]
    stems = [os.path.splitext(name)[0] for name in names]
    return list(dict.fromkeys(names + stems))


def file_keys(path: str) -> list[str]:
    """Those of `exact_keys` that have no folder."""
    name = composed(os.path.basename(path).encode("utf-8", "replace").decode())
    return list(dict.fromkeys((name, os.path.splitext(name)[0])))


def loose_keys(keys: Iterable[str]) -> Iterator[str]:
    """Loose keys of rows that an image with these exact keys may belong to."""
    for key in dict.fromkeys(keys):
        yield key.casefold()
        if match := _PADDED.fullmatch(key):
            yield match[1]


def padded_to(key: str, path: str) -> int | None:
    """The number of digits of a file's name, if a row's key lacks its leading zeros."""
    stem = os.path.splitext(os.path.basename(path))[0]
    return len(stem) if _PADDED.fullmatch(stem) and len(loose_key(key)) < len(stem) else None


def has_a_file_of_its_own(key: str, path: str) -> bool:
    """Whether beside an image lies another whose name is exactly a row's key."""
    extension = os.path.splitext(path)[1]
    name = os.path.basename(key)
    for other in (name, name + extension):
        beside = os.path.join(os.path.dirname(path), other)
        try:
            # One file may answer to both names, where the system does not tell capitals apart.
            if not os.path.samefile(beside, path):
                return True
        except (OSError, ValueError):
            continue
    return False


def composed(text: str) -> str:
    """Accents and letters as one character: macOS keeps them apart in file names."""
    return unicodedata.normalize("NFC", text)
