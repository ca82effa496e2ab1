"""Where the service's temporary files lie: on the data directory's disk, and not for long."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from imgsearch.server.errors import ApiError
from imgsearch.server.storage import Spool, UploadStorage, spool_directory
from imgsearch.stores import VectorStore, open_store
from tests.serving import picture


@pytest.fixture
def store(tmp_path: Path) -> Iterator[VectorStore]:
    with open_store(str(tmp_path / "store")) as store:
        yield store


def test_bodies_of_requests_lie_in_the_data_directory_until_the_service_ends(
    tmp_path: Path,
) -> None:
    before = tempfile.gettempdir()
    with spool_directory(tmp_path / "data"):
        assert (tmp_path / "data") in Path(tempfile.gettempdir()).parents
        with tempfile.NamedTemporaryFile(delete=False) as left:
            left.write(b"as after a kill")
    assert tempfile.gettempdir() == before
    assert not list((tmp_path / "data").iterdir())


def test_a_data_directory_that_cannot_be_written_to_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with spool_directory(tmp_path / "file" / "data"), tempfile.TemporaryFile() as body:
        body.write(b"body")


def test_uploads_into_a_data_directory_that_cannot_be_written_to_are_refused(
    tmp_path: Path, store: VectorStore
) -> None:
    (tmp_path / "file").touch()
    data = tmp_path / "file" / "data"
    files = UploadStorage(data / "uploads", Spool(data), 1, lambda: store)
    with pytest.raises(ApiError, match="may not write to its data directory"):
        files.stage_bytes(picture(1))


def test_a_spool_that_is_removed_under_the_service_is_made_again(
    tmp_path: Path, store: VectorStore
) -> None:
    spool = Spool(tmp_path)
    files = UploadStorage(tmp_path / "uploads", spool, 1, lambda: store)
    shutil.rmtree(spool.folder)
    staged = files.stage_bytes(picture(1))
    with files.lock("images"):
        kept = files.place(staged, "images")
    assert kept.read_bytes() == picture(1)
    spool.close()
    assert not list(tmp_path.glob(".*"))
