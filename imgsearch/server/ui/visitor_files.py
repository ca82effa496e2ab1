"""Files of the page's visitors under unguessable names, each for one visitor and for a while."""

import os
import re
import secrets
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from imgsearch.server.errors import too_large
from imgsearch.server.storage import translate_disk_errors

_CHUNK_BYTES = 1 << 20
_MAX_NAME = 80
# Of a name on the disk: nothing that a shell, a URL or a file system treats specially.
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


@dataclass(frozen=True, slots=True)
class FileLimits:
    """Limits of the files of all visitors together; the file used longest ago is dropped first."""

    file_bytes: int
    """Of one file."""
    total_bytes: int
    files: int
    seconds: float = 3600.0
    """How long a file stays after its last use."""


@dataclass(frozen=True, slots=True)
class VisitorFile:
    """A file of one visitor. `name` is the visitor's own name for it, to be shown only."""

    visitor: str
    token: str
    path: Path
    name: str
    size: int


class VisitorFiles:
    """A bounded set of files by token. A token is also the file's path in the folder."""

    def __init__(
        self, folder: Path, limits: FileLimits, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Makes the folder. `clock` returns seconds."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._files: OrderedDict[str, tuple[VisitorFile, float]] = OrderedDict()
        self._size = 0

    def add(self, visitor: str, name: str, source: BinaryIO) -> VisitorFile:
        """Store a copy of a stream. Raises ApiError if it is too large or the disk is full."""
        file = self._new(visitor, name)
        with translate_disk_errors():
            file.path.parent.mkdir(mode=0o700)
            try:
                with file.path.open("xb") as target:
                    size = _copy(source, target, self._limits.file_bytes)
            except BaseException:
                shutil.rmtree(file.path.parent, ignore_errors=True)
                raise
        return self._keep(file, size)

    def link(self, visitor: str, name: str, path: Path) -> VisitorFile:
        """Store an existing file, which may be deleted later. Raises OSError."""
        file = self._new(visitor, name)
        file.path.parent.mkdir(mode=0o700)
        try:
            os.link(path, file.path)
        except OSError:  # a file system without links
            shutil.copyfile(path, file.path)
        return self._keep(file, file.path.stat().st_size)

    def get(self, visitor: str, token: str) -> VisitorFile | None:
        """Return the file of a token, or None if this visitor has no such file."""
        self.sweep()
        with self._lock:
            file, _ = self._files.get(token, (None, 0.0))
            if file is None or file.visitor != visitor or not file.path.is_file():
                return None
            self._files[token] = file, self._clock()
            self._files.move_to_end(token)
            return file

    def find(self, visitor: str, path: Path) -> VisitorFile | None:
        """Return the file at a path, or None if this visitor has none there."""
        if not path.is_relative_to(self._folder):
            return None
        return self.get(visitor, path.relative_to(self._folder).as_posix())

    def sweep(self) -> int:
        """Delete expired files; return how many are left."""
        oldest = self._clock() - self._limits.seconds
        with self._lock:
            while self._files and next(iter(self._files.values()))[1] < oldest:
                self._drop_first()
            return len(self._files)

    def _new(self, visitor: str, name: str) -> VisitorFile:
        name = _CONTROL.sub("", re.split(r"[\\/]", name)[-1])[-_MAX_NAME:]
        safe = _UNSAFE.sub("_", name).lstrip(".") or "file"
        token = f"{secrets.token_urlsafe(32)}/{safe}"
        return VisitorFile(visitor, token, self._folder / token, name or "file", 0)

    def _keep(self, file: VisitorFile, size: int) -> VisitorFile:
        file = VisitorFile(file.visitor, file.token, file.path, file.name, size)
        with self._lock:
            self._files[file.token] = file, self._clock()
            self._size += size
            limits = self._limits
            while len(self._files) > 1 and (
                len(self._files) > limits.files or self._size > limits.total_bytes
            ):
                self._drop_first()
        return file

    def _drop_first(self) -> None:
        _, (file, _) = self._files.popitem(last=False)
        self._size -= file.size
        shutil.rmtree(file.path.parent, ignore_errors=True)


def _copy(source: BinaryIO, target: BinaryIO, max_bytes: int) -> int:
    size = 0
    while chunk := source.read(_CHUNK_BYTES):
        size += len(chunk)
        if size > max_bytes:
            raise too_large(f"a file may have {max_bytes:,} bytes")
        target.write(chunk)
    return size
