"""A map: places, thumbnails within a budget, and one safe file."""

import base64
import gzip
import hashlib
import json
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imgsearch import ImageIndex
from imgsearch.errors import MissingLibraryError, NothingFoundError, SourceError, UsageError
from imgsearch.map.records import Records
from tests.conftest import Cli, Painter
from tests.fakes import ColorEncoder
from tests.test_weaviate_store import unique_name

pytest.importorskip("openTSNE")

ATTACK = "</script><script>alert(1)</script>\"' onerror=alert(2) x='"


class Document(HTMLParser):
    """The blocks of a map, and its other tags."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.html = file.read_text(encoding="utf-8")
        self.blocks: dict[str, str] = {}
        self.scripts: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._text = ""
        self.feed(self.html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._text = ""

    def handle_data(self, data: str) -> None:
        self._text += data

    def handle_endtag(self, tag: str) -> None:
        if tag != "script":
            return
        name = self.tags[-1][1].get("id")
        if name:
            self.blocks[name] = self._text
        else:
            self.scripts.append(self._text)

    def raw(self, name: str) -> bytes:
        return gzip.decompress(base64.b64decode(self.blocks[f"data-{name}"]))

    def json(self, name: str) -> Any:
        return json.loads(self.raw(name))

    @property
    def sheets(self) -> list[str]:
        return [name for name in self.blocks if name.startswith("sheet-")]


@pytest.fixture
def shop(paint: Painter, tmp_path: Path) -> Path:
    """Twelve images, one of them twice, and a table."""
    for number in range(12):
        paint(f"shop/{number:02}.png", number)
    shutil.copy(tmp_path / "shop/00.png", tmp_path / "shop/copy.png")
    rows = "".join(f"{n:02},kind {n % 3},{2010 + n},{ATTACK}\n" for n in range(11))
    (tmp_path / "shop" / "styles.csv").write_text("id,kind,year,note\n" + rows)
    return tmp_path / "shop"


@pytest.fixture(params=["embedded", pytest.param("server", marks=pytest.mark.weaviate)])
def either(request: pytest.FixtureRequest, shop: Path, tmp_path: Path) -> Iterator[ImageIndex]:
    server = request.param == "server"
    url = request.getfixturevalue("one_node") if server else tmp_path / "store"
    with ImageIndex(unique_name(), store=url, encoder_opener=ColorEncoder().open) as index:
        index.add(shop)
        yield index
        index.drop()


@pytest.fixture
def index(shop: Path, tmp_path: Path) -> Iterator[ImageIndex]:
    with ImageIndex(store=tmp_path / "store", encoder_opener=ColorEncoder().open) as index:
        index.add(shop)
        yield index


def test_every_image_has_a_place_neighbors_and_a_thumbnail(
    either: ImageIndex, tmp_path: Path
) -> None:
    report = either.map(tmp_path / "map.html", color_by="kind")
    assert report is not None
    assert (report.images, report.thumbnails, report.unreadable) == (13, 12, 0)
    assert report.bytes == (tmp_path / "map.html").stat().st_size
    made = Document(tmp_path / "map.html")
    places = np.frombuffer(made.raw("positions"), np.float32).reshape(-1, 2)
    assert len({tuple(place) for place in places.tolist()}) == 13
    paths = [Path(path).name for path in made.json("paths")]
    contents = np.frombuffer(made.raw("contents"), np.uint32)
    assert contents[paths.index("00.png")] == contents[paths.index("copy.png")]
    nearest = np.frombuffer(made.raw("nearest"), np.int32).reshape(12, -1)
    assert all(set(row) == set(range(12)) - {number} for number, row in enumerate(nearest))
    meta = made.json("meta")
    assert meta["fields"][meta["color_by"]]["name"] == "kind"
    cells = np.frombuffer(made.raw("thumbnails"), np.int32)
    assert sorted(cells) == list(range(12))
    assert len(made.sheets) == 1


def test_it_loads_nothing_and_runs_only_its_own_scripts(index: ImageIndex, tmp_path: Path) -> None:
    index.map(tmp_path / "map.html")
    made = Document(tmp_path / "map.html")
    assert len(made.scripts) == 2
    policy = next(a["content"] for t, a in made.tags if a.get("http-equiv")) or ""
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    for script in made.scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert not [tag for tag, a in made.tags if tag in ("link", "iframe", "img") or "src" in a]


def test_hostile_metadata_stays_in_the_data(index: ImageIndex, tmp_path: Path) -> None:
    index.map(tmp_path / "map.html")
    made = Document(tmp_path / "map.html")
    assert "alert(1)" not in made.html
    (note,) = [field for field in made.json("meta")["fields"] if field["name"] == "note"]
    assert note["values"] == [ATTACK]


@pytest.mark.parametrize(("count", "color_by"), [(1, None), (2, "kind"), (9, "year")])
def test_few_images_have_a_map(
    index: ImageIndex, tmp_path: Path, count: int, color_by: str | None
) -> None:
    where = [f"year<{2010 + count}"]
    report = index.map(tmp_path / "map.html", where=where, color_by=color_by)
    assert report is not None
    assert report.images == count
    places = np.frombuffer(Document(tmp_path / "map.html").raw("positions"), np.float32)
    assert np.isfinite(places).all()


def test_thumbnails_keep_to_their_number_and_to_the_size(index: ImageIndex, tmp_path: Path) -> None:
    file = tmp_path / "map.html"
    few = index.map(file, thumbnails=5)
    none = index.map(file, thumbnails=0)
    assert few is not None
    assert none is not None
    assert (few.thumbnails, none.thumbnails) == (5, 0)
    budget = none.bytes + 3000
    bounded = index.map(file, max_bytes=budget)
    assert bounded is not None
    assert 0 <= bounded.thumbnails < 12
    assert bounded.bytes <= budget


def test_images_that_are_gone_have_a_place_but_no_thumbnail(
    index: ImageIndex, shop: Path, tmp_path: Path
) -> None:
    (shop / "03.png").unlink()
    report = index.map(tmp_path / "map.html")
    assert report is not None
    assert (report.images, report.thumbnails, report.unreadable) == (13, 11, 1)


def test_a_map_is_the_same_every_time(index: ImageIndex, tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        index.map(tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_what_cannot_be_done_is_said_first(index: ImageIndex, tmp_path: Path) -> None:
    file = tmp_path / "map.html"
    with pytest.raises(UsageError, match=r"colour: no such field; the collection has .*kind"):
        index.map(file, color_by="colour")
    with pytest.raises(NothingFoundError, match="no image that matches"):
        index.map(file, where=["year>3000"])
    with pytest.raises(SourceError, match="cannot be written: No such file or directory"):
        index.map(tmp_path / "nowhere" / "map.html")
    file.write_text("a,b\n")
    with pytest.raises(UsageError, match="is not an HTML file; not overwritten"):
        index.map(file)
    assert file.read_text() == "a,b\n"


def test_a_stopped_run_writes_nothing(index: ImageIndex, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    assert index.map(tmp_path / "map.html", stop=stop) is None
    assert not list(tmp_path.glob("*.html"))


def test_the_command_names_the_extra_that_is_missing(
    index: ImageIndex, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "openTSNE", None)
    with pytest.raises(MissingLibraryError):
        index.map(tmp_path / "map.html")
    result = cli("map", "--output", tmp_path / "map.html")
    assert result.code == 1
    assert "pip install 'imgsearch-cli[map]'" in result.err


def test_the_command_says_what_it_made(index: ImageIndex, cli: Cli, tmp_path: Path) -> None:
    at = ("--store", tmp_path / "store", "--output", tmp_path / "map.html")
    result = cli("map", *at, "--color-by", "kind", "--max-size", "1.5MB")
    assert result.code == 0
    assert re.search(r"13 images in [\d.]+ s: .*map.html, [\d.]+ MB", result.out)
    assert "12 have a thumbnail of 128 pixels" in result.out
    assert cli("map", *at, "--json").json["images"] == 13
    assert cli("map", *at, "--max-size", "big").code == 2


def test_similar_images_are_close(tmp_path: Path) -> None:
    from imgsearch.map.layout import lay_out

    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(4), 30)
    vectors = rng.normal(size=(4, 16))[group] + rng.normal(scale=0.2, size=(120, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = (vectors @ vectors.T).astype(np.float32)
    np.fill_diagonal(scores, -1)
    numbers = np.argsort(-scores, axis=1)[:, :10].astype(np.int32)
    places = lay_out(
        numbers,
        np.take_along_axis(scores, numbers.astype(np.intp), axis=1),
        vectors[:, :2].astype(np.float32),
    )
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    assert (group[apart.argmin(axis=1)] == group).mean() > 0.95


def test_no_records_take_no_memory() -> None:
    assert Records([]).contents == 0
