"""`watch`: a collection follows its folders, by real events of the file system."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imgsearch import ImageIndex
from imgsearch.errors import SourceError
from imgsearch.events import Event, Note
from imgsearch.server.settings import Settings
from imgsearch.types import ImageRecord
from imgsearch.watching import changes, pending
from imgsearch.watching import run as watching
from tests.conftest import Painter
from tests.fakes import ColorEncoder
from tests.serving import serving
from tests.test_weaviate_store import unique_name

_DEADLINE = 30.0


def until(condition: Callable[[], object], what: str = "") -> None:
    deadline = time.monotonic() + _DEADLINE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


class Watched:
    """A watched folder `photos` with one image, and the collection."""

    def __init__(self, tmp_path: Path, paint: Painter) -> None:
        self.folder = tmp_path / "photos"
        self.paint = paint
        paint("photos/0.png", 0)
        self.encoder = ColorEncoder()
        self.index = ImageIndex(store=tmp_path / "store", encoder_opener=self.encoder.open)
        self.notes: list[str] = []
        self.stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, **options: bool | float) -> None:
        def listen(event: Event) -> None:
            if isinstance(event, Note):
                self.notes.append(event.text)

        self._thread = threading.Thread(
            target=self.index.watch,
            args=(self.folder,),
            kwargs={"settle": 0.2, "listener": listen, "stop": self.stop, **options},
        )
        self._thread.start()
        until(lambda: any("watching" in note for note in self.notes))

    def end(self) -> None:
        self.stop.set()
        if self._thread:
            self._thread.join(_DEADLINE)
            assert not self._thread.is_alive()

    def records(self) -> dict[str, ImageRecord]:
        return {os.path.relpath(each.path, self.folder): each for each in self.index.records()}

    def becomes(self, *names: str) -> None:
        until(lambda: set(self.records()) == set(names), f"{names} != {list(self.records())}")


@pytest.fixture
def watched(tmp_path: Path, paint: Painter) -> Iterator[Watched]:
    found = Watched(tmp_path, paint)
    yield found
    found.end()
    found.index.close()


@pytest.fixture
def _no_confirmation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only events count: no scan afterwards finds what they have missed."""
    monkeypatch.setattr(watching, "_QUIET_SECONDS", 1000.0)


@pytest.mark.usefixtures("_no_confirmation")
def test_new_changed_and_renamed_files_are_followed(watched: Watched) -> None:
    watched.start()
    watched.becomes("0.png")
    watched.paint("photos/new/1.png", 1)
    (watched.folder / "notes.txt").write_text("no image")
    (watched.folder / ".hidden.png").write_bytes((watched.folder / "0.png").read_bytes())
    watched.becomes("0.png", "new/1.png")
    before = watched.records()["0.png"]
    watched.index.set_metadata(before.id, {"note": "mine"})
    watched.paint("photos/new/1.png", 2)
    digest = watched.records()["new/1.png"].sha256
    until(lambda: watched.records()["new/1.png"].sha256 != digest)
    encoded = watched.encoder.encoded
    (watched.folder / "0.png").rename(watched.folder / "new" / "renamed.png")
    watched.becomes("new/1.png", "new/renamed.png")
    until(lambda: watched.records()["new/renamed.png"].metadata == {"note": "mine"})
    assert watched.encoder.encoded == encoded
    (watched.folder / "new" / "1.png").unlink()
    watched.paint("photos/2.png", 3)
    watched.becomes("2.png", "new/1.png", "new/renamed.png")  # nothing is removed without prune


def test_a_file_is_ready_when_it_has_stopped_growing(tmp_path: Path) -> None:
    now = [0.0]
    waiting = pending.Pending(1.0, lambda: now[0])
    file = tmp_path / "a.jpg"
    file.write_bytes(b"1")
    waiting.add(str(file))
    for content in (b"1", b"12", b"123"):
        file.write_bytes(content)
        assert list(waiting.ready()) == []
        now[0] += 0.9
    assert list(waiting.ready()) == []
    now[0] += 0.2
    assert list(waiting.ready()) == [str(file)]
    assert len(waiting) == 0
    waiting.add(str(file))
    file.unlink()
    assert list(waiting.ready()) == [str(file)]


def test_only_folders_are_watched(watched: Watched) -> None:
    for place in (watched.folder / "0.png", watched.folder / "nowhere"):
        with pytest.raises(SourceError):
            watched.index.watch(place, stop=watched.stop)


