"""Find the pictures in folders, files, globs and lists, and look at each only once."""

import glob
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from imgsearch.errors import SourceError
from imgsearch.images import looks_like_a_picture
from imgsearch.sites import HERE, Sites
from imgsearch.types import canonical_path, mtime_of, record_id

STDIN = "-"

# Extensions that say "picture" without a look inside; any other file is told by its first bytes.
# fmt: off
PICTURE_EXTENSIONS = frozenset(
    {
        ".apng", ".avif", ".avifs", ".bmp", ".cur", ".dds", ".dib", ".gif", ".heic",
        ".heif", ".hif", ".icns", ".ico", ".j2c", ".j2k", ".jfif", ".jp2", ".jpc", ".jpe",
        ".jpeg", ".jpf", ".jpg", ".jpx", ".mpo", ".pbm", ".pcx", ".pfm", ".pgm", ".png",
        ".pnm", ".ppm", ".psd", ".qoi", ".sgi", ".tga", ".tif", ".tiff", ".webp", ".xbm",
        ".xpm",
        # Camera raw files.
        ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".kdc",
        ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".rwl", ".sr2",
        ".srf", ".srw", ".x3f",
    }
)
# fmt: on

# Folders in which systems keep thumbnails, rubbish and their own state.
SYSTEM_FOLDERS = frozenset(
    {
        "__macosx",
        "@eadir",  # Synology's thumbnails
        "@tmp",
        "#recycle",
        "#snapshot",
        "@__thumb",  # QNAP's thumbnails
        "@recycle",
        "@recently-snapshot",
        "$recycle.bin",
        "recycler",
        "system volume information",
        "lost+found",
    }
)


@dataclass(frozen=True)
class Candidate:
    """A file that should be an image. `size` in bytes, `mtime_ns` as in records.

    `sites` is how the collection names it.
    """

    path: str
    size: int
    mtime_ns: int
    sites: Sites = HERE

    # Kept: asked for again and again, they took a fifth of an ingest that finds nothing new.
    @cached_property
    def uri(self) -> str:
        return self.sites.uri(self.path)

    @cached_property
    def id(self) -> str:
        return record_id(self.uri)


@dataclass(frozen=True, slots=True)
class Unusable:
    """A file that should be a picture, but cannot even be looked at."""

    path: str
    reason: str
    sites: Sites = HERE

    @property
    def uri(self) -> str:
        return self.sites.uri(self.path)


@dataclass
class ScanLog:
    """What a scan saw beside the candidates."""

    unreadable: list[tuple[str, str]] = field(default_factory=list)
    """Folders that could not be listed, each with its reason."""
    left_out: int = 0
    """Hidden and system files and folders that were not entered."""
    other_files: int = 0
    """Files in the folders that are no pictures."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What the user named, checked: folders to walk, files to take, lists to read."""

    folders: tuple[str, ...]
    files: tuple[str, ...]
    matches: tuple[str, ...]
    """Files that a glob matched: taken only if they are pictures."""
    stdin: bool = False


def resolve(names: Iterable[str]) -> Sources:
    """Check every source before any work is done.

    A name that exists is taken literally, even with `*` in it; else it is a glob, `**` included.
    Raises SourceError for one that does not exist or matches nothing.
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
    """What a glob leads to, sorted; like a walk, not into hidden folders nor the systems' own."""
    # Leading folders that exist are literal, even with `[` in their names.
    literal, rest = pattern, ""
    while literal and not os.path.isdir(literal):
        literal, last = os.path.split(literal)
        rest = os.path.join(last, rest)
    parts = Path(rest).parts
    while parts and parts[-1] == "**":  # all that is in a folder is the folder
        parts = parts[:-1]
    if not parts:
        return [literal or os.curdir]
    try:
        # pathlib's `**` does not follow links, which may lead in circles; the glob module's does.
        paths = [str(path) for path in Path(literal).glob(os.path.join(*parts))]
    except (ValueError, NotImplementedError) as error:
        raise SourceError(f"{name}: {error}; nothing was done") from error
    if not any(part.startswith(".") for part in parts):
        known = {*parts, *Path(literal).parts}
        paths = [path for path in paths if not any(map(_is_hidden_name, _parts(path) - known))]
    if not paths:
        raise SourceError(f"{name}: nothing matches; nothing was done")
    return sorted(paths)


def _parts(path: str) -> set[str]:
    return set(Path(path).parts)


def _check_folder(folder: str) -> None:
    try:
        with os.scandir(folder):
            pass
    except OSError as error:
        raise SourceError(
            f"{folder}: cannot be read: {error.strerror or error}; nothing was done"
        ) from error


