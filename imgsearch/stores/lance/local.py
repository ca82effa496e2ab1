"""A store in a folder of this machine: files, locks of the operating system, renames."""

import datetime
import os
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from imgsearch.stores.lance.folders import SUFFIX, Work, WriteLock
from imgsearch.stores.lance.readers import at_work, is_at_work
from imgsearch.system import scratch
from imgsearch.system.atomic import write_text

AGE_WHILE_SCANNED = datetime.timedelta(days=1)
AGE_WHILE_READ = datetime.timedelta(minutes=1)
AGE_AT_REST = datetime.timedelta(seconds=2)
AGE_IF_UNKNOWN = datetime.timedelta(hours=1)


class LocalDatasetFolder:
    """The folder of one dataset on this machine."""

    options = None
    writers_may_overlap = False

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.url = str(self.path)

    def has_versions(self) -> bool:
        try:
            with os.scandir(self.path / "_versions") as entries:
                return any(entry.name.endswith(".manifest") for entry in entries)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def size(self) -> int:
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    def read_attachment(self, name: str) -> str | None:
        try:
            return self._attachment(name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def write_attachment(self, name: str, text: str | None) -> None:
        file = self._attachment(name)
        if text is None:
            file.unlink(missing_ok=True)
        else:
            write_text(file, text)

    def remove_attachments(self) -> None:
        for outdated in self.path.glob(self._attachment("*").name):
            outdated.unlink(missing_ok=True)

    def remove(self) -> None:
        if self.path.exists():
            shutil.rmtree(self.path)

    def reading(self, work: Work) -> AbstractContextManager[None]:
        return at_work(self.path, work)

    def age_to_keep(self) -> datetime.timedelta:
        scanned = is_at_work(self.path, Work.SCAN)
        read = is_at_work(self.path, Work.READ)
        if scanned:
            return AGE_WHILE_SCANNED
        if scanned is None or read is None:
            return AGE_IF_UNKNOWN
        return AGE_WHILE_READ if read else AGE_AT_REST

    def check_lock(self) -> None:
        """Do nothing: the lock ends with the process, not before."""

    def _attachment(self, name: str) -> Path:
        return self.path / f"_attached_{name}.json"


class LocalStoreFolder:
    """The folder of a store on this machine."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path).expanduser().absolute()
        self.url = str(self._path)

    def names(self) -> list[str]:
        if not self._path.is_dir():
            return []
        found = (entry.stem for entry in self._path.iterdir() if entry.suffix == SUFFIX)
        return [name for name in found if self.dataset(name).has_versions()]

    def dataset(self, name: str) -> LocalDatasetFolder:
        return LocalDatasetFolder(self._path / (name + SUFFIX))

    def make(self) -> None:
        self._path.mkdir(parents=True, exist_ok=True)

    def drop(self, names: Sequence[str]) -> None:
        # Renamed first, so that a reader sees all of it or nothing.
        with scratch.folder([self._path]) as doomed:
            for name in names:
                path = self.dataset(name).path
                if path.exists():
                    path.rename(doomed / path.name)

    def clean(self, name: str) -> None:
        # Under the lock no other process drops this collection.
        scratch.clean(self._path)
        for left in self._path.glob(f".{name}-dropped-*"):  # of earlier versions
            if left.name.rpartition("-")[2].isdigit():
                shutil.rmtree(left, ignore_errors=True)

    def lock(self, name: str) -> WriteLock:
        from filelock import FileLock  # here, as readers need not wait for it to load

        return FileLock(self._path / f".{name}.lock")