@pytest.mark.slow
@pytest.mark.usefixtures("_no_confirmation")
def test_deleted_files_are_removed_with_prune_only_from_folders_that_are_there(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_RENAME_SECONDS", 0.2)
    for number in range(1, 4):
        watched.paint(f"photos/{number}.png", number)
    watched.start(prune=True)
    watched.becomes("0.png", "1.png", "2.png", "3.png")
    (watched.folder / "1.png").unlink()
    watched.becomes("0.png", "2.png", "3.png")
    away = watched.folder.with_name("away")
    watched.folder.rename(away)
    until(lambda: any("waiting for it" in note for note in watched.notes))
    watched.folder.mkdir()  # an empty mount point
    time.sleep(1)
    assert len(watched.records()) == 3
    watched.folder.rmdir()
    (away / "2.png").unlink()
    watched.paint("away/new.png", 9)
    away.rename(watched.folder)
    # No event has told that 2.png was deleted: the folder was not there.
    watched.becomes("0.png", "2.png", "3.png", "new.png")
    (watched.folder / "3.png").unlink()
    watched.becomes("0.png", "2.png", "new.png")


@pytest.mark.slow
@pytest.mark.usefixtures("_no_confirmation")
def test_lost_events_are_made_up_for_by_a_scan(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.start()
    monkeypatch.setattr(changes, "MANY", 3)  # as if the queue of events had overflown
    monkeypatch.setattr(watching._Watcher, "_notice", lambda *_: None)
    for number in range(1, 6):
        shutil.copy(watched.folder / "0.png", watched.folder / f"copy{number}.png")
    watched.becomes("0.png", *(f"copy{number}.png" for number in range(1, 6)))


@pytest.mark.slow
def test_what_no_event_has_told_is_found_by_a_scan_afterwards(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_QUIET_SECONDS", 0.5)
    watched.start()
    monkeypatch.setattr(watching._Watcher, "_notice", lambda *_: None)
    watched.paint("photos/1.png", 1)
    watched.becomes("0.png", "1.png")


@pytest.mark.slow
@pytest.mark.usefixtures("_no_confirmation")
def test_a_changed_table_and_a_moved_folder_are_followed(watched: Watched) -> None:
    watched.paint("photos/men/1.png", 1)
    watched.start()
    (watched.folder / "styles.csv").write_text("id,kind\n0,hat\n1,shoe\n")
    until(lambda: watched.records()["men/1.png"].metadata == {"kind": "shoe"})
    (watched.folder / "men").rename(watched.folder / "women")
    watched.becomes("0.png", "women/1.png")
    until(lambda: watched.records()["women/1.png"].metadata == {"kind": "shoe"})


@pytest.mark.slow
def test_sigterm_ends_the_command_cleanly(tmp_path: Path, paint: Painter) -> None:
    paint("photos/0.png", 0)
    words = ["watch", str(tmp_path / "photos"), "--store", str(tmp_path / "store")]
    words += ["--model", "efficientnet-lite0"]
    with subprocess.Popen(
        [sys.executable, "-m", "imgsearch", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        with contextlib.closing(ImageIndex(store=tmp_path / "store")) as index:
            until(lambda: index.exists() and index.count() == 1)
            paint("photos/1.png", 1)
            until(lambda: index.count() == 2)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=_DEADLINE)
    assert process.returncode == 0, err
    assert out.count("1 indexed") == 2
    assert "Traceback" not in err


@pytest.mark.slow
def test_the_service_watches_a_folder(tmp_path: Path, paint: Painter) -> None:
    folder = paint("photos/0.png", 0).parent
    settings = Settings(
        str(tmp_path / "store"), data=tmp_path / "home", store_timeout=20, watch=(str(folder),)
    )
    with serving(settings, ColorEncoder()) as served:

        def count() -> int:
            answer = served.client.get("/v1/collections/images")
            return int(answer.json()["images"]) if answer.status_code == 200 else 0

        until(lambda: count() == 1)
        paint("photos/1.png", 1)
        files = {"files": ("a.png", paint("other.png", 2).read_bytes())}
        assert served.client.post("/v1/collections/images/uploads", files=files).status_code == 202
        until(lambda: count() == 3)


@pytest.mark.weaviate
@pytest.mark.slow
def test_a_collection_on_a_server_is_followed(
    watched: Watched, tmp_path: Path, one_node: str
) -> None:
    name = unique_name()
    watched.index.close()
    watched.index = ImageIndex(
        name, store=one_node, timeout=20, encoder_opener=watched.encoder.open
    )
    watched.start(prune=True)
    (watched.folder / "0.png").rename(watched.folder / "1.png")
    watched.paint("photos/2.png", 2)
    watched.becomes("1.png", "2.png")
    watched.end()
    watched.index.drop()


def test_nothing_is_removed_when_a_drive_below_the_folder_is_unmounted(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_QUIET_SECONDS", 0.1)
    monkeypatch.setattr(watching, "_RENAME_SECONDS", 0.1)
    watched.paint("photos/nas/1.png", 1)
    drive = watched.folder / "nas"
    mounted = {str(drive)}
    monkeypatch.setattr(changes, "mounts_below", lambda _: frozenset(mounted))
    monkeypatch.setattr(watching, "mounts_below", lambda _: frozenset(mounted))
    watched.start(prune=True)
    watched.becomes("0.png", "nas/1.png")
    time.sleep(0.5)
    shutil.copytree(drive, watched.folder.with_name("drive"))
    mounted.clear()
    shutil.rmtree(drive)
    drive.mkdir()
    watched.paint("photos/2.png", 2)
    watched.becomes("0.png", "2.png", "nas/1.png")
    time.sleep(1)
    watched.becomes("0.png", "2.png", "nas/1.png")
