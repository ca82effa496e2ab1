"""Collections of earlier versions: their decoding in later ingests and queries, their layout."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from imgsearch import ImageIndex
from imgsearch.encoders.base import Encoder
from imgsearch.encoders.factory import last_used_encoder, open_encoder
from imgsearch.encoders.onnx import model_files
from imgsearch.encoders.request import EncoderRequest
from imgsearch.errors import CollectionMismatchError
from imgsearch.images import DECODING, decode
from imgsearch.stores import open_store
from imgsearch.types import Condition, ImageRecord, Stamp
from tests.conftest import SAMPLES
from tests.profiles import in_space, profile

MODEL = "efficientnet-lite0"


@pytest.fixture
def encoder() -> Encoder:
    return open_encoder(EncoderRequest(MODEL, device="cpu"))


@pytest.fixture
def older(encoder: Encoder) -> Stamp:
    """The stamp that the first version wrote."""
    return replace(
        encoder.stamp,
        preprocessing=encoder.stamp.preprocessing.replace(f"decode {DECODING}", "decode 1"),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One image, whose two decodings differ."""
    folder = tmp_path / "images"
    folder.mkdir()
    with Image.open(SAMPLES / "images" / "10103.jpg") as image:
        wide = in_space(image, "linear")
    wide.save(folder / "wide.png", icc_profile=profile("linear"))
    return folder


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "store")


@pytest.fixture
def index(store: str, older: Stamp) -> Iterator[ImageIndex]:
    opened = open_store(store)
    with opened.write_lock("images"):
        opened.create("images", older)
    with ImageIndex("images", store=store) as index:
        yield index


def stored(index: ImageIndex) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    (record,) = index.records()
    return index.collection.vectors_by_id([record.id])[record.id]


def test_an_older_collection_is_extended_and_queried_with_its_own_decoding(
    index: ImageIndex, folder: Path, encoder: Encoder, older: Stamp
) -> None:
    index.add(str(folder))
    assert index.collection.stamp == older
    path = str(folder / "wide.png")
    before = replace(encoder.preprocessing, decoding=1)
    expected = encoder.encode(decode(path, before).pixels[np.newaxis])[0]
    now = encoder.encode(decode(path, encoder.preprocessing).pixels[np.newaxis])[0]
    assert expected @ now < 0.99
    assert stored(index) @ expected > 0.9999
    (hit,) = index.search(path)
    assert hit.score == pytest.approx(1.0, abs=1e-4)


def test_a_new_collection_has_this_versions_decoding(
    store: str, folder: Path, encoder: Encoder
) -> None:
    with ImageIndex("images", store=store, model=MODEL) as index:
        index.add(str(folder))
        assert index.collection.stamp.preprocessing.endswith(f", decode {DECODING}")
        pixels = decode(str(folder / "wide.png"), encoder.preprocessing).pixels
        assert stored(index) @ encoder.encode(pixels[np.newaxis])[0] > 0.9999


def test_all_decodings_share_one_exported_model(encoder: Encoder, older: Stamp) -> None:
    of_older, of_now = model_files.find(older), model_files.find(encoder.stamp)
    assert of_older
    assert of_now
    assert of_older.path == of_now.path
    assert of_older.spec.preprocessing.decoding == 1
    assert of_now.spec.preprocessing.decoding == DECODING


def test_the_model_used_last_is_guessed_with_its_decoding(older: Stamp, encoder: Encoder) -> None:
    for stamp in (older, encoder.stamp, older):
        open_encoder(EncoderRequest(device="cpu"), stamp)
        guess = last_used_encoder()
        assert guess
        assert guess.stamp == stamp


def test_a_decoding_of_a_later_version_is_rejected(encoder: Encoder) -> None:
    later = encoder.stamp.preprocessing.replace(f"decode {DECODING}", "decode 999")
    with pytest.raises(CollectionMismatchError, match="decode 999"):
        open_encoder(EncoderRequest(device="cpu"), replace(encoder.stamp, preprocessing=later))


def test_the_layout_of_version_0_1_is_read_and_written(tmp_path: Path) -> None:
    """The dataset is spelled out, so that no change of the schema goes unnoticed."""
    stamp = Stamp("model", "w" * 64, "preprocessing", 4)
    texts = ("id", "uri", "sha256")
    names = (*texts, "size", "mtime_ns", "width", "height")
    columns = [
        pa.field(name, pa.string() if name in texts else pa.int64(), nullable=False)
        for name in names
    ]
    columns += [pa.field("words", pa.string()), pa.field("origins", pa.string())]
    columns.append(pa.field("vector", pa.list_(pa.float32(), 4), nullable=False))
    columns.append(
        pa.field("meta_prix_5f4d7f5b", pa.int64(), metadata={b"imgsearch:field": b"Prix"})
    )
    schema = pa.schema(columns, metadata={b"imgsearch:stamp": stamp.to_json().encode()})
    written = ImageRecord("file:///a.png", "a" * 64, 1, 2**60, 3, 4, {"Prix": 5})
    row = {
        **{name: getattr(written, name) for name in names},
        "words": "shoe",
        "vector": [1.0, 0.0, 0.0, 0.0],
        "meta_prix_5f4d7f5b": 5,
    }
    lance.write_dataset(pa.Table.from_pylist([row], schema), str(tmp_path / "images.lance"))
    collection = open_store(str(tmp_path)).open("images")
    assert collection.stamp == stamp
    assert collection.lookup([written.id]) == {written.id: written}
    query = np.array([1, 0, 0, 0], np.float32)
    where = [Condition("Prix", "<", 6)]
    assert [each.record for each in collection.search(query, 1, where)] == [written]
    assert [each.record for each in collection.search_text(["shoe"], 1)] == [written]
    collection.update_metadata({written.id: {"Prix": 7}})
    collection.upsert([replace(written, uri="file:///b.png")], query[None])
    assert sorted(each.metadata["Prix"] for each in collection.page(5)) == [5, 7]
