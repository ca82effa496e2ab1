"""The Python API."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgsearch import ImageIndex, Region
from imgsearch.encoders.base import Vectors, normalized
from imgsearch.encoders.onnx.encoder import OnnxEncoder
from imgsearch.errors import (
    CollectionNotFoundError,
    ImageError,
    MetadataError,
    RecordNotFoundError,
    Remedy,
    StaleCollectionError,
    StoreError,
    UsageError,
)
from imgsearch.images import Pixels
from imgsearch.stores import open_store
from imgsearch.types import Condition, Hit
from imgsearch.uris import path_to_uri, record_id
from tests.conftest import SAMPLES, Painter
from tests.fakes import ColorEncoder
from tests.test_weaviate_store import unique_name

OTHER = "f" * 64


@pytest.fixture(params=["embedded", pytest.param("server", marks=pytest.mark.weaviate)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    server = request.param == "server"
    return str(request.getfixturevalue("one_node") if server else tmp_path / "store")


@pytest.fixture
def name() -> str:
    return unique_name()


def open_index(url: str, name: str, encoder: ColorEncoder | None = None) -> ImageIndex:
    encoder = encoder or ColorEncoder()
    return ImageIndex(name, store=url, timeout=20, encoder_opener=encoder.open)


@pytest.fixture
def empty(url: str, name: str) -> Iterator[ImageIndex]:
    with open_index(url, name) as index:
        yield index
        if index.exists():
            index.drop()


@pytest.fixture
def folder(paint: Painter) -> Path:
    """A folder of six images, one of them twice, and a table."""
    folder = [paint(f"shop/{number}.png", number) for number in range(6)][-1].parent
    shutil.copy(folder / "0.png", folder / "0-copy.png")
    rows = "".join(f"{number},kind {number % 2},{2010 + number}\n" for number in range(6))
    (folder / "styles.csv").write_text("id,kind,year\n" + rows)
    return folder


@pytest.fixture
def index(empty: ImageIndex, folder: Path) -> ImageIndex:
    report = empty.add(folder, workers=2)
    assert (report.indexed, report.reused) == (6, 1)
    return empty


def id_of(path: Path) -> str:
    return record_id(path_to_uri(str(path)))


def names(hits: list[Hit]) -> list[str]:
    return [Path(hit.record.path).name for hit in hits]


def test_a_missing_collection_is_an_error_with_a_remedy(empty: ImageIndex) -> None:
    assert not empty.exists()
    for ask in (empty.count, empty.info, lambda: empty.search(b"anything")):
        with pytest.raises(
            CollectionNotFoundError, check=lambda error: error.remedies == (Remedy.INGEST,)
        ):
            ask()


def test_an_image_may_be_a_path_bytes_or_a_pillow_image(index: ImageIndex, folder: Path) -> None:
    path = folder / "3.png"
    with Image.open(path) as image:
        answers = [index.search(each) for each in (path, str(path), path.read_bytes(), image)]
    assert names(answers[0])[0] == "3.png"
    assert answers[0][0].score == pytest.approx(1.0, abs=1e-5)
    assert all(answer == answers[0] for answer in answers)


def test_a_pillow_image_is_oriented_by_its_exif(index: ImageIndex, folder: Path) -> None:
    with Image.open(folder / "3.png") as image:
        turned = image.transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6
    assert names(index.search(turned))[0] == "3.png"


def test_options_match_those_of_the_command(index: ImageIndex, folder: Path) -> None:
    path = folder / "0.png"
    assert names(index.search(path, k=2, collapse=False)) == ["0-copy.png", "0.png"]
    assert index.search(path, k=1)[0].copies == 2
    assert "0.png" not in names(index.search(path, exclude_self=True, collapse=False))
    conditions: list[str | Condition] = ["kind = kind 1", Condition("year", ">", 2011)]
    assert sorted(names(index.search(path, where=conditions))) == ["3.png", "5.png"]
    assert len(index.search(path, min_score=0.999)) == 1


def test_several_images_are_searched_for_by_their_mean(index: ImageIndex, folder: Path) -> None:
    paths = [folder / "1.png", folder / "4.png"]
    hits = index.search(paths)
    assert set(names(hits[:2])) == {"1.png", "4.png"}
    assert hits[0].score == pytest.approx(hits[1].score, abs=1e-4)
    assert set(names(index.search(paths, exclude_self=True))).isdisjoint({"1.png", "4.png"})
    assert index.search_record([id_of(path) for path in paths]) == pytest.approx(hits)


def test_a_region_is_searched_for_as_an_image_of_its_own(
    index: ImageIndex, folder: Path, tmp_path: Path
) -> None:
    with Image.open(folder / "1.png") as left, Image.open(folder / "2.png") as right:
        both = Image.new("RGB", (left.width * 2, left.height))
        both.paste(left, (0, 0))
        both.paste(right, (left.width, 0))
    for region, expected in (
        (Region(0, 0, 0.5, 1, "fractions"), "1.png"),
        (Region(64, 0, 128, 48), "2.png"),
        (Region(64, -5, 999, 999), "2.png"),
    ):
        best = index.search(both, region=region)[0]
        assert names([best]) == [expected]
        assert best.score == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(
    "region",
    [Region(5, 5, 5, 9), Region(9, 9, 1, 1), Region(70, 0, 90, 9), Region(0, 0, np.nan, 1)],
)
def test_an_empty_region_is_an_error(index: ImageIndex, folder: Path, region: Region) -> None:
    with pytest.raises(UsageError, match="region"):
        index.search(folder / "1.png", region=region)


def test_records_and_vectors_need_no_model(
    index: ImageIndex, folder: Path, url: str, name: str
) -> None:
    def no_encoder(*_: object) -> ColorEncoder:
        raise AssertionError("a model was opened")

    path = folder / "2.png"
    expected = index.search(path, exclude_self=True)
    vector = index.collection.vectors_by_id([id_of(path)])[id_of(path)]
    with ImageIndex(name, store=url, encoder_opener=no_encoder) as other:
        assert names(other.search_record(id_of(path), exclude_self=True)) == names(expected)
        assert names(other.search_vector(vector, k=1)) == ["2.png"]
        with pytest.raises(RecordNotFoundError, match="0000"):
            other.search_record(f"{0:032x}")


def test_text_is_searched_for_alone_or_with_an_image(index: ImageIndex, folder: Path) -> None:
    one, three = id_of(folder / "1.png"), id_of(folder / "3.png")
    index.set_metadata(three, {"description": "A red shoe"})
    (hit,) = index.search(text="red shoes")
    assert hit.record == index.get(three)
    assert hit.score == hit.text_score
    for hits in (
        index.search(folder / "1.png", text="shoe", exclude_self=True),
        index.search_record(one, text="shoe", exclude_self=True),
    ):
        assert names(hits)[0] == "3.png"
        assert len(hits) == 5
        assert hits[0].text_score == index.search(text="shoe")[0].score
        assert {each.text_score for each in hits[1:]} == {None}
    index.set_metadata(three, {"description": None})
    assert index.search(text="red shoes") == []
    assert len(index.search(text="kind", where=["year > 2013"])) == 2


def test_invalid_text_searches_are_errors(index: ImageIndex) -> None:
    for options in ({}, {"text": " "}, {"text": "?"}, {"text": "a", "min_score": 0.5}):
        with pytest.raises(UsageError):
            index.search(**options)
    with pytest.raises(UsageError, match="need an image"):
        index.search(text="shoe", exclude_self=True)
    with pytest.raises(MetadataError, match="description"):
        index.set_metadata(next(index.records()).id, {"description": 5})


@pytest.mark.parametrize("image", [[], Path("/no/such.png"), b"", b"not an image"])
def test_an_unusable_image_is_an_error(index: ImageIndex, image: object) -> None:
    with pytest.raises((ImageError, UsageError)):
        index.search(image)  # type: ignore[arg-type]


def test_a_file_that_is_not_an_image_is_named(index: ImageIndex, folder: Path) -> None:
    with pytest.raises(ImageError, match=r"styles\.csv: not an image"):
        index.search(folder / "styles.csv")


def test_invalid_arguments_are_errors(index: ImageIndex, folder: Path) -> None:
    path = folder / "1.png"
    with pytest.raises(UsageError, match="k is 0"):
        index.search(path, k=0)
    with pytest.raises(UsageError, match="color"):
        index.search(path, where=["color = red"])
    with pytest.raises(UsageError, match="shape"):
        index.search_vector(np.ones(3, np.float32))
    with pytest.raises(UsageError, match="name a collection"):
        ImageIndex("a/b")


def test_records_are_read_changed_and_removed(index: ImageIndex, folder: Path) -> None:
    one = id_of(folder / "1.png")
    assert index.get(one).metadata == {"kind": "kind 1", "year": 2011}
    changed = index.set_metadata(one, {"year": None, "price": 2.5, "kind": "boot"})
    assert changed.metadata == {"kind": "boot", "price": 2.5}
    assert index.get(one) == changed
    assert index.set_metadata(one, {"price": 3}).metadata["price"] == 3.0
    assert index.count(["kind = boot"]) == 1
    assert dict(index.fields) == {"kind": "str", "year": "int", "price": "float"}
    with pytest.raises(MetadataError, match="year"):
        index.set_metadata(one, {"year": "soon"})
    assert index.remove([one]) == 1
    assert one not in index.get_many([one])
    for ask in (index.get, lambda each: index.set_metadata(each, {})):
        with pytest.raises(RecordNotFoundError, match=one):
            ask(one)
    assert len(list(index.records())) == index.count() == index.info().images == 6
    assert index.remove(index.page(1)[0].id) == 1
    assert index.remove_paths(folder) == 5


def test_changes_by_other_writers_are_visible(
    index: ImageIndex, folder: Path, paint: Painter, url: str, name: str
) -> None:
    with open_index(url, name) as other:
        other.add(paint("more/9.png", 9), metadata=None)
        other.set_metadata(id_of(folder / "1.png"), {"new": True})
    assert names(index.search(folder.parent / "more" / "9.png", k=1)) == ["9.png"]
    assert index.count(["new = true"]) == 1


def test_a_filter_may_use_a_field_added_after_the_first_search(
    index: ImageIndex, folder: Path, paint: Painter
) -> None:
    index.search(folder / "1.png", where=["year >= 0"])
    more = paint("more/9.png", 9)
    (more.parent / "styles.csv").write_text("id,material\n9,wool\n")
    index.add(more.parent)
    assert names(index.search(folder / "1.png", where=["material = wool"])) == ["9.png"]
    assert [each.path for each in index.page(5, where=["material = wool"])] == [str(more)]
    assert index.count(["material = wool"]) == 1
    index.set_metadata(id_of(more), {"weight": 3})
    with pytest.raises(MetadataError, match="weight"):
        index.set_metadata(id_of(more), {"weight": "much"})


def test_a_replaced_collection_is_reopened(
    empty: ImageIndex, folder: Path, url: str, name: str
) -> None:
    old, new = ColorEncoder(), ColorEncoder(OTHER)
    # Each index requests the model of its collection's stamp.
    made = {each.stamp: each for each in (old, new)}
    with (
        ImageIndex(
            name,
            store=url,
            encoder_opener=lambda _, stamp, __: made[stamp],
        ) as reader,
        open_index(url, name, new) as writer,
    ):
        empty.add(folder)
        before = reader.search(folder / "2.png")
        stamp = reader.collection.stamp
        writer.add(folder, replace=True)
        after = reader.search(folder / "2.png")
        assert names(after) == names(before)
        assert reader.collection.stamp == new.stamp
        assert new.encoded > 6
        vector = normalized(np.ones((1, new.stamp.dimension), np.float32))[0]
        with pytest.raises(StaleCollectionError, match="encode"):
            reader.search_vector(vector, stamp=stamp)


def test_a_dropped_collection_is_an_error_until_it_exists_again(
    index: ImageIndex, folder: Path, url: str, name: str
) -> None:
    with open_index(url, name) as other:
        assert other.drop() == 7
        with pytest.raises(CollectionNotFoundError):
            index.search(folder / "2.png")
        other.add(folder / "2.png")
    assert names(index.search(folder / "2.png")) == ["2.png"]


def test_many_threads_share_an_index(index: ImageIndex, folder: Path) -> None:
    paths = [folder / f"{number}.png" for number in range(1, 6)] * 8
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda path: index.search(path, k=1), paths))
    assert [names(answer) for answer in answers] == [[path.name] for path in paths]


def test_settings_come_from_environment_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMGSEARCH_COLLECTION", "variable")
    monkeypatch.setenv("IMGSEARCH_STORE", str(tmp_path / "variable"))
    with ImageIndex() as index:
        assert (index.name, index.store.url) == ("variable", str(tmp_path / "variable"))
    with ImageIndex("given", store=tmp_path / "given") as index:
        assert (index.name, index.store.url) == ("given", str(tmp_path / "given"))


def test_a_given_store_is_closed_by_the_caller(tmp_path: Path) -> None:
    with open_store(str(tmp_path / "store")) as store:
        index = ImageIndex("one", store=store)
        assert index.store is store
        index.close()
        index.close()
        assert store.names() == []
    with pytest.raises(StoreError, match="closed"):
        index.count()


class TestWarmUp:
    ONE, OTHER = (str(SAMPLES / "images" / name) for name in ("10101.jpg", "10501.jpg"))

    @pytest.fixture
    def warm(self, sample_store: str) -> Iterator[ImageIndex]:
        with ImageIndex(store=sample_store) as index:
            yield index

    @pytest.fixture
    def hits(self, sample_store: str) -> dict[str, list[Hit]]:
        with ImageIndex(store=sample_store) as index:
            return {image: index.search(image, k=3) for image in (self.ONE, self.OTHER)}

    def test_the_image_is_encoded_once_and_others_work(
        self, warm: ImageIndex, hits: dict[str, list[Hit]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        encoded = []
        encode = OnnxEncoder.encode

        def counted(self: OnnxEncoder, pixels: Pixels) -> Vectors:
            encoded.append(1)
            return encode(self, pixels)

        monkeypatch.setattr(OnnxEncoder, "encode", counted)
        warm.warm_up(self.ONE)
        assert warm.search(self.ONE, k=3) == hits[self.ONE]
        assert len(encoded) == 1
        assert warm.search(self.OTHER, k=3) == hits[self.OTHER]
        assert len(encoded) == 2

    def test_a_wrong_guess_of_the_model_is_corrected(
        self, warm: ImageIndex, hits: dict[str, list[Hit]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("imgsearch.query_encoder.last_used_encoder", ColorEncoder)
        warm.warm_up(self.ONE)
        assert warm.search(self.ONE, k=3) == hits[self.ONE]

    def test_errors_are_raised_by_the_search(self, warm: ImageIndex, tmp_path: Path) -> None:
        (tmp_path / "bad.jpg").write_text("not an image")
        warm.warm_up(tmp_path / "bad.jpg")
        with pytest.raises(ImageError, match="not an image"):
            warm.search(tmp_path / "bad.jpg")

    def test_a_changed_file_is_encoded_again(
        self, warm: ImageIndex, hits: dict[str, list[Hit]], tmp_path: Path
    ) -> None:
        image = tmp_path / "image.jpg"
        shutil.copy(self.ONE, image)
        warm.warm_up(image)
        shutil.copy(self.OTHER, image)
        assert warm.search(image, k=3) == hits[self.OTHER]
        shutil.copy(self.ONE, image)
        assert warm.search(image, k=3) == hits[self.ONE]

    def test_the_early_vector_is_dropped_after_the_first_search(
        self, warm: ImageIndex, hits: dict[str, list[Hit]]
    ) -> None:
        warm.warm_up(self.ONE)
        assert warm.search(self.OTHER, k=3) == hits[self.OTHER]
        assert warm._encoder._early is None
