"""`--prune`: records of deleted files are removed, unless a drive seems to be unmounted."""

import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from imgsearch.encoders.request import EncoderRequest
from imgsearch.errors import StoreError
from imgsearch.ingest import IngestOptions, IngestReport, ingest, prune
from imgsearch.ingest.prune import UnprunedFolder
from imgsearch.stores import VectorStore, open_store
from imgsearch.stores.lance.collection import LanceCollection
from imgsearch.uris import path_to_uri
from tests.conftest import Cli, Painter
from tests.fakes import ColorEncoder

MANY = 5


@pytest.fixture(autouse=True)
def _few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imgsearch.ingest.prune.MIN_MISSING", MANY)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[VectorStore]:
    with open_store(str(tmp_path / "store")) as opened:
        yield opened


@pytest.fixture
def photos(paint: Painter, tmp_path: Path) -> Callable[..., Path]:
    """`photos(nas=6, local=3)` paints images into folders below one."""

    def made(**folders: int) -> Path:
        for folder, count in folders.items():
            for number in range(count):
                paint(
                    f"photos/{folder.replace('_', '/')}/{number}.png",
                    zlib.crc32(f"{folder}/{number}".encode()),
                )
        return tmp_path / "photos"

    return made


Run = Callable[..., IngestReport]


@pytest.fixture
def run(store: VectorStore) -> Run:
    def once(*folders: Path, **options: Any) -> IngestReport:
        weights = options.pop("weights", "0" * 64)
        return ingest(
            [str(folder) for folder in folders],
            store,
            "images",
            EncoderRequest("colors"),
            IngestOptions(batch_size=8, workers=2, **options),
            encoder_opener=ColorEncoder(weights).open,
        )

    return once


def _count(store: VectorStore) -> int:
    return store.open("images").count()


def _empty(folder: Path) -> None:
    """Leave an empty mount point, as an unmounted drive does."""
    shutil.rmtree(folder)
    folder.mkdir()


def test_an_unmounted_drive_below_a_source_loses_no_record(
    run: Run, store: VectorStore, photos: Callable[..., Path]
) -> None:
    folder = photos(nas_2019=4, nas_2020=4, local=3)
    run(folder)
    _empty(folder / "nas")
    (folder / "local/0.png").unlink()
    report = run(folder, prune=True)
    assert report.removed == 1  # the rest is pruned
    assert _count(store) == 10
    assert report.unpruned == [UnprunedFolder(str(folder / "nas"), 8, 0)]
    report = run(folder, prune=True, prune_missing=True)
    assert (report.removed, report.unpruned) == (8, [])
    assert _count(store) == 2


def test_a_missing_mount_point_loses_no_record(
    run: Run, store: VectorStore, photos: Callable[..., Path]
) -> None:
    folder = photos(nas=6, local=9)
    run(folder)
    shutil.rmtree(folder / "nas")
    assert run(folder, prune=True).removed == 0
    assert _count(store) == 15


def test_a_folder_with_less_than_half_of_its_files_is_retained(
    run: Run, store: VectorStore, photos: Callable[..., Path]
) -> None:
    folder = photos(a_b=11, local=30)
    run(folder)
    for number in range(6):
        (folder / f"a/b/{number}.png").unlink()
    report = run(folder, prune=True)
    assert report.unpruned == [UnprunedFolder(str(folder / "a"), 6, 5)]
    assert _count(store) == 41


def test_half_of_a_folder_can_be_pruned(run: Run, photos: Callable[..., Path]) -> None:
    folder = photos(a=12)
    run(folder)
    for number in range(6):
        (folder / f"a/{number}.png").unlink()
    assert run(folder, prune=True).removed == 6


def test_few_missing_files_are_always_pruned(run: Run, photos: Callable[..., Path]) -> None:
    folder = photos(a=MANY - 1, b=MANY - 1, rest=2 * MANY)
    run(folder)
    _empty(folder / "a")
    shutil.rmtree(folder / "b")
    assert run(folder, prune=True).removed == 2 * (MANY - 1)


def test_missing_files_of_a_retained_folder_do_not_count_for_its_parents(
    run: Run, photos: Callable[..., Path]
) -> None:
    folder = photos(nas=30, local=8)
    run(folder)
    _empty(folder / "nas")
    for number in range(3):
        (folder / f"local/{number}.png").unlink()
    report = run(folder, prune=True)
    assert report.unpruned == [UnprunedFolder(str(folder / "nas"), 30, 0)]
    assert report.removed == 3


