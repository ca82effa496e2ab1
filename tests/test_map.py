"""A map: places, thumbnails within a budget, and one safe file."""

import base64
import gzip
import hashlib
import json
import re
import shutil
import sys
import threading
from array import array
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from imgsearch import ImageIndex
from imgsearch.errors import MissingLibraryError, NothingFoundError, SourceError, UsageError
from imgsearch.events import Event, Outcome, Stage
from imgsearch.map import run, saved
from imgsearch.map.clusters import find_clusters
from imgsearch.map.records import Column, Records
from imgsearch.stores import open_store
from imgsearch.types import ImageRecord, Stamp, unread_digest
from tests.conftest import Cli, Painter
from tests.fakes import ColorEncoder
from tests.test_weaviate_store import unique_name

# Not by an import, which would take each worker two seconds.
pytestmark = pytest.mark.skipif(find_spec("openTSNE") is None, reason="needs openTSNE")

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


def test_a_stop_ends_the_layout(index: ImageIndex, tmp_path: Path) -> None:
    stop = threading.Event()
    placed = 0

    def listen(event: Event) -> None:
        nonlocal placed
        if isinstance(event, Stage):
            placed = 0
            if event.text.startswith("placing"):
                stop.set()
        placed += isinstance(event, Outcome)

    assert index.map(tmp_path / "map.html", listener=listen, stop=stop) is None
    assert placed <= 1
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


def test_images_that_were_never_read_have_a_place(tmp_path: Path) -> None:
    uris = [f"https://example.com/{number}.jpg" for number in range(12)]
    records = [ImageRecord(uri, unread_digest(uri), 0, 0, 0, 0, {}) for uri in uris]
    with open_store(str(tmp_path / "store")) as store:
        made = store.create("images", Stamp("elsewhere", "0" * 64, "none", 12))
        made.upsert(records, np.eye(12, dtype=np.float32))
    with ImageIndex(store=tmp_path / "store") as index:
        report = index.map(tmp_path / "map.html")
    assert report is not None
    assert (report.images, report.unreadable) == (12, 12)


def test_missing_neighbors_do_not_matter(
    index: ImageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in a large collection, of which not all pairs are compared.
    monkeypatch.setattr(run, "EXACT_CONTENTS", 0)
    report = index.map(tmp_path / "map.html")
    assert report is not None
    assert report.images == 13
    document = Document(tmp_path / "map.html")
    assert np.isfinite(np.frombuffer(document.raw("positions"), np.float32)).all()


class TestLayout:
    def test_new_images_get_a_place_and_the_others_keep_theirs(
        self, either: ImageIndex, shop: Path, tmp_path: Path
    ) -> None:
        file, layout = tmp_path / "map.html", tmp_path / "layout.parquet"
        first = either.map(file, layout=layout)
        assert first is not None
        before = _places(Document(file))
        with Image.open(shop / "04.png") as image:  # an image that is nearly the same
            image.putpixel((0, 0), (1, 2, 3))
            image.save(shop / "new.png")
        (shop / "05.png").unlink()
        either.add(shop, prune=True)
        second = either.map(file, layout=layout)
        assert second is not None
        assert (first.placed, second.placed) == (0, 1)
        document = Document(file)
        after = _places(document)
        assert set(after) == {*before, "new.png"} - {"05.png"}
        # A copy's place depends on the extent of the map.
        assert all(after[each] == before[each] for each in before if each in after.keys() - COPIES)
        assert np.isfinite(list(after.values())).all()
        names = [Path(path).name for path in document.json("paths")]
        contents = np.frombuffer(document.raw("contents"), np.uint32)
        firsts = np.frombuffer(document.raw("firsts"), np.uint32)
        nearest = np.frombuffer(document.raw("nearest"), np.int32).reshape(len(firsts), -1)
        for one, other in [("new.png", "04.png"), ("04.png", "new.png")]:
            row = nearest[contents[names.index(one)]]
            assert names[firsts[row[0]]] == other

    def test_a_layout_that_lacks_most_images_is_made_again(
        self, index: ImageIndex, tmp_path: Path
    ) -> None:
        layout = tmp_path / "layout.parquet"
        index.map(tmp_path / "map.html", layout=layout, where=["year<2013"])
        small = layout.read_bytes()
        report = index.map(tmp_path / "map.html", layout=layout)
        assert report is not None
        assert report.placed == 0
        assert layout.read_bytes() != small

    def test_other_files_are_no_layout(self, index: ImageIndex, tmp_path: Path) -> None:
        other = tmp_path / "other.parquet"
        other.write_text("a,b\n")
        with pytest.raises(UsageError, match="is not a Parquet file; not overwritten"):
            index.map(tmp_path / "map.html", layout=other)
        parquet.write_table(pa.table({"a": [1]}), other)
        with pytest.raises(UsageError, match="is not a layout of a map"):
            index.map(tmp_path / "map.html", layout=other)

    def test_a_layout_of_another_model_is_refused(self, index: ImageIndex, tmp_path: Path) -> None:
        layout = tmp_path / "layout.parquet"
        index.map(tmp_path / "map.html", layout=layout)
        stamp = replace(index.collection.stamp, weights="f" * 64)
        with pytest.raises(UsageError, match="is the layout of other vectors"):
            saved.read(str(layout), stamp)


COPIES = {"00.png", "copy.png"}


def _places(document: Document) -> dict[str, tuple[float, float]]:
    places = np.frombuffer(document.raw("positions"), np.float32).reshape(-1, 2).tolist()
    names = [Path(path).name for path in document.json("paths")]
    return {name: (x, y) for name, (x, y) in zip(names, places, strict=True)}


def _records(**fields: list[str]) -> Records:
    """Return records with these fields, each of another content."""
    columns = []
    for name, values in fields.items():
        column = Column(name, "str", [], array("i"))
        for value in values:
            column.add(value)
        columns.append(column)
    numbers = np.arange(len(columns[0].data), dtype=np.int32)
    digests = {bytes([at]): int(at) for at in numbers}
    return Records(columns, digests=digests, content=numbers, first=numbers)


def test_groups_are_named_by_what_tells_them_from_others() -> None:
    records = _records(
        category=["Things"] * 120,
        kind=["Shoes"] * 40 + ["Hats"] * 40 + ["Shoes"] * 40,
        gender=["Men"] * 40 + ["Men", "Women"] * 20 + ["Women"] * 40,
    )
    centers = np.repeat([[0, 0], [50, 0], [0, 50]], 40, axis=0)
    places = centers + np.random.default_rng(0).normal(size=(120, 2))
    found = find_clusters(records, places.astype(np.float32))
    names = sorted(", ".join(sorted(each.name.split(", "))) for each in found.groups)
    assert names == ["Hats", "Men, Shoes", "Shoes, Women"]
    assert sum(each.size for each in found.groups) == (found.number >= 0).sum()


def test_a_picture_shows_texts_and_numbers(index: ImageIndex, cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "map.png"
    for color_by in ("kind", "year"):
        assert index.map(png=file, color_by=color_by) is not None
        with Image.open(file) as image:
            assert image.size == (2160, 1620)
            assert len(image.convert("RGB").resize((200, 150)).getcolors(10**6) or ()) > 10
    assert not list(tmp_path.glob("*.html"))
    file.write_text("a,b")
    with pytest.raises(UsageError, match="is not a PNG file"):
        index.map(png=file)
    result = cli("map", "--store", tmp_path / "store")
    assert result.code == 2
    assert "--output" in result.err
