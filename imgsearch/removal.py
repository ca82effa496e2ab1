"""Remove the records of files and folders, in one pass over the collection's part that matters."""

import os
from collections.abc import Sequence
from itertools import takewhile

from imgsearch.errors import RecordNotFoundError
from imgsearch.sites import Sites
from imgsearch.stores.base import Collection
from imgsearch.types import ImageRecord
from imgsearch.uris import canonical_path, record_id

# With more prefixes than these a store reads what they have in common, and the rest is left out
# here.
_MOST_PREFIXES = 100


def remove_paths(collection: Collection, paths: Sequence[str | os.PathLike[str]]) -> int:
    """Remove the records of files, and of folders with all below them, in batches.

    Those of other machines are named by their URIs. Returns how many records there were. Raises
    RecordNotFoundError, with nothing removed, if a
    path has none.
    """
    uris = {_uri(path, collection.sites): os.fspath(path) for path in paths}
    known = collection.lookup([record_id(uri) for uri in uris])
    folders = {_folder(uri) for uri in uris}
    missing = {_folder(uri): path for uri, path in uris.items() if record_id(uri) not in known}
    _check(collection, missing)
    removed = collection.delete(list(known))
    for records in collection.scan(*_prefixes(folders)):
        removed += collection.delete([each.id for each in records if _folders_of(each, folders)])
    return removed


def _check(collection: Collection, missing: dict[str, str]) -> None:
    """Raises RecordNotFoundError unless every folder (by URI; with its path) has a record."""
    left = dict(missing)
    for records in collection.scan(*_prefixes(missing)) if left else ():
        for each in records:
            for folder in _folders_of(each, left):
                del left[folder]
        if not left:
            return
    for path in left.values():
        raise RecordNotFoundError(
            f"{path}: nothing of it is in the collection; nothing was removed"
        )


def _uri(path: str | os.PathLike[str], sites: Sites) -> str:
    if str(path).startswith("file://"):  # as another machine names it
        return str(path)
    # A folder is known by its real path, a file by its folder's.
    real = os.path.expanduser(path)
    return sites.uri(os.path.realpath(real) if os.path.isdir(real) else canonical_path(real))


def _folder(uri: str) -> str:
    return uri.removesuffix("/") + "/"


def _prefixes(folders: set[str] | dict[str, str]) -> list[str]:
    if len(folders) <= _MOST_PREFIXES:
        return sorted(folders)
    first, last = min(folders), max(folders)
    same = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return ["".join(letter for letter, _ in same)]


def _folders_of(record: ImageRecord, folders: set[str] | dict[str, str]) -> list[str]:
    """Those of the folders' URIs in which a record is, each ending with a slash."""
    parts = record.uri.split("/")
    above = ("/".join(parts[:depth]) + "/" for depth in range(1, len(parts)))
    return [each for each in above if each in folders]
