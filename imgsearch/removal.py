"""Remove the records of files and folders."""

import os
import re
from collections.abc import Sequence
from itertools import takewhile

from imgsearch.errors import RecordNotFoundError
from imgsearch.sites import Sites
from imgsearch.stores.base import Collection
from imgsearch.uris import MemberUrl, ObjectUrl, canonical_path, is_shard, record_id

_URI = re.compile(r"[a-z][a-z0-9+.-]*://|item:")
# For more folders than this, the store scans their common prefix, and other records are skipped
# here.
_MAX_PREFIXES = 100


def remove_paths(collection: Collection, paths: Sequence[str | os.PathLike[str]]) -> int:
    """Remove the records of files, and of all files in folders. Return their number.

    Files of other machines, and images that are no files here, are given by URI. Raises
    RecordNotFoundError, and removes nothing, if there is no record for one of the paths.
    """
    uris = {_uri(path, collection.sites): os.fspath(path) for path in paths}
    known = collection.lookup([record_id(uri) for uri in uris])
    folders = {_folder(uri) for uri in uris}
    missing = {_folder(uri): path for uri, path in uris.items() if record_id(uri) not in known}
    _check_folders(collection, missing)
    removed = collection.delete(list(known))
    for batch in collection.uris(*_prefixes(folders)):
        removed += collection.delete([record_id(each) for each in batch if _parents(each, folders)])
    return removed


def _check_folders(collection: Collection, folders: dict[str, str]) -> None:
    """Raise RecordNotFoundError if a folder, of these paths by URI, contains no record."""
    empty = dict(folders)
    for uris in collection.uris(*_prefixes(folders)) if empty else ():
        for each in uris:
            for folder in _parents(each, empty):
                del empty[folder]
        if not empty:
            return
    for path in empty.values():
        raise RecordNotFoundError(f"{path}: not in the collection; nothing was removed")


def _uri(path: str | os.PathLike[str], sites: Sites) -> str:
    if member := MemberUrl.named(str(path)):
        return sites.qualified(str(member))
    if _URI.match(str(path)):  # of another machine, or no file at all
        return str(path)
    if url := ObjectUrl.parse(str(path)):
        return str(url)
    # As records have them: links are resolved in the folder, not in the name of the file.
    real = os.path.expanduser(path)
    return sites.uri(os.path.realpath(real) if os.path.isdir(real) else canonical_path(real))


def _folder(uri: str) -> str:
    """Return what the URIs of all records in a folder or shard begin with."""
    return f"{uri}#" if is_shard(uri) else uri.removesuffix("/") + "/"


def _prefixes(folders: set[str] | dict[str, str]) -> list[str]:
    if len(folders) <= _MAX_PREFIXES:
        return sorted(folders)
    first, last = min(folders), max(folders)
    common = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    prefix = "".join(letter for letter, _ in common)
    return [prefix[: prefix.rfind("/") + 1]]  # a folder, for which stores have an index


def _parents(uri: str, folders: set[str] | dict[str, str]) -> list[str]:
    """Return the folders and shards that contain the record of a URI, as `_folder` does."""
    parts = uri.split("/")
    parents = ["/".join(parts[:depth]) + "/" for depth in range(1, len(parts))]
    if "#" in uri:
        parents.append(uri.partition("#")[0] + "#")
    return [each for each in parents if each in folders]
