"""Resolve the names that a user gives into sources."""

import glob
import os
from collections.abc import Iterable
from pathlib import Path

from imgsearch.errors import SourceError
from imgsearch.sources.base import STDIN, Sources
from imgsearch.sources.names import is_hidden_name
from imgsearch.uris import canonical_path


def resolve(names: Iterable[str]) -> Sources:
    """Resolve folders, files, globs and `-`, before any work is done.

    A name that exists is taken literally, even with `*` in it; any other is a glob, `**` included.
    Raises SourceError if one does not exist, cannot be read, or matches nothing.
    """
    folders: dict[str, None] = {}
    files: dict[str, None] = {}
    matches: dict[str, None] = {}
    stdin = False
    for name in names:
        if name == STDIN:
            stdin = True
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
    return Sources(tuple(folders), tuple(files), tuple(matches), stdin)


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


def _check_folder(folder: str) -> None:
    try:
        with os.scandir(folder):
            pass
    except OSError as error:
        raise SourceError(
            f"{folder}: cannot be read: {error.strerror or error}; nothing was done"
        ) from error
