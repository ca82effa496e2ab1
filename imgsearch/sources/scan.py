"""Find the images in the sources: walk folders, and check each file once."""

import fnmatch
import glob
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice, takewhile

from imgsearch.images import looks_like_an_image
from imgsearch.objects import ObjectInfo, describe, list_objects
from imgsearch.shards import Member, Shard, open_shard, version_of_member
from imgsearch.sources.base import Candidate, OwnFields, ScanLog, Sources, Unusable
from imgsearch.sources.globs import FileGlob, is_folder
from imgsearch.sources.names import has_image_extension, is_hidden_name, is_left_out
from imgsearch.sources.seen import SeenPaths
from imgsearch.types import mtime_of
from imgsearch.uris import (
    MemberUrl,
    ObjectUrl,
    canonical_path,
    is_shard,
    path_to_uri,
    readable_path,
    uri_to_path,
)


def scan(
    sources: Sources,
    log: ScanLog,
    stdin: Iterable[str] = (),
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Candidate | Unusable]:
    """Yield each file of the sources once, even if several sources contain it.

    Folders come first. The files of a folder are sorted by name, then come its subfolders, sorted
    by name. Of a folder with more than `_SORTED_ENTRIES` entries so many are sorted at a time, as
    the file system lists them. A linked folder is walked once, at its real path, so that loops end.

    Memory holds so many entries, the paths of the folders, and a digest of files that are listed
    one by one, or that a glob reaches through a link (`SeenPaths`): a file that is listed twice
    must not be yielded twice.
    """
    walk = _Walk(log, stopped)
    for folder in sources.folders:
        if url := ObjectUrl.parse(folder):
            yield from walk.objects(url)
        else:
            yield from walk.folder(folder)
    for url_pattern in sources.object_globs:
        yield from walk.object_matches(url_pattern)
    for pattern in sources.globs:
        yield from walk.matches(pattern)
    for path in sources.files:
        yield from walk.file(path, named=True)
    for line in stdin:
        if stopped():
            return
        if "\0" in line:
            yield Unusable(os.path.abspath(line), "a path cannot contain a NUL character")
        elif place := ObjectUrl.parse(line) or MemberUrl.named(line):
            yield from walk.file(str(place), named=True)
        elif os.path.isdir(line):
            yield from walk.folder(os.path.realpath(line))
        else:
            yield from walk.file(canonical_path(line), named=True)


# The names of an image collection's folder mostly; a sort of these takes 30 MB.
_SORTED_ENTRIES = 100_000


