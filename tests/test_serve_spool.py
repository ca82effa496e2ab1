"""Temporary files of the service are in the data directory, and are deleted."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from imgsearch.server.errors import ApiError
from imgsearch.server.storage import Spool, UploadStorage, spool_directory
from imgsearch.stores import VectorStore, open_store
from tests.serving import image_bytes


@pytest.fixture
def store(tmp_path: Path) -> Iterator[VectorStore]:
    with open_store(str(tmp_path / "store")) as store:
        yield store


def test_request_bodies_are_in_the_data_directory_until_the_service_stops(
    tmp_path: Path,
) -> None:
    before = tempfile.gettempdir()
    with spool_directory(tmp_path / "data"):
        assert (tmp_path / "data") in Path(tempfile.gettempdir()).parents
        with tempfile.NamedTemporaryFile(delete=False) as left:
            left.write(b"as after a kill")
    assert tempfile.gettempdir() == before
    assert not list((tmp_path / "data").iterdir())


def test_a_read_only_data_directory_is_not_required(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with spool_directory(tmp_path / "file" / "data"), tempfile.TemporaryFile() as body:
        body.write(b"body")


def test_uploads_to_a_read_only_data_directory_are_rejected(
    tmp_path: Path, store: VectorStore
) -> None:
    (tmp_path / "file").touch()
    data = tmp_path / "file" / "data"
    files = UploadStorage(data / "uploads", Spool(data), 1, lambda: store)
    with pytest.raises(ApiError, match="may not write to its data directory"):
        files.stage_bytes(image_bytes(1))


def test_a_deleted_spool_is_created_again(tmp_path: Path, store: VectorStore) -> None:
    spool = Spool(tmp_path)
    files = UploadStorage(tmp_path / "uploads", spool, 1, lambda: store)
    shutil.rmtree(spool.folder)
    staged = files.stage_bytes(image_bytes(1))
    with files.lock("images"):
        stored = files.place(staged, "images")
    assert stored.read_bytes() == image_bytes(1)
    spool.close()
    assert not list(tmp_path.glob(".*"))
