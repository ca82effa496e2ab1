"""Resolve the names that a user gives into sources."""

import contextlib
import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from imgsearch import objects
from imgsearch.errors import SourceError
from imgsearch.sources.base import STDIN, Sources
from imgsearch.sources.names import is_hidden_name
from imgsearch.uris import MemberUrl, ObjectUrl, canonical_path


def resolve(names: Iterable[str]) -> Sources:
    """Resolve folders, files, globs, URLs of objects and `-`, before any work is done.

    A name that exists is taken literally, even with `*` in it; any other is a glob, `**` included.
    A URL names an object, all objects below it, or objects by a glob, whose matches the scan finds.
    Raises SourceError if one does not exist, cannot be read, or matches nothing.
    """
    folders: dict[str, None] = {}
    files: dict[str, None] = {}
    matches: dict[str, None] = {}
    object_globs: dict[ObjectUrl, None] = {}
    stdin = False
    for name in names:
        if name == STDIN:
            stdin = True
            continue
        if url := ObjectUrl.parse(name):
            if _is_object(url):
                files[str(url)] = None
            elif _has_objects(url):
                folders[str(url)] = None
            elif glob.has_magic(url.key):
                object_globs[url] = None
            else:
                raise SourceError(f"{url}: no such object or folder; nothing was done")
            continue
        if member := MemberUrl.named(name):
            files[str(member)] = None
            continue
        expanded = name if os.path.lexists(name) else os.path.expanduser(name)
        if os.path.isdir(expanded):
            _check_folder(expanded)
            folders[os.path.realpath(expanded)] = None
        elif os.path.lexists(expanded):
            files[canonical_path(expanded)] = None
        elif glob.has_magic(expanded):
            for match in _matches(name, expanded):
                if os.path.isdir(match):
                    folders[os.path.realpath(match)] = None
                else:
                    matches[canonical_path(match)] = None
        else:
            raise SourceError(f"{name or repr(name)}: no such file or folder; nothing was done")
    return Sources(tuple(folders), tuple(files), tuple(matches), stdin, tuple(object_globs))


def _matches(name: str, pattern: str) -> list[str]:
    """Return the sorted matches of a glob. Like a walk, it skips hidden and system folders."""
    # Leading folders that exist are taken literally, even with `[` in their names.
    literal, rest = pattern, ""
    while literal and not os.path.isdir(literal):
        literal, last = os.path.split(literal)
        rest = os.path.join(last, rest)
    parts = Path(rest).parts
    while parts and parts[-1] == "**":  # everything in a folder is the folder
        parts = parts[:-1]
    if not parts:
        return [literal or os.curdir]
    try:
        # pathlib's `**` does not follow links, which may form loops; the glob module's does.
        paths = [str(path) for path in Path(literal).glob(os.path.join(*parts))]
    except (ValueError, NotImplementedError) as error:
        raise SourceError(f"{name}: {error}; nothing was done") from error
    if not any(part.startswith(".") for part in parts):
        known = {*parts, *Path(literal).parts}
        paths = [
            path for path in paths if not any(map(is_hidden_name, set(Path(path).parts) - known))
        ]
    if not paths:
        raise SourceError(f"{name}: nothing matches; nothing was done")
    return sorted(paths)


def _is_object(url: ObjectUrl) -> bool:
    with _readable(url):
        try:
            return bool(url.key and objects.describe(url))
        except FileNotFoundError:
            return False


def _has_objects(folder: ObjectUrl) -> bool:
    with _readable(folder):
        return next(objects.list_objects(folder), None) is not None


@contextlib.contextmanager
def _readable(url: ObjectUrl) -> Iterator[None]:
    """Raise SourceError where an object store does not answer, or not to this user."""
    try:
        yield
    except OSError as error:
        raise SourceError(f"{url}: cannot be read: {error.strerror}; nothing was done") from error


def _check_folder(folder: str) -> None:
    try:
        with os.scandir(folder):
            pass
    except OSError as error:
        raise SourceError(
            f"{folder}: cannot be read: {error.strerror or error}; nothing was done"
        ) from error