def test_a_source_with_too_many_folders_is_judged_as_a_whole(
    run: Run, photos: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgsearch.ingest.prune._MAX_FOLDERS", 3)
    folder = photos(a=1, b=1, c=1, d=1, e=1, rest=20)
    run(folder)
    for name in "abcde":
        shutil.rmtree(folder / name)
    report = run(folder, prune=True)
    assert report.unpruned == [UnprunedFolder(str(folder), 5, 20)]


@pytest.mark.parametrize("remembered", [100_000, 3])
def test_the_records_are_read_once_unless_many_files_are_missing(
    run: Run,
    photos: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    remembered: int,
) -> None:
    monkeypatch.setattr("imgsearch.ingest.prune._MAX_REMEMBERED", remembered)
    folder = photos(a=20, nas=8)
    run(folder)
    for number in range(7):
        (folder / f"a/{number}.png").unlink()
    _empty(folder / "nas")
    reads: list[tuple[str, ...]] = []
    uris = LanceCollection.uris

    def counted(collection: LanceCollection, *prefixes: str) -> Iterator[list[str]]:
        reads.append(prefixes)
        return uris(collection, *prefixes)

    monkeypatch.setattr(LanceCollection, "uris", counted)
    report = run(folder, prune=True)
    assert report.removed == 7
    assert report.unpruned == [UnprunedFolder(str(folder / "nas"), 8, 0)]
    assert len(reads) == (1 if remembered > 15 else 2)
    assert set(reads) == {(path_to_uri(str(folder)) + "/",)}


@pytest.mark.parametrize("listed", [True, False])
def test_files_are_missing_however_many_a_folder_lists(
    run: Run,
    photos: Callable[..., Path],
    paint: Painter,
    monkeypatch: pytest.MonkeyPatch,
    listed: bool,
) -> None:
    """A folder is listed where many files are asked for; others are asked for one by one."""
    asked: list[str] = []
    is_missing = prune._is_missing

    def ask(path: str) -> bool:
        asked.append(os.path.basename(path))
        return is_missing(path)

    folder = photos(a=20)
    paint("photos/a/50% of é.png", 1)
    run(folder)
    for name in ("3.png", "50% of é.png"):
        (folder / "a" / name).unlink()
    monkeypatch.setattr(prune, "_WORTH_LISTING", 2)
    monkeypatch.setattr(prune, "_LISTED_PER_FILE", 4 if listed else 0)
    monkeypatch.setattr(prune, "_is_missing", ask)
    report = run(folder, prune=True)
    assert (report.removed, report.found) == (2, 19)
    gone = {"3.png", "50% of é.png"}
    assert set(asked) == (gone if listed else gone | set(os.listdir(folder / "a")))


def test_a_replacement_does_not_drop_an_unmounted_drive(
    run: Run, store: VectorStore, photos: Callable[..., Path]
) -> None:
    folder = photos(nas=6, local=9)
    run(folder, weights="1" * 64)
    _empty(folder / "nas")
    (folder / "local/0.png").unlink()
    new: dict[str, Any] = {"weights": "2" * 64, "replace": True, "prune": True}
    with pytest.raises(StoreError, match="is unchanged: 6 of its"):
        run(folder, **new)
    assert _count(store) == 15
    run(folder, **new, prune_missing=True)
    assert _count(store) == 8


def test_the_command_prints_the_folder_and_the_remedy(
    cli: Cli, photos: Callable[..., Path], tmp_path: Path
) -> None:
    folder = photos(nas=6, local=9)
    to = ("--store", tmp_path / "cli", "--model", "efficientnet-lite0")
    assert cli("ingest", folder, *to, "-q").code == 0
    _empty(folder / "nas")
    result = cli("ingest", folder, "--prune", *to)
    assert result.code == 0
    assert f"not pruned {folder / 'nas'}: 6 files are missing, 0 exist" in result.out
    assert "--prune-missing" in result.out
    assert cli("ingest", folder, "--prune", "--json", *to).json["unpruned_folders"] == [
        {"path": str(folder / "nas"), "missing": 6, "present": 0}
    ]
    done = cli("ingest", folder, "--prune-missing", "--json", *to).json
    assert (done["removed"], done["unpruned_folders"]) == (6, [])
