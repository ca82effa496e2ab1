"""Records are removed by the paths of files and folders, without a pass for each path."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imgsearch.errors import RecordNotFoundError
from imgsearch.index import ImageIndex
from imgsearch.removal import remove_paths
from imgsearch.stores import open_store
from imgsearch.stores.base import Collection
from imgsearch.types import ImageRecord
from imgsearch.uris import path_to_uri
from tests.store_contract import OTHER_STAMP, STAMP, everything, vectors

NAMES = ["a/1.jpg", "a/b/2.jpg", "ab/3.jpg", "c/4.jpg", "c/5.jpg", "6.jpg"]


class Counting:
    """Wraps a collection, and counts its scans."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self.scans: list[tuple[str, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._collection, name)

    def uris(self, *prefixes: str) -> Iterator[list[str]]:
        self.scans.append(prefixes)
        return self._collection.uris(*prefixes)


def fill(collection: Collection, paths: list[Path]) -> None:
    records = [
        ImageRecord(path_to_uri(str(path)), f"{number:064x}", 1, 1, 1, 1)
        for number, path in enumerate(paths)
    ]
    collection.upsert(records, vectors(len(records)))


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    made = open_store(str(tmp_path / "store")).create("images", STAMP)
    fill(made, [tmp_path / name for name in NAMES])
    return made


def left(collection: Collection, folder: Path) -> list[str]:
    records = everything(collection).values()
    return sorted(Path(each.path).relative_to(folder).as_posix() for each in records)


def test_files_and_folders_are_removed_together_and_counted_once(
    collection: Collection, tmp_path: Path
) -> None:
    paths = [tmp_path / "a", tmp_path / "a/b/2.jpg", tmp_path / "6.jpg"]
    assert remove_paths(collection, paths) == 3
    assert left(collection, tmp_path) == ["ab/3.jpg", "c/4.jpg", "c/5.jpg"]


def test_a_path_without_records_is_named_and_nothing_is_removed(
    collection: Collection, tmp_path: Path
) -> None:
    with pytest.raises(RecordNotFoundError, match=r"nowhere.*nothing was removed"):
        remove_paths(collection, [tmp_path / "a", tmp_path / "nowhere", tmp_path / "6.jpg"])
    assert len(left(collection, tmp_path)) == len(NAMES)


@pytest.mark.parametrize("count", [3, 150])
def test_many_paths_take_two_scans_at_most(
    collection: Collection, tmp_path: Path, count: int
) -> None:
    more = [tmp_path / f"more/{number}/image.jpg" for number in range(count)]
    fill(collection, more)
    spy: Any = Counting(collection)
    assert remove_paths(spy, [path.parent for path in more]) == count
    assert 1 <= len(spy.scans) <= 2
    assert left(collection, tmp_path) == sorted(NAMES)


def test_removal_after_a_replacement_affects_the_new_collection(
    tmp_path: Path,
) -> None:
    with open_store(str(tmp_path / "store")) as store, ImageIndex("images", store=store) as index:
        fill(store.create("images", STAMP), [tmp_path / name for name in NAMES])
        assert len(list(index.records())) == len(NAMES)
        fill(store.replacement("images", OTHER_STAMP), [tmp_path / "new.jpg"])
        store.promote("images", OTHER_STAMP)
        assert [Path(each.path).name for each in index.records()] == ["new.jpg"]
        assert [Path(each.path).name for each in index.page(5)] == ["new.jpg"]
