"""Only the file that was indexed is shown for a record."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
from PIL import Image

from imgsearch import images
from imgsearch.images import ChangedError
from imgsearch.types import ImageRecord
from imgsearch.uris import path_to_uri
from tests.fakes import ColorEncoder
from tests.serving import Served, filled, id_of, image_bytes, serving

IMAGES = "/v1/collections/images"


@pytest.fixture
def indexed(tmp_path: Path) -> ImageRecord:
    path = tmp_path / "a.png"
    path.write_bytes(image_bytes(1))
    found = images.fingerprint(str(path))
    uri = path_to_uri(str(path))
    return ImageRecord(uri, found.sha256, found.size, found.mtime_ns, 64, 48)


def other_of_size(size: int) -> bytes:
    """Another image with this many bytes."""
    other = image_bytes(2)
    assert len(other) <= size + 8
    return other.ljust(size, b"\0")[:size]


class TestOpening:
    def content(self, record: ImageRecord) -> bytes:
        with images.open_original(record) as file:
            return file.read()

    def test_the_file_that_was_indexed_is_opened(self, indexed: ImageRecord) -> None:
        assert self.content(indexed) == image_bytes(1)

    def test_equal_content_with_another_mtime_is_the_same_file(self, indexed: ImageRecord) -> None:
        os.utime(indexed.path, (1, 1))
        assert self.content(indexed) == image_bytes(1)

    def test_its_content_is_hashed_once(
        self, indexed: ImageRecord, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        os.utime(indexed.path, (2, 2))
        self.content(indexed)
        monkeypatch.delattr(hashlib, "file_digest")
        assert self.content(indexed) == image_bytes(1)

    @pytest.mark.parametrize("same_size", [True, False])
    def test_other_content_is_rejected(self, indexed: ImageRecord, same_size: bool) -> None:
        other = other_of_size(indexed.size) if same_size else image_bytes(2, size=(640, 480))
        Path(indexed.path).write_bytes(other)
        os.utime(indexed.path, (3, 3))
        with pytest.raises(ChangedError, match="changed since it was indexed"):
            images.open_original(indexed)
        with pytest.raises(ChangedError):
            images.thumbnail_of(indexed)

    def test_a_file_replaced_during_the_thumbnail_is_rejected(
        self, indexed: ImageRecord, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make = images.thumbnails._small

        def swap(source: BinaryIO, *options: int) -> Image.Image:
            Path(source.name).write_bytes(image_bytes(2, size=(640, 480)))
            return make(source, *options)

        monkeypatch.setattr(images.thumbnails, "_small", swap)
        with pytest.raises(ChangedError):
            images.thumbnail_of(indexed)


class TestServing:
    @pytest.fixture
    def served(self, tmp_path: Path) -> Iterator[Served]:
        with serving(filled(tmp_path), ColorEncoder()) as served:
            yield served

    def statuses(self, served: Served, record: str) -> set[int]:
        found = [
            served.client.get(f"{IMAGES}/records/{record}/image"),
            served.client.get(f"{IMAGES}/records/{record}/thumbnail"),
            served.client.get(f"/get-image/{record}"),
            served.client.post(
                f"{IMAGES}/search",
                data={"record": record, "region": "0,0,0.5,0.5", "exclude_self": "true"},
            ),
        ]
        for answer in found:
            if answer.status_code != 200:
                assert answer.json()["type"] == "urn:imgsearch:problem:picture-gone"
                assert "since it was indexed" in answer.json()["detail"]
        return {answer.status_code for answer in found}

    def test_another_image_at_the_same_place_is_never_served(
        self, served: Served, tmp_path: Path
    ) -> None:
        place = tmp_path / "shop" / "3.png"
        record = id_of(place)
        assert self.statuses(served, record) == {200}
        shutil.copy(place, tmp_path / "kept.png")
        place.write_bytes(image_bytes(99, size=(640, 480)))
        assert self.statuses(served, record) == {404}
        # The vector of the indexed image is stored, so no file is needed.
        assert served.client.post(f"{IMAGES}/search", data={"record": record}).status_code == 200
        shutil.copy(tmp_path / "kept.png", place)
        assert self.statuses(served, record) == {200}
