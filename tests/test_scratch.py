"""Temporary files are removed by their owner, or by a later run if the owner was killed."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from imgsearch.errors import ScratchError
from imgsearch.metadata.table import MetadataTable
from imgsearch.stores.lance.store import LanceStore
from imgsearch.system import scratch
from tests.conftest import Cli, Painter
from tests.store_contract import STAMP


def killed_after(program: str, *arguments: Path) -> None:
    """Run a process that ends without cleaning up, as after `kill -9`."""
    subprocess.run(
        [sys.executable, "-c", f"{program}\nimport os; os._exit(9)", *map(str, arguments)],
        timeout=240,
    )


LEAVING = """
import sys, pathlib
from imgsearch.system import scratch
folder = scratch.folder([pathlib.Path(sys.argv[1])])
(folder.__enter__() / "rows").write_bytes(b"left")
"""


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    with scratch.folder([tmp_path]) as one, scratch.folder([tmp_path]) as two:
        assert one != two
        (one / "file").write_text("x")
    assert not list(tmp_path.iterdir())
    with pytest.raises(KeyError), scratch.folder([tmp_path]):
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_only_folders_of_killed_processes_are_removed(
    tmp_path: Path,
) -> None:
    with scratch.folder([tmp_path]) as mine:
        (mine / "file").write_text("x")
        killed_after(LEAVING, tmp_path)
        assert len(list(tmp_path.glob(".scratch/*/rows"))) == 1
        scratch.clean(tmp_path)
        assert [path.name for path in tmp_path.glob(".scratch/*/*")] == ["file"]
    assert not list(tmp_path.iterdir())


def test_the_first_writable_place_is_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with scratch.folder([tmp_path / "file", tmp_path / "new"]) as made:
        assert tmp_path / "new" in made.parents


def test_the_systems_folder_is_the_last_resort(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "system").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "system"))
    with scratch.folder([tmp_path / "file"], anywhere=True) as made:
        assert made.parent == tmp_path / "system"
    assert not made.exists()
    (tmp_path / "system").rmdir()
    with (
        pytest.raises(ScratchError, match="the system's temporary folder: No such file"),
        scratch.folder([tmp_path / "file"], anywhere=True),
    ):
        pass


def test_only_folders_of_this_module_are_removed(tmp_path: Path) -> None:
    """In a shared folder, another user may have made `.scratch`."""
    mine = tmp_path / "mine"
    for name in ("poetry", "17-00c0ffee"):
        (mine / name).mkdir(parents=True)
        (mine / f"{name}.lock").touch()
    (tmp_path / ".scratch").symlink_to(mine)
    scratch.clean(tmp_path)
    with pytest.raises(ScratchError, match="is a link"), scratch.folder([tmp_path]):
        pass
    (tmp_path / ".scratch").unlink()
    mine.rename(tmp_path / ".scratch")
    scratch.clean(tmp_path)
    assert {path.name for path in (tmp_path / ".scratch").iterdir()} == {"poetry", "poetry.lock"}


def test_without_any_place_the_error_has_all_reasons(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    (tmp_path / "b").write_text("")
    with pytest.raises(ScratchError) as caught, scratch.folder([tmp_path / "a", tmp_path / "b"]):
        pass
    assert f"{tmp_path / 'a'}: Not a directory; {tmp_path / 'b'}: Not a directory" in str(
        caught.value
    )


def test_a_full_disk_is_detected_in_advance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, _: bytes) -> int:
        if tmp_path / "full" in path.parents:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return 1

    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    with scratch.folder([tmp_path / "full", tmp_path / "room"]) as made:
        assert tmp_path / "room" in made.parents
    with (
        pytest.raises(ScratchError, match="full: No space left on device"),
        scratch.folder([tmp_path / "full"]),
    ):
        pass


def test_files_of_a_killed_ingest_are_removed_by_the_next(
    cli: Cli, paint: Painter, tmp_path: Path
) -> None:
    folder = paint("shop/1.png", 1).parent
    (folder / "styles.csv").write_text("id,kind\n1,shoe\n")
    program = """
import sys, pathlib
from imgsearch.system import scratch
from imgsearch.metadata.table import MetadataTable
table = MetadataTable(sys.argv[1], places=[pathlib.Path(sys.argv[2])])
"""
    store = tmp_path / "store"
    for _ in range(3):
        killed_after(program, folder / "styles.csv", store)
    assert len(list(store.glob(".scratch/*/rows.sqlite"))) == 1, "each run removes the last one's"
    (folder / "styles.csv").unlink()  # even a run without temporary files cleans up
    (folder / "1.png").write_bytes(b"not an image")
    cli("ingest", folder, "--store", store)
    assert not list(store.rglob(".scratch"))


@pytest.mark.skipif(sys.platform == "win32", reason="it has no limits for the size of files")
def test_a_full_disk_for_rows_ends_the_run_and_names_the_folder(
    tmp_path: Path,
) -> None:
    """A limit on file sizes replaces a full disk; SQLite reports both in the same way."""
    table = tmp_path / "styles.csv"
    table.write_text("id,text\n" + "".join(f"{n},{'x' * 1000}\n" for n in range(5000)))
    program = """
import resource, signal, sys, pathlib
from imgsearch.errors import ScratchError
from imgsearch.metadata.table import MetadataTable
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    MetadataTable(sys.argv[1], places=[pathlib.Path(sys.argv[2])])
except ScratchError as error:
    print(error)
"""
    ran = subprocess.run(
        [sys.executable, "-c", program, str(table), str(tmp_path / "place")],
        timeout=240,
        capture_output=True,
        text=True,
    )
    assert ran.stdout.startswith(f"{tmp_path / 'place' / '.scratch'}"), ran.stderr
    assert str(table) in ran.stdout
    assert not list(tmp_path.rglob(".scratch"))


def test_a_missing_temporary_folder_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    table = tmp_path / "styles.csv"
    table.write_text("id,kind\n1,shoe\n")
    with MetadataTable(str(table)) as opened:
        assert opened.lookup("/x/1.jpg") == {"kind": "shoe"}


def test_remains_of_dropped_collections_of_early_versions_are_removed(tmp_path: Path) -> None:
    store = LanceStore(tmp_path)
    left, other = tmp_path / ".images-dropped-17", tmp_path / ".images-dropped-by-me"
    store.create("images", STAMP)
    for folder in (left, other):
        folder.mkdir()
    with store.write_lock("images"):
        assert not left.exists()
    store.drop("images")
    assert store.names() == []
    assert other.exists()
    assert {path.name for path in tmp_path.iterdir()} == {other.name, ".images.lock"}


def test_a_dropped_collection_whose_deletion_was_killed_is_removed_by_the_next_writer(
    tmp_path: Path,
) -> None:
    store = LanceStore(tmp_path)
    store.create("images", STAMP)
    program = """
import os, shutil, sys
from imgsearch.stores.lance.store import LanceStore
shutil.rmtree = lambda *_, **__: os._exit(9)
LanceStore(sys.argv[1]).drop("images")
"""
    killed_after(program, tmp_path)
    assert store.names() == []
    assert list(tmp_path.glob(".scratch/*/images.lance"))
    with store.write_lock("shoes"):
        assert not list(tmp_path.glob(".scratch"))
