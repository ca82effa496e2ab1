"""Exact copies and near-duplicates: what is found, what is not, and which image is kept."""

import io
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from pyarrow import parquet

from imgsearch.duplicates import DuplicateGroup, Member, find, verify
from imgsearch.duplicates.gallery import GroupGallery
from imgsearch.errors import UsageError
from imgsearch.events import Event, Outcome
from imgsearch.index import ImageIndex
from imgsearch.stores import VectorStore
from imgsearch.types import ImageRecord
from tests.conftest import Cli
from tests.fakes import ColorEncoder
from tests.test_weaviate_store import unique_name

# The colors of 4 x 4 parts, which the encoder sees, are those of all images here alike.
SCORE = 0.8


def photo(seed: int, size: tuple[int, int] = (256, 192)) -> Image.Image:
    """An image with soft shapes and details of its own, on a background that all share."""
    draw = np.random.default_rng(seed)
    shape = np.array(Image.linear_gradient("L").resize(size), np.float32)
    coarse = draw.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    detail = np.array(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), np.float32)
    mixed = shape[:, :, None] * np.array([0.7, 0.6, 0.3]) + 0.3 * detail
    return Image.fromarray(mixed.clip(0, 255).astype(np.uint8))


def save(image: Image.Image, path: Path, quality: int = 95, age: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=quality)
    os.utime(path, (1_700_000_000 - age, 1_700_000_000 - age))
    return path


@pytest.fixture
def index(store: VectorStore) -> Iterator[ImageIndex]:
    with ImageIndex(unique_name(), store=store, encoder_opener=ColorEncoder().open) as opened:
        yield opened


def found(index: ImageIndex, *sources: Path, **options: object) -> dict[str, dict[str, str]]:
    """The kinds of the redundant images by name, by the name of the image to keep."""
    groups = index.duplicates(*sources, **{"min_score": SCORE, **options})  # type: ignore[arg-type]
    return {name(group): kinds(group) for group in groups}


def name(group: DuplicateGroup) -> str:
    return os.path.basename(group.keep.path)


def kinds(group: DuplicateGroup) -> dict[str, str]:
    return {os.path.basename(each.record.path): each.kind for each in group.members}


@pytest.mark.parametrize("exact", [400, 0])
def test_near_duplicates_are_found_and_similar_images_are_not(
    index: ImageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exact: int
) -> None:
    monkeypatch.setattr(find, "EXACT_CONTENTS", exact)
    original = photo(1)
    save(original, tmp_path / "original.png")
    save(original, tmp_path / "poor.jpg", 50)
    save(original.resize((128, 96)), tmp_path / "half.jpg")
    save(original.crop((10, 5, 250, 185)), tmp_path / "cropped.jpg")
    save(ImageEnhance.Color(original).enhance(0), tmp_path / "gray.jpg")
    (tmp_path / "copy.png").write_bytes((tmp_path / "original.png").read_bytes())
    for seed in range(2, 8):
        save(photo(seed), tmp_path / f"other-{seed}.jpg")
    index.add(tmp_path)
    assert found(index, keep="first-path") == {
        "copy.png": {
            "original.png": "exact",
            "cropped.jpg": "cropped",
            "gray.jpg": "recolored",
            "half.jpg": "resized",
            "poor.jpg": "re-encoded",
        }
    }
    # The others are candidates, too: it is the verification that tells them apart.
    others = index.search(str(tmp_path / "other-2.jpg"), k=8, min_score=SCORE)
    assert len(others) == 8


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ("largest", "b-large.png"),
        ("largest-file", "b-large.png"),
        ("oldest", "c-old.jpg"),
        ("newest", "a-new.jpg"),
        ("first-path", "a-new.jpg"),
    ],
)
def test_the_rule_chooses_the_image_to_keep(tmp_path: Path, rule: str, kept: str) -> None:
    image = photo(1)
    save(image, tmp_path / "a-new.jpg", 90)
    save(image.resize((512, 384)), tmp_path / "b-large.png", age=50)
    save(image, tmp_path / "c-old.jpg", 60, age=100)
    with ImageIndex(store=tmp_path / "db", encoder_opener=ColorEncoder().open) as index:
        index.add(tmp_path)
        assert list(found(index, keep=rule)) == [kept]


def test_of_equal_images_the_oldest_is_kept(index: ImageIndex, tmp_path: Path) -> None:
    save(photo(1), tmp_path / "a.jpg", age=1)
    save(photo(1), tmp_path / "b.jpg", age=2)
    index.add(tmp_path)
    assert found(index) == {"b.jpg": {"a.jpg": "exact"}}


