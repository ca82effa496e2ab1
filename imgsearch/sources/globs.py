"""Files and folders that match a glob, found in order and with bounded memory."""

import fnmatch
import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from imgsearch.sources.names import is_hidden_name

Listing = Callable[[str], Iterable["os.DirEntry[str]"]]
"""Yields the entries of a folder in the order in which they are to be found."""

_States = frozenset[int]


@dataclass(frozen=True)
class Match:
    """A path that matches. Links in its folder are resolved: `linked` says that there were some."""

    path: str
    is_folder: bool
    linked: bool


@dataclass(frozen=True)
class FileGlob:
    """A glob below a folder. `*`, `?` and `[…]` are within a name, `**` is any folders.

    `**` does not follow links, which may form loops. As in a shell, a hidden name or one of a
    system folder is matched only by a part of the pattern that is equal or begins with a dot, too.
    """

    folder: str
    """The folder without links that the pattern begins in."""
    parts: tuple[str, ...]
    """The parts of the pattern, of which the last is not `**`."""

    @classmethod
    def parse(cls, pattern: str) -> "FileGlob | str":
        """Return a glob, or the folder of which it matches everything.

        Leading folders that exist are taken literally, even with `[` in their names.
        """
        literal, rest = pattern, ""
        while literal and not os.path.isdir(literal):
            literal, last = os.path.split(literal)
            rest = os.path.join(last, rest)
        folder = os.path.realpath(literal or os.curdir)
        parts = Path(rest).parts
        while parts and parts[-1] == "**":  # everything in a folder is the folder
            parts = parts[:-1]
        return cls(folder, parts) if parts else folder

    def __str__(self) -> str:
        return os.path.join(self.folder, *self.parts)

    @property
    def finds_hidden(self) -> bool:
        """Whether it matches names that a walk of a folder leaves out."""
        return any(map(is_hidden_name, self.parts))

    def matches(self, path: str) -> bool:
        """Return whether `walk` finds a path, in whose folder all links are resolved, unlinked."""
        start = os.path.join(self.folder, "")
        if not path.startswith(start):
            return False
        states = self._start
        for name in path[len(start) :].split(os.sep):
            if not (states := self._after(states, name, is_link=False)):
                return False
        return len(self.parts) in states

    def walk(self, entries: Listing) -> Iterator[Match]:
        """Yield what matches: in each folder first by name, then what its subfolders hold.

        Each path that is not linked is yielded once. Memory holds what `entries` holds of one
        folder, and the names of the subfolders that are still to be read.
        """
        waiting = [(self.folder, self._start, False)]
        while waiting:
            folder, states, linked = waiting.pop()
            found: list[tuple[str, _States, bool]] = []
            for name, path, is_folder, is_link in self._children(folder, states, entries):
                after = self._after(states, name, is_link=is_link and is_folder)
                if len(self.parts) in after:
                    yield Match(path, is_folder, linked)
                if is_folder and (inner := after - {len(self.parts)}):
                    inside = os.path.realpath(path) if is_link else path
                    found.append((inside, inner, linked or is_link))
            waiting.extend(sorted(found, key=lambda each: each[0], reverse=True))
            if any(self.parts[state] == os.pardir for state in states):
                inner = self._closed(
                    state + 1 for state in states if self.parts[state] == os.pardir
                )
                waiting.append((os.path.dirname(folder), inner - {len(self.parts)}, True))

    def _children(
        self, folder: str, states: _States, entries: Listing
    ) -> Iterator[tuple[str, str, bool, bool]]:
        """Yield name, path, whether it is a folder and a link, of what may match in a folder."""
        names = {self.parts[state] for state in states} - {os.pardir}
        if not any(map(glob.has_magic, names)):
            for name in sorted(names):  # without listing a folder that may be large
                path = os.path.join(folder, name)
                if os.path.lexists(path):
                    yield name, path, os.path.isdir(path), os.path.islink(path)
            return
        for entry in entries(folder):
            yield entry.name, entry.path, is_folder(entry), entry.is_symlink()

    @cached_property
    def _start(self) -> _States:
        return self._closed([0])

    def _closed(self, states: Iterable[int]) -> _States:
        """Return states and their successors, as `**` may match no folder."""
        closed = set[int]()
        for state in states:
            closed.add(state)
            while state < len(self.parts) and self.parts[state] == "**":
                state += 1
                closed.add(state)
        return frozenset(closed)

    def _after(self, states: _States, name: str, *, is_link: bool) -> _States:
        """Return by how many parts a path may be matched that goes on with a name."""
        hidden, after = is_hidden_name(name), list[int]()
        for state in states:
            if state == len(self.parts):
                continue
            part = self.parts[state]
            if part == "**":
                if not hidden and not is_link:
                    after.append(state)
            elif (not hidden or part == name or (part[0] == name[0] == ".")) and self._matchers[
                state
            ](os.path.normcase(name)):
                after.append(state + 1)
        return self._closed(after)

    @cached_property
    def _matchers(self) -> list[Callable[[str], object]]:
        parts = map(os.path.normcase, self.parts)
        return [re.compile(fnmatch.translate(part)).match for part in parts]


def is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or to a place without access
        return False
