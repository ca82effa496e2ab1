"""Uploaded files without a record are deleted after a grace period, and no others."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from imgsearch.index import ImageIndex
from imgsearch.server.storage import GRACE_SECONDS, Spool, UploadStorage
from imgsearch.stores import open_store
from tests.fakes import ColorEncoder
from tests.serving import Served, filled, image_bytes, serving


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(filled(tmp_path), ColorEncoder()) as running:
        yield running


def upload(served: Served, seed: int) -> Path:
    files = {"file": (f"{seed}.png", image_bytes(seed), "image/png")}
    response = served.client.post("/upload/", files=files, data={"description": "new"})
    assert response.status_code in (200, 201), response.text
    (path,) = (
        path
        for path in (served.service.settings.uploads / "images").glob("*/*.png")
        if path.read_bytes() == image_bytes(seed)
    )
    return path


def sweep(served: Served, sweeps: int = 2) -> None:
    """Sweep now, and after the grace period."""
    for number in range(sweeps):
        served.service.storage.sweep(time.time() + number * (GRACE_SECONDS + 60))


def remove_record(served: Served, path: Path) -> None:
    """Remove the record of a file as `imgsearch remove` does."""
    with ImageIndex("images", store=served.service.settings.store) as index:
        assert index.remove_paths([path]) == 1


def test_a_file_without_a_record_is_deleted_after_the_grace_period(
    served: Served,
) -> None:
    unused, used = upload(served, 100), upload(served, 101)
    remove_record(served, unused)
    sweep(served, sweeps=1)
    assert unused.exists()
    sweep(served)
    assert not unused.exists()
    assert used.exists()
    assert [path.name for path in unused.parent.iterdir()] == []


def test_a_file_that_is_uploaded_again_stays(served: Served) -> None:
    path = upload(served, 100)
    remove_record(served, path)
    sweep(served, sweeps=1)
    assert upload(served, 100) == path
    sweep(served)
    sweep(served)
    assert list(path.parent.iterdir()) == [path]


def test_a_file_with_a_record_in_another_collection_stays(served: Served) -> None:
    path = upload(served, 100)
    store = served.service.settings.store
    with open_store(store) as opened:
        images = opened.open("images")
        (own,) = (each for b in images.scan() for each in b if each.path == str(path))
        other = opened.create("other", images.stamp)
        other.upsert([own], images.vectors_by_id([own.id])[own.id][None])
    remove_record(served, path)
    sweep(served)
    assert path.exists()


def test_a_service_on_another_store_deletes_nothing(served: Served, tmp_path: Path) -> None:
    path = upload(served, 100)
    settings = replace(served.service.settings, store=str(tmp_path / "another"))
    with open_store(settings.store) as store:
        other = UploadStorage(
            settings.uploads, Spool(settings.data), settings.store_timeout, lambda: store
        )
        assert other.sweep() == other.sweep(time.time() + 10 * GRACE_SECONDS) == 0
    assert path.exists()


def test_files_of_a_dropped_collection_are_deleted(served: Served) -> None:
    path = upload(served, 100)
    with ImageIndex("images", store=served.service.settings.store) as index:
        index.drop()
    sweep(served)
    assert not path.exists()


def test_files_of_earlier_versions_stay(served: Served) -> None:
    path = upload(served, 100)
    (path.parent.parent / ".stores").unlink()
    remove_record(served, path)
    sweep(served)
    upload(served, 101)
    sweep(served)
    assert path.exists()
