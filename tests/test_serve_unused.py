"""Uploaded files that no record names any more are deleted in the end, and no others."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from imgsearch.index import ImageIndex
from imgsearch.server.storage import GRACE_SECONDS, Spool, UploadStorage
from imgsearch.stores import open_store
from tests.fakes import ColourEncoder
from tests.serving import Served, filled, picture, serving


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(filled(tmp_path), ColourEncoder()) as running:
        yield running


def upload(served: Served, seed: int) -> Path:
    files = {"file": (f"{seed}.png", picture(seed), "image/png")}
    answer = served.client.post("/upload/", files=files, data={"description": "new"})
    assert answer.status_code in (200, 201), answer.text
    (path,) = (
        path
        for path in (served.service.settings.uploads / "images").glob("*/*.png")
        if path.read_bytes() == picture(seed)
    )
    return path


def later(served: Served, sweeps: int = 2) -> None:
    """Sweeps now, and after the time for which files are kept."""
    for number in range(sweeps):
        served.service.storage.sweep(time.time() + number * (GRACE_SECONDS + 60))


def forget(served: Served, path: Path) -> None:
    """As `imgsearch remove` does."""
    with ImageIndex("images", store=served.service.settings.store) as index:
        assert index.remove_paths([path]) == 1


def test_a_file_whose_record_was_removed_elsewhere_is_deleted_after_a_while(
    served: Served,
) -> None:
    gone, kept = upload(served, 100), upload(served, 101)
    forget(served, gone)
    later(served, sweeps=1)
    assert gone.exists()
    later(served)
    assert not gone.exists()
    assert kept.exists()
    assert [path.name for path in gone.parent.iterdir()] == []


def test_a_file_that_was_uploaded_again_meanwhile_stays(served: Served) -> None:
    path = upload(served, 100)
    forget(served, path)
    later(served, sweeps=1)
    assert upload(served, 100) == path
    later(served)
    later(served)
    assert list(path.parent.iterdir()) == [path]


def test_a_file_of_which_another_collection_has_a_record_stays(served: Served) -> None:
    path = upload(served, 100)
    store = served.service.settings.store
    with open_store(store) as opened:
        images = opened.open("images")
        (own,) = (each for b in images.scan() for each in b if each.path == str(path))
        other = opened.create("other", images.stamp)
        other.upsert([own], images.vectors_by_id([own.id])[own.id][None])
    forget(served, path)
    later(served)
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


def test_files_of_a_dropped_collection_go_too(served: Served) -> None:
    path = upload(served, 100)
    with ImageIndex("images", store=served.service.settings.store) as index:
        index.drop()
    later(served)
    assert not path.exists()


def test_what_earlier_versions_kept_is_left_alone(served: Served) -> None:
    path = upload(served, 100)
    (path.parent.parent / ".stores").unlink()
    forget(served, path)
    later(served)
    upload(served, 101)
    later(served)
    assert path.exists()