def scan(
    sources: Sources,
    log: ScanLog,
    stdin: Iterable[str] = (),
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Candidate | Unusable]:
    """Walk the sources; each file once, however many sources lead to it.

    Folders come first, in the order of their names, and a linked folder is walked where it really
    is, once, so that loops end. One folder's names are held at a time, and the identities of
    files that were named one by one.
    """
    walk = _Walk(log, stopped)
    for folder in sources.folders:
        yield from walk.folder(folder)
    for path in sources.matches:
        yield from walk.file(path, named=False)
    for path in sources.files:
        yield from walk.file(path, named=True)
    for line in stdin:
        if stopped():
            return
        if "\0" in line:
            yield Unusable(os.path.abspath(line), "no path holds a NUL character")
        elif os.path.isdir(line):
            yield from walk.folder(os.path.realpath(line))
        else:
            yield from walk.file(canonical_path(line), named=True)


class _Walk:
    def __init__(self, log: ScanLog, stopped: Callable[[], bool]) -> None:
        self._log = log
        self._stopped = stopped
        self._entered: set[str] = set()
        self._named: set[str] = set()

    def folder(self, root: str) -> Iterator[Candidate | Unusable]:
        waiting = [root]
        while waiting and not self._stopped():
            folder = waiting.pop()
            if folder in self._entered:
                continue
            self._entered.add(folder)
            try:
                with os.scandir(folder) as listing:
                    entries = sorted(listing, key=lambda entry: entry.name)
            except OSError as error:
                self._log.unreadable.append((folder, error.strerror or str(error)))
                continue
            subfolders, linked = [], []
            for entry in entries:
                if self._stopped():
                    return
                if is_left_out(entry):
                    self._log.left_out += 1
                elif _is_folder(entry):
                    if entry.is_symlink():
                        linked.append(os.path.realpath(entry.path))
                    else:
                        subfolders.append(entry.path)
                elif entry.path not in self._named:
                    yield from self._look(entry.path, named=False)
            # Taken from the end: first the real folders by name, then where links lead.
            waiting.extend(reversed(subfolders + linked))

    def file(self, path: str, *, named: bool) -> Iterator[Candidate | Unusable]:
        """A file named by itself: rejected with a reason, if it is no picture and `named`."""
        if path in self._named or self._was_walked(path):
            return
        self._named.add(path)
        yield from self._look(path, named=named)

    def _was_walked(self, path: str) -> bool:
        """Whether a walk has taken the file, rather than counted it among the others."""
        folder, name = os.path.split(path)
        if folder not in self._entered or _is_hidden_name(name):
            return False
        try:
            return (os.path.isfile(path) or os.path.islink(path)) and _is_picture(path)
        except OSError:  # `_look` says what is wrong with it
            return False

    def _look(self, path: str, *, named: bool) -> Iterator[Candidate | Unusable]:
        try:
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode):
                if named:
                    yield Unusable(path, "not a regular file")
                else:
                    self._log.other_files += 1
                return
            if named or _is_picture(path):
                yield Candidate(path, status.st_size, mtime_of(status))
            else:
                self._log.other_files += 1
        except OSError as error:
            if not os.path.islink(path) or os.path.exists(path):
                yield Unusable(path, error.strerror or str(error))
            elif named or _has_picture_extension(path):
                yield Unusable(path, "a link to a file that is not there")
            else:
                self._log.other_files += 1


def _is_hidden_name(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def is_left_out(entry: "os.DirEntry[str]") -> bool:
    """Hidden by name or attribute, or one of the folders in which a system keeps its own."""
    if _is_hidden_name(entry.name):
        return True
    if os.name != "nt":
        return False
    attributes = getattr(entry.stat(follow_symlinks=False), "st_file_attributes", 0)
    return bool(attributes & stat.FILE_ATTRIBUTE_HIDDEN)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or to a place that may not be looked at
        return False


def _has_picture_extension(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in PICTURE_EXTENSIONS


def _is_picture(path: str) -> bool:
    """By extension, which costs nothing, else by the first bytes. Raises OSError."""
    if _has_picture_extension(path):
        return True
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for ever
        return False
    with open(path, "rb") as file:
        return looks_like_a_picture(file.read(32))


def read_list(stream: BinaryIO, chunk_size: int = 1 << 16) -> Iterator[str]:
    """Paths from a stream, separated by NUL if its first chunk holds one, else by newlines."""
    chunk = stream.read(chunk_size)
    separator = b"\0" if b"\0" in chunk else b"\n"
    rest = b""
    while chunk:
        *whole, rest = (rest + chunk).split(separator)
        for name in whole:
            yield from _path_in(name, separator)
        chunk = stream.read(chunk_size)
    yield from _path_in(rest, separator)


def _path_in(name: bytes, separator: bytes) -> Iterator[str]:
    if separator == b"\n":
        name = name.removesuffix(b"\r")
    # No name holds a NUL: one far into a list of lines is rubbish, which just does not exist.
    for part in name.split(b"\0"):
        if part:
            yield os.fsdecode(part)