def test_groups_do_not_chain_images_that_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B resembles A and C, which are not alike: only one of them is with B."""
    for number, letter in enumerate("abc"):
        save(photo(1), tmp_path / f"{letter}.png").write_bytes(_png_of(number))
    with ImageIndex(store=tmp_path / "db", encoder_opener=ColorEncoder().open) as index:
        index.add(tmp_path)
        original = verify.compare

        def compare(first: np.ndarray, second: np.ndarray, **options: object) -> object:
            verdicts = original(first, second, **options)  # type: ignore[arg-type]
            # Gray values of a, b and c at a place that only they have.
            verdicts.same[:] = np.abs(first[:, 0].astype(int) - second[:, 0]) <= 12
            return verdicts

        monkeypatch.setattr(verify, "compare", compare)
        assert [set(each) for each in found(index, keep="first-path").values()] == [{"b.png"}]


def _png_of(number: int) -> bytes:
    image = photo(1)
    image.paste((10 * number,) * 3, (0, 0, 32, 32))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_a_group_may_have_more_images_than_neighbors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find, "NEIGHBORS", 4)
    for quality in range(60, 90, 2):
        save(photo(1), tmp_path / f"{quality}.jpg", quality)
    with ImageIndex(store=tmp_path / "db", encoder_opener=ColorEncoder().open) as index:
        index.add(tmp_path)
        (group,) = index.duplicates(min_score=SCORE)
    assert len(group.members) == 14


def test_a_missing_file_is_reported_and_still_an_exact_copy(
    index: ImageIndex, tmp_path: Path
) -> None:
    save(photo(1), tmp_path / "a.jpg")
    save(photo(1), tmp_path / "b.jpg", age=1)
    save(photo(1), tmp_path / "poor.jpg", 60)
    save(photo(2), tmp_path / "gone.jpg")
    index.add(tmp_path)
    (tmp_path / "a.jpg").unlink()
    (tmp_path / "gone.jpg").unlink()
    events: list[Event] = []
    assert found(index, listener=events.append) == {
        "b.jpg": {"a.jpg": "exact", "poor.jpg": "re-encoded"}
    }
    rejected = [each for each in events if isinstance(each, Outcome) and each.status == "rejected"]
    assert [os.path.basename(each.uri) for each in rejected] == ["gone.jpg"]
    assert "No such file" in rejected[0].reason


def test_exact_copies_need_no_files_and_no_model(index: ImageIndex, tmp_path: Path) -> None:
    paths = [save(photo(1), tmp_path / f"{each}.jpg") for each in "abc"]
    save(photo(1), tmp_path / "poor.jpg", 60)
    index.add(tmp_path)
    for path in paths:
        path.unlink()
    assert found(index, exact_only=True, min_score=None) == {
        "a.jpg": {"b.jpg": "exact", "c.jpg": "exact"}
    }


def test_conditions_limit_the_images(index: ImageIndex, tmp_path: Path) -> None:
    for each in "abc":
        save(photo(1), tmp_path / "shop" / f"{each}.jpg")
    (tmp_path / "kinds.csv").write_text("filename,kind\na.jpg,hat\nb.jpg,hat\nc.jpg,shoe\n")
    index.add(tmp_path / "shop", metadata=str(tmp_path / "kinds.csv"))
    assert found(index, where=["kind = hat"]) == {"a.jpg": {"b.jpg": "exact"}}


def test_new_images_are_compared_with_the_collection(index: ImageIndex, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    save(photo(1), old / "1.jpg")
    save(photo(2), old / "2.jpg")
    index.add(old)
    save(photo(1), new / "exact.jpg")
    save(photo(2).resize((512, 384)), new / "large.jpg")
    save(photo(3), new / "other.jpg")
    (new / "broken.jpg").write_bytes(b"\xff\xd8\xff no image")
    events: list[Event] = []
    groups = list(index.duplicates(new, min_score=SCORE, listener=events.append))
    assert sorted((name(each), kinds(each)) for each in groups) == [
        ("1.jpg", {"exact.jpg": "exact"}),
        ("2.jpg", {"large.jpg": "resized"}),
    ]
    rejected = [each for each in events if isinstance(each, Outcome) and each.status == "rejected"]
    assert [os.path.basename(each.uri) for each in rejected] == ["broken.jpg"]
    # An image is no duplicate of itself.
    assert found(index, old) == {}


def test_a_stop_ends_the_search(index: ImageIndex, tmp_path: Path) -> None:
    for each in "ab":
        save(photo(1), tmp_path / f"{each}.jpg")
    index.add(tmp_path)
    stop = threading.Event()
    stop.set()
    assert found(index, stop=stop) == {}


def test_an_unknown_rule_is_refused(index: ImageIndex, tmp_path: Path) -> None:
    index.add(save(photo(1), tmp_path / "a.jpg"))
    with pytest.raises(UsageError, match="largest, largest-file, oldest"):
        index.duplicates(keep="best")


def test_the_command_prints_groups_json_and_paths(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = tmp_path / "db"
    save(photo(1), tmp_path / "a.jpg", age=9)
    save(photo(1), tmp_path / "b.jpg")
    save(photo(2), tmp_path / "c.jpg")
    with ImageIndex(store=store, encoder_opener=ColorEncoder().open) as index:
        index.add(tmp_path)
    table = cli("duplicates", "--store", store, "--min-score", SCORE)
    assert "a.jpg  256 x 192" in table.out
    assert "1 group, 1 redundant image (1 exact)" in table.out
    paths = cli("duplicates", "--store", store, "--exact-only", "--paths", "-0")
    assert paths.out == f"{tmp_path / 'b.jpg'}\0"
    (line,) = cli("duplicates", "--store", store, "--exact-only", "--json").out.splitlines()
    group = json.loads(line)
    assert group["keep"] == str(tmp_path / "a.jpg")
    assert set(group["members"][0]) == {"path", "uri", "sha256", "score", "kind"}
    assert cli("duplicates", "--json", "--paths").code == 2
    assert cli("duplicates", "-0").code == 2


ROW = "group,kind,score,id,uri,path,sha256,width,height,size"


@pytest.fixture
def copies(tmp_path: Path) -> str:
    """The URL of a store with an image, and a copy of it whose name is to be escaped."""
    save(photo(1), tmp_path / "a.jpg", age=9)
    save(photo(1), tmp_path / "b<i>.jpg")
    save(photo(2), tmp_path / "c.jpg")
    with ImageIndex(store=tmp_path / "db", encoder_opener=ColorEncoder().open) as index:
        index.add(tmp_path)
    return str(tmp_path / "db")


def test_groups_are_written_as_tables(cli: Cli, copies: str, tmp_path: Path) -> None:
    options = ("duplicates", "--store", copies, "--exact-only", "--output")
    for suffix in ("csv", "parquet", "jsonl"):
        result = cli(*options, tmp_path / f"out.{suffix}")
        assert result.code == 0, result.err
        assert f"written to {tmp_path / f'out.{suffix}'}" in result.out
    rows = (tmp_path / "out.csv").read_text().splitlines()
    assert rows[0] == ROW
    assert [row.split(",")[:3] for row in rows[1:]] == [["1", "keep", "1.0"], ["1", "exact", "1.0"]]
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [os.path.basename(each["path"]) for each in lines] == ["a.jpg", "b<i>.jpg"]
    assert parquet.read_table(tmp_path / "out.parquet").to_pylist() == lines
    # A file of its own is replaced, any other is not.
    assert cli(*options, tmp_path / "out.csv").code == 0
    (tmp_path / "mine.csv").write_text("name,price\n")
    assert cli(*options, tmp_path / "mine.csv").code == 2
    assert cli(*options, tmp_path / "out.txt").code == 2
    assert not list(tmp_path.glob("*.part"))


def test_groups_are_shown_side_by_side(cli: Cli, copies: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    result = cli("duplicates", "--store", copies, "--exact-only", "--gallery", page)
    assert result.code == 0, result.err
    text = page.read_text()
    assert text.count("data:image/webp") == 2
    assert text.index(">a.jpg<") < text.index(">b&lt;i&gt;.jpg<")
    assert '<li class="kept">' in text
    assert "b<i>" not in text
    assert text.rstrip().endswith("</html>")


def test_a_gallery_of_many_groups_says_what_it_leaves_out(tmp_path: Path) -> None:
    record = ImageRecord("file:///gone.jpg", "0" * 64, 1, 2, 3, 4)
    group = DuplicateGroup(record, (Member(record, 1.0, "exact"),) * 60)
    with GroupGallery(str(tmp_path / "page.html"), max_bytes=20_000) as gallery:
        for _ in range(3):
            gallery.add(group)
        gallery.finish("3 groups")
    text = (tmp_path / "page.html").read_text()
    assert text.count("<section>") == 1
    assert "10 more redundant images not shown" in text
    assert "Only the first 1 of 3 groups are shown" in text


def test_a_gallery_without_groups_says_so(tmp_path: Path) -> None:
    with GroupGallery(str(tmp_path / "page.html")) as gallery:
        gallery.finish("0 groups")
    assert "There are no duplicates." in (tmp_path / "page.html").read_text()