class _Walk:
    def __init__(self, log: ScanLog, stopped: Callable[[], bool]) -> None:
        self._log = log
        self._stopped = stopped
        self._entered: set[str] = set()
        self._seen = SeenPaths()
        self._globs: list[FileGlob] = []  # all of whose matches have been found
        self._folders: list[ObjectUrl] = []  # of objects, all of which have been found
        self._object_globs: list[_ObjectGlob] = []

    def folder(self, root: str) -> Iterator[Candidate | Unusable]:
        waiting = [root]
        while waiting and not self._stopped():
            folder = waiting.pop()
            if folder in self._entered:
                continue
            self._entered.add(folder)
            subfolders: list[str] = []
            linked: list[tuple[str, str]] = []
            for entry in self._entries(folder):
                if self._stopped():
                    return
                if is_left_out(entry):
                    self._log.left_out += 1
                elif is_folder(entry):
                    if entry.is_symlink():
                        linked.append((entry.path, os.path.realpath(entry.path)))
                    else:
                        subfolders.append(entry.path)
                elif not self._was_matched(entry.path) and entry.path not in self._seen:
                    yield from self._check(entry.path, named=False)
            # Popped from the end: first the real folders by name, then the targets of links.
            targets = [target for _, target in sorted(linked)]
            waiting.extend(reversed(sorted(subfolders) + targets))

    def matches(self, pattern: FileGlob) -> Iterator[Candidate | Unusable]:
        """Yield the images that match a glob and are not in folders that were walked."""
        for match in pattern.walk(self._entries):
            if self._stopped():
                return
            path = match.path
            if match.is_folder or self._was_walked(path) or self._was_matched(path):
                continue
            if match.linked:
                if pattern.matches(path) or path in self._seen:
                    continue
                self._seen.add(path)
            yield from self._file_or_shard(path, named=False)
        self._globs.append(pattern)

    def objects(self, root: ObjectUrl) -> Iterator[Candidate | Unusable]:
        """Yield the images below a URL in the order of their keys.

        Objects are not opened: one without an extension may be an image, and one with another
        extension is none.
        """
        listed = self._log.objects
        for each in self._listed(root):
            if listed is not None:
                listed.add(str(each.url))
            yield from self._object(each, root)
        self._folders.append(root)

    def object_matches(self, pattern: ObjectUrl) -> Iterator[Candidate | Unusable]:
        """Yield the images that match a glob, in the order of their keys."""
        objects = _ObjectGlob(pattern)
        for each in self._listed(objects.root):
            if not objects.matches(each.url):
                continue
            if is_shard(str(each.url)):
                yield from self.file(str(each.url), named=True)
            else:
                yield from self._object(each, objects.root)
        self._object_globs.append(objects)

    def _listed(self, root: ObjectUrl) -> Iterator[ObjectInfo]:
        """Yield objects; if they are listed to the end, the log says so."""
        try:
            for each in list_objects(root):
                if self._stopped():
                    return
                yield each
        except OSError as error:
            self._log.unreadable.append((str(root), error.strerror or str(error)))
        else:
            if self._log.objects is not None:
                self._log.objects.folders.add(str(root))

    def _object(self, info: ObjectInfo, root: ObjectUrl) -> Iterator[Candidate | Unusable]:
        path = str(info.url)
        if self._was_listed(info.url) or path in self._seen:
            return
        if _is_hidden(info.url, root):
            self._log.left_out += 1
        elif is_shard(path):
            self._log.shards += 1
        elif info.size and may_be_image(info.url.key.rpartition("/")[2]):
            yield Candidate(path, info.size, info.mtime_ns)
        else:
            self._log.other_files += 1

    def _entries(self, folder: str) -> Iterator["os.DirEntry[str]"]:
        """Yield the entries of a folder, some at a time sorted by name."""
        try:
            with os.scandir(folder) as listing:
                while some := list(islice(listing, _SORTED_ENTRIES)):
                    yield from sorted(some, key=lambda entry: entry.name)
        except OSError as error:
            self._log.unreadable.append((folder, error.strerror or str(error)))

    def file(self, path: str, *, named: bool) -> Iterator[Candidate | Unusable]:
        """Yield a single file. If it is not an image, it is Unusable if `named`, else ignored."""
        if path in self._seen or self._was_found(path):
            return
        self._seen.add(path)
        yield from self._file_or_shard(path, named=named)

    def _file_or_shard(self, path: str, *, named: bool) -> Iterator[Candidate | Unusable]:
        if is_shard(path):
            if self._was_passed(path):
                self._log.shards -= 1
            yield from self.shard(path_to_uri(path))
        else:
            yield from self._check(path, named=named)

    def shard(self, uri: str) -> Iterator[Candidate | Unusable]:
        """Yield the images in a shard in their order. Contents are not read."""
        try:
            shard = open_shard(uri)
            for member in shard.members():
                if self._stopped():
                    return
                yield from self._member(shard, member)
        except OSError as error:
            self._log.unreadable.append((uri_to_path(uri), error.strerror or str(error)))
            return
        place = readable_path(uri_to_path(uri))
        self._log.remarks += [f"{place}: {remark}" for remark in shard.remarks]
        if shard.problem:
            self._log.unreadable.append((uri_to_path(uri), shard.problem))
        elif self._log.objects is not None:
            self._log.objects.shards[uri] = None

    def _member(self, shard: Shard, member: Member) -> Iterator[Candidate | Unusable]:
        path = str(MemberUrl(shard.uri, member.name))
        if self._log.objects is not None:
            self._log.objects.add(path)
        parts = [part for part in member.name.split("/") if part not in {"", ".", ".."}]
        if any(map(is_hidden_name, parts)):
            self._log.left_out += 1
        elif not parts or not may_be_image(parts[-1]):
            self._log.other_files += 1
        elif member.problem:
            yield Unusable(path, member.problem)
        elif member.size:
            size, mtime_ns = shard.version_of(member)
            own = OwnFields(shard.id, shard.types, member.fields) if shard.types else None
            yield Candidate(path, size, mtime_ns, own=own)
        else:
            self._log.other_files += 1

    def _was_found(self, path: str) -> bool:
        """Return whether a walk or a glob has yielded the file, and not counted it as another."""
        if url := ObjectUrl.parse(path):
            return self._was_listed(url) and may_be_image(path.rpartition("/")[2])
        matched = self._was_matched(path) and (is_shard(path) or _may_be_taken(path))
        return matched or self._was_walked(path)

    def _was_passed(self, path: str) -> bool:
        """Return whether a walk has counted the shard as one that is not read."""
        if url := ObjectUrl.parse(path):
            return any(_is_below(url, root) for root in self._folders)
        return os.path.dirname(path) in self._entered

    def _was_walked(self, path: str) -> bool:
        folder, name = os.path.split(path)
        return folder in self._entered and not is_hidden_name(name) and _may_be_taken(path)

    def _was_matched(self, path: str) -> bool:
        return any(pattern.matches(path) for pattern in self._globs)

    def _was_listed(self, url: ObjectUrl) -> bool:
        return any(
            _is_below(url, root) and not _is_hidden(url, root) for root in self._folders
        ) or any(
            pattern.matches(url) and not _is_hidden(url, pattern.root)
            for pattern in self._object_globs
        )

    def _check(self, path: str, *, named: bool) -> Iterator[Candidate | Unusable]:
        if url := ObjectUrl.parse(path):
            yield _described(url)
            return
        if member := MemberUrl.parse(path):
            yield _described(member)
            return
        try:
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode):
                if named:
                    yield Unusable(path, "not a regular file")
                else:
                    self._log.other_files += 1
                return
            if named or _is_image(path):
                yield Candidate(path, status.st_size, mtime_of(status))
            elif is_shard(path):
                self._log.shards += 1
            else:
                self._log.other_files += 1
        except OSError as error:
            if not os.path.islink(path) or os.path.exists(path):
                yield Unusable(path, error.strerror or str(error))
            elif named or has_image_extension(path):
                yield Unusable(path, "a link to a file that is not there")
            else:
                self._log.other_files += 1


