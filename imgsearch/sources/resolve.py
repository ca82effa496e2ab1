"""Resolve the names that a user gives into sources."""

import contextlib
import glob
import os
from collections.abc import Container, Iterable, Iterator

from imgsearch import objects
from imgsearch.errors import SourceError
from imgsearch.sources.base import STDIN, Sources
from imgsearch.sources.globs import FileGlob
from imgsearch.uris import MemberUrl, ObjectUrl, canonical_path


def resolve(names: Iterable[str]) -> Sources:
    """Resolve folders, files, globs, URLs of objects and `-`, before any work is done.

    A name that exists is taken literally, even with `*` in it; any other is a glob, `**` included,
    which is walked for the folders that it matches. The scan finds its files.
    A URL names an object, all objects below it, or objects by a glob, whose matches the scan finds.
    Raises SourceError if one does not exist, cannot be read, or matches nothing.
    """
    folders: dict[str, None] = {}
    files: dict[str, None] = {}
    globs: dict[FileGlob, None] = {}
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
            pattern = FileGlob.parse(expanded)
            if isinstance(pattern, FileGlob):
                folders |= dict.fromkeys(sorted(_folders(name, pattern)))
                globs[pattern] = None
            else:
                folders[pattern] = None
        else:
            raise SourceError(f"{name or repr(name)}: no such file or folder; nothing was done")
    return Sources(tuple(folders), tuple(files), tuple(globs), stdin, tuple(object_globs))


def _folders(name: str, pattern: FileGlob) -> Iterator[str]:
    """Yield the folders that match a glob, without those in them.

    Raises SourceError if nothing matches.
    """
    nothing = True
    above = set[str]()
    for match in pattern.walk(_entries):
        nothing = False
        if match.is_folder and (pattern.finds_hidden or not _is_below(match.path, above)):
            above.add(match.path)
            yield os.path.realpath(match.path)
    if nothing:
        raise SourceError(f"{name}: nothing matches; nothing was done")


def _is_below(path: str, folders: Container[str]) -> bool:
    while (folder := os.path.dirname(path)) != path:
        if folder in folders:
            return True
        path = folder
    return False


def _entries(folder: str) -> Iterator["os.DirEntry[str]"]:
    with contextlib.suppress(OSError), os.scandir(folder) as listing:  # the scan reports it
        yield from listing


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
