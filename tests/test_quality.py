"""A real model finds similar images."""

from pathlib import Path

import pytest

from imgsearch.encoders.factory import open_encoder
from imgsearch.encoders.request import EncoderRequest
from imgsearch.search import Searcher, SearchRequest
from imgsearch.stores import open_store
from tests.conftest import SAMPLES


@pytest.fixture
def searcher(sample_store: str) -> Searcher:
    collection = open_store(sample_store).open("images")
    return Searcher(collection, open_encoder(EncoderRequest(), collection.stamp))


def test_every_sample_finds_its_own_kind_first(searcher: Searcher) -> None:
    same = 0
    for image in sorted((SAMPLES / "images").iterdir()):
        itself = searcher.search(SearchRequest([str(image)], k=1))[0]
        assert itself.record.path == str(image)
        assert itself.score == pytest.approx(1.0, abs=1e-5)
        kind = itself.record.metadata["articleType"]
        others = searcher.search(SearchRequest([str(image)], k=5, exclude_self=True))
        assert others[0].record.metadata["articleType"] == kind, image.name
        same += sum(hit.record.metadata.get("articleType") == kind for hit in others)
    assert same / (60 * 5) >= 0.95


@pytest.mark.parametrize("name", ["exif-orientation-6.jpg", "cmyk.jpg", "still.avif", "lab.tif"])
def test_an_image_is_found_in_any_format(searcher: Searcher, name: str) -> None:
    hits = searcher.search(SearchRequest([str(SAMPLES / "awkward" / name)], k=8))
    names = [Path(hit.record.path).parent.name for hit in hits]
    assert names == ["awkward"] * 8