def is_wanted(path: str, folder: str) -> bool:
    """Return whether a walk of a folder enters a folder in it, or takes a file in it as an image.

    False if it cannot be read.
    """
    if any(map(is_hidden_name, os.path.relpath(path, folder).split(os.sep))):
        return False
    try:
        return os.path.isdir(path) or _is_image(path)
    except OSError:
        return False


def _described(url: ObjectUrl | MemberUrl) -> Candidate | Unusable:
    try:
        if isinstance(url, MemberUrl):
            return Candidate(str(url), *version_of_member(url))
        info = describe(url)
    except OSError as error:
        return Unusable(str(url), error.strerror or str(error))
    return Candidate(str(url), info.size, info.mtime_ns)


class _ObjectGlob:
    def __init__(self, pattern: ObjectUrl) -> None:
        self._parts = pattern.key.split("/")
        literal = takewhile(lambda part: not glob.has_magic(part), self._parts)
        self.root = replace(pattern, key="/".join(literal))
        """What all objects that match are below."""

    def matches(self, url: ObjectUrl) -> bool:
        return _is_below(url, self.root) and _matches(url.key.split("/"), self._parts)


def _is_below(url: ObjectUrl, root: ObjectUrl) -> bool:
    """Return whether an object is below a folder, or in a bucket."""
    inside = f"{root.key}/" if root.key else ""
    return (url.scheme, url.bucket) == (root.scheme, root.bucket) and url.key.startswith(inside)


def _is_hidden(url: ObjectUrl, root: ObjectUrl) -> bool:
    """Return whether an object has a hidden name, or is in a hidden folder, below `root`."""
    return any(map(is_hidden_name, url.key.removeprefix(root.key).strip("/").split("/")))


def may_be_image(name: str) -> bool:
    """Return whether an object may be an image by its name."""
    return has_image_extension(name) or "." not in name


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether the parts of a key match those of a glob; `**` stands for any folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[at:], pattern[1:]) for at in range(len(parts) + 1))
    return (
        bool(parts)
        and fnmatch.fnmatchcase(parts[0], pattern[0])
        and _matches(parts[1:], pattern[1:])
    )


def _may_be_taken(path: str) -> bool:
    """Return whether a file that was come across has been taken as an image."""
    try:
        return (os.path.isfile(path) or os.path.islink(path)) and _is_image(path)
    except OSError:  # `_check` reports it
        return False


def _is_image(path: str) -> bool:
    """Return whether a file is an image, by its extension or else by its first bytes.

    Raises OSError if it cannot be read.
    """
    if has_image_extension(path):
        return True
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would block
        return False
    with open(path, "rb") as file:
        return looks_like_an_image(file.read(32))
