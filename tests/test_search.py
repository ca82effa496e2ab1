"""Search for images, text, or both."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imgsearch.errors import ImageError
from imgsearch.ingest import IngestOptions, ingest
from imgsearch.search import Searcher, SearchRequest
from imgsearch.stores import open_store
from imgsearch.types import Condition
from tests.conftest import Painter
from tests.fakes import ColorEncoder


@pytest.fixture
def folder(paint: Painter) -> Path:
    """a.png with two copies, and five others, with numbers in a styles.csv."""
    first = paint("shop/a.png", 0)
    for name in ("a-copy.png", "z-copy.png"):
        shutil.copy(first, first.with_name(name))
    for number in range(1, 6):
        paint(f"shop/{number}.png", number)
    rows = "".join(f"{number},{number},word{number}\n" for number in range(1, 6))
    more = "a,0,first and second\na-copy,0,first\n"
    (first.parent / "styles.csv").write_text("id,number,description\n" + rows + more)
    return first.parent


@pytest.fixture
def searcher(folder: Path, tmp_path: Path) -> Searcher:
    encoder = ColorEncoder()
    store = open_store(str(tmp_path / "store"))
    options = IngestOptions(batch_size=4, workers=2)
    ingest([str(folder)], store, "images", options=options, encoder_opener=encoder.open)
    return Searcher(store.open("images"), encoder)


def test_an_image_finds_itself_first_with_its_copies(searcher: Searcher, folder: Path) -> None:
    hits = searcher.search(SearchRequest([str(folder / "a.png")], k=3))
    assert [hit.rank for hit in hits] == [1, 2, 3]
    assert hits[0].score == pytest.approx(1.0, abs=1e-6)
    assert Path(hits[0].record.path).name == "a-copy.png"  # the first of equal ones by name
    assert [hit.copies for hit in hits] == [3, 1, 1]
    assert len({hit.record.sha256 for hit in hits}) == 3


def test_copies_are_shown_on_request(searcher: Searcher, folder: Path) -> None:
    hits = searcher.search(SearchRequest([str(folder / "a.png")], k=3, collapse=False))
    assert [Path(hit.record.path).name for hit in hits] == ["a-copy.png", "a.png", "z-copy.png"]
    assert [hit.copies for hit in hits] == [1, 1, 1]


def test_the_query_is_excluded_with_its_copies(searcher: Searcher, folder: Path) -> None:
    path = str(folder / "a.png")
    for collapse in (True, False):
        request = SearchRequest([path], k=5, collapse=collapse, exclude_self=True)
        hits = searcher.search(request)
        assert sorted(Path(hit.record.path).name for hit in hits) == [f"{n}.png" for n in "12345"]


@pytest.mark.parametrize("k", [1, 2, 6, 50])
def test_k_counts_distinct_images(searcher: Searcher, folder: Path, k: int) -> None:
    hits = searcher.search(SearchRequest([str(folder / "1.png")], k=k))
    assert len(hits) == min(k, 6)


def test_hits_below_the_minimum_score_are_excluded(searcher: Searcher, folder: Path) -> None:
    everything = searcher.search(SearchRequest([str(folder / "1.png")], k=9))
    bound = everything[2].score
    some = searcher.search(SearchRequest([str(folder / "1.png")], k=9, min_score=bound))
    assert some == everything[:3]


def test_conditions_apply_to_hits_and_copies(searcher: Searcher, folder: Path) -> None:
    request = SearchRequest([str(folder / "3.png")], where=[Condition("number", "=", 0)])
    (hit,) = searcher.search(request)
    assert hit.copies == 2  # z-copy.png has no number


def numbered(searcher: Searcher, folder: Path, text: str, **options: Any) -> list[str]:
    request = SearchRequest([str(folder / "1.png")], text=text, **options)
    hits = searcher.search(request)
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
    return [Path(hit.record.path).stem for hit in hits]


def test_text_and_image_are_fused_by_rank(searcher: Searcher, folder: Path) -> None:
    plain = numbered(searcher, folder, "")
    least = plain[-1]
    assert numbered(searcher, folder, "nothing of this") == plain
    fused = numbered(searcher, folder, f"word{least}" if least in "12345" else "first")
    # 1/61 + 1/66 beats 1/61, the score of the image itself; the order of the others is unchanged.
    assert fused == [least, *plain[:-1]]


def test_the_first_fused_hits_do_not_depend_on_k(searcher: Searcher, folder: Path) -> None:
    everything = numbered(searcher, folder, "word3 word4", k=50)
    for k in range(1, 7):
        assert numbered(searcher, folder, "word3 word4", k=k) == everything[:k]


def test_the_minimum_score_of_a_fused_search_is_a_cosine(searcher: Searcher, folder: Path) -> None:
    assert numbered(searcher, folder, "word3", min_score=0.99) == ["1"]


def test_copies_found_by_text_are_one_hit(searcher: Searcher, folder: Path) -> None:
    image = str(folder / "a.png")
    best = searcher.search(SearchRequest([image], text="second"))[0]
    assert (Path(best.record.path).name, best.copies) == ("a.png", 3)
    assert best.score == pytest.approx(1.0, abs=1e-6)


def test_bytes_give_the_same_hits_as_a_file(searcher: Searcher, folder: Path) -> None:
    path = folder / "2.png"
    by_path = searcher.search(SearchRequest([str(path)], exclude_self=True))
    by_bytes = searcher.search(SearchRequest([path.read_bytes()], exclude_self=True))
    assert by_path == by_bytes


@pytest.mark.parametrize(
    "damage", [lambda path: path.write_bytes(b""), lambda path: path.write_text("not an image")]
)
def test_an_unusable_image_is_an_error(
    searcher: Searcher, folder: Path, damage: Callable[[Path], object]
) -> None:
    damage(folder / "1.png")
    with pytest.raises(ImageError):
        searcher.search(SearchRequest([str(folder / "1.png")]))
