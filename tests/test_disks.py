"""Read-only and full disks."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from imgsearch.index import ImageIndex
from imgsearch.server.storage import spool_directory
from tests.conftest import SAMPLES, Cli
from tests.fakes import ColorEncoder
from tests.serving import filled, image_bytes, serving

SHIRT = SAMPLES / "images" / "10101.jpg"

ReadOnly = Callable[[Path], None]


@pytest.fixture(scope="module")
def used_home(
    tmp_path_factory: pytest.TempPathFactory, sample_store: str, exported_models: Path
) -> Path:
    """A data directory with a store and a model that has been used once."""
    folder = tmp_path_factory.mktemp("used") / "home"
    shutil.copytree(sample_store, folder / "store")
    shutil.copytree(exported_models, folder / "models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMGSEARCH_HOME", str(folder))
        with ImageIndex(store=folder / "store") as index:
            index.search(SHIRT, k=1)
    return folder


@pytest.fixture
def home(used_home: Path, read_only: ReadOnly, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same data directory, read-only."""
    monkeypatch.setenv("IMGSEARCH_HOME", str(used_home))
    read_only(used_home)
    return used_home


@pytest.mark.parametrize(
    "command",
    [
        "info",
        "models",
        f"query {SHIRT} --k 2",
        "query --text shoe",
        "eval --label articleType --sample 5",
        "copy --from {home}/store --to {out}",
    ],
    ids=lambda command: command.split()[0] + ("-text" if "--text" in command else ""),
)
def test_reading_commands_work_on_a_read_only_disk(
    command: str, cli: Cli, home: Path, tmp_path: Path
) -> None:
    done = cli(*command.format(home=home, out=tmp_path / "out").split())
    assert done.code == 0, done.err
    assert "error" not in done.err


@pytest.mark.parametrize("command", [f"ingest {SHIRT}", f"remove {SHIRT}"])
def test_writing_commands_name_the_unwritable_place(command: str, cli: Cli, home: Path) -> None:
    done = cli(*command.split())
    assert done.code == 1
    assert f"{home}/store: cannot be written to" in done.err
    assert "Read-only file system" in done.err
    assert len(done.err.splitlines()) == 1


def test_a_service_works_on_a_read_only_disk(tmp_path: Path, read_only: ReadOnly) -> None:
    settings = filled(tmp_path / "all")
    settings.data.mkdir()
    read_only(tmp_path / "all")
    with spool_directory(settings.data), serving(settings, ColorEncoder()) as served:
        search = "/v1/collections/images/search"
        found = served.client.post(search, files={"image": image_bytes(3)})
        assert found.status_code == 200
        assert found.json()["hits"][0]["score"] > 0.99
        refused = served.client.post("/upload/", files={"file": image_bytes(99)})
        assert refused.status_code == 500
        assert "may not write to its data directory" in refused.text
        assert served.client.get("/readyz").status_code == 200


def test_a_full_disk_of_the_store_is_an_error_and_the_next_run_continues(
    cli: Cli, small_disk: Path, tmp_path: Path
) -> None:
    ballast = small_disk / "ballast"
    to = ("--store", small_disk / "store", "--model", "efficientnet-lite0")
    ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - (64 << 10)))
    done = cli("ingest", SAMPLES, "-q", *to)
    assert done.code == 1
    assert str(small_disk / "store") in done.err
    assert "full" in done.err or "No space left" in done.err
    assert len(done.err.splitlines()) == 1
    ballast.unlink()
    again = cli("ingest", SAMPLES, "--json", *to).json
    assert again["verified"]
    assert (
        again["found"] == again["indexed"] + again["reused"] + again["skipped"] + again["rejected"]
    )
    assert cli("query", SHIRT, "--paths", "--k", "1", *to[:2]).out == f"{SHIRT}\n"
