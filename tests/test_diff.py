"""`diff`: what two collections, or a folder and a collection, have and have not."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgsearch import ImageIndex
from imgsearch.analysis import diff as module
from imgsearch.analysis.diff import Diff, Difference
from imgsearch.encoders.base import normalized
from imgsearch.events import Event, Note
from imgsearch.stores import open_store
from imgsearch.stores.base import Collection
from tests.conftest import Cli, Painter
from tests.fakes import ColorEncoder
from tests.store_contract import OTHER_STAMP, STAMP, record, vectors
from tests.test_weaviate_store import unique_name


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH", 3)


def no_encoder(_: Collection) -> ColorEncoder:
    raise AssertionError("no image has to be encoded")


@pytest.fixture(params=["embedded", pytest.param("server", marks=pytest.mark.weaviate)])
def second_store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    server = request.param == "server"
    return str(request.getfixturevalue("one_node") if server else tmp_path / "second")


def test_two_collections_are_compared(tmp_path: Path, second_store: str) -> None:
    drawn = vectors(12)
    near = normalized(drawn[7:8] + np.float32(0.02) * vectors(1, seed=9))
    ours = [record(number) for number in range(10)]
    theirs = [
        *ours[:5],
        replace(record(5), sha256="c" * 64),
        replace(record(106), sha256=ours[6].sha256),
        record(107),
        record(110),
    ]
    name = unique_name()
    with open_store(str(tmp_path / "first")) as a, open_store(second_store, 20) as b:
        one, other = a.create("one", STAMP), b.create(name, STAMP)
        one.upsert(ours, drawn[:10])
        other.upsert(theirs, np.concatenate([drawn[:5], drawn[5:7], near, drawn[11:12]]))
        found = Diff(one, other, no_encoder)
        listed = list(found)
        score = round(float((drawn[7:8] @ near.T).item()), 4)
        assert [replace(each, score=None) for each in listed] == [
            Difference("changed", ours[5].path),
            Difference("moved", ours[6].path, theirs[6].path),
            Difference("near-copy", ours[7].path, theirs[7].path),
            Difference("removed", ours[8].path),
            Difference("removed", ours[9].path),
            Difference("added", theirs[8].path),
        ]
        assert listed[2].score == pytest.approx(score, abs=1e-3)
        assert found.differs
        assert found.counts["equal"] == 5
        same = Diff(other, other, no_encoder)
        assert (list(same), same.differs, same.counts["equal"]) == ([], False, 9)
        b.drop(name)


def test_copies_are_paired_one_by_one(tmp_path: Path) -> None:
    with open_store(str(tmp_path / "store")) as store:
        one, other = store.create("one", STAMP), store.create("other", STAMP)
        one.upsert([record(number, content=1) for number in (1, 2, 3)], vectors(3))
        other.upsert([record(number, content=1) for number in (3, 4)], vectors(2))
        listed = list(Diff(one, other, no_encoder, near=False))
        assert [(each.kind, each.path[-5:]) for each in listed] == [
            ("moved", "1.jpg"),
            ("removed", "2.jpg"),
        ]


def test_vectors_of_different_models_are_not_compared(tmp_path: Path) -> None:
    notes: list[Event] = []
    with open_store(str(tmp_path / "store")) as store:
        one, other = store.create("one", STAMP), store.create("other", OTHER_STAMP)
        one.upsert([record(1)], vectors(1))
        other.upsert([record(2)], vectors(1))
        listed = list(Diff(one, other, no_encoder, listener=notes.append))
        assert [each.kind for each in listed] == ["removed", "added"]
        [note] = [each for each in notes if isinstance(each, Note)]
        assert "not comparable" in note.text


@pytest.fixture
def shop(paint: Painter) -> Path:
    return [paint(f"shop/{number}.png", number) for number in range(6)][-1].parent


@pytest.fixture
def index(shop: Path, tmp_path: Path) -> Iterator[ImageIndex]:
    with ImageIndex(store=tmp_path / "store", encoder_opener=ColorEncoder().open) as index:
        index.add(shop)
        yield index


def test_a_folder_is_compared_with_its_records(
    index: ImageIndex, shop: Path, paint: Painter
) -> None:
    index.add(paint("elsewhere/0.png", 50).parent)
    assert list(index.diff(shop)) == []
    os.utime(shop / "0.png")  # touched, but of the same content
    paint("shop/1.png", 20)
    (shop / "2.png").rename(shop / "moved.png")
    with Image.open(shop / "3.png") as image:
        image.resize((60, 45)).save(shop / "smaller.jpg", quality=90)
    (shop / "3.png").unlink()
    (shop / "4.png").unlink()
    paint("shop/new.png", 21)
    (shop / "empty.png").write_bytes(b"")

    def names(found: Diff) -> list[tuple[str, str, str | None]]:
        return [(e.kind, Path(e.path).name, e.to and Path(e.to).name) for e in found]

    found = index.diff(shop)
    assert names(found) == [
        ("changed", "1.png", None),
        ("unreadable", "empty.png", None),
        ("moved", "2.png", "moved.png"),
        ("near-copy", "3.png", "smaller.jpg"),
        ("removed", "4.png", None),
        ("added", "new.png", None),
    ]
    assert found.counts["equal"] == 2
    assert names(index.diff(shop, near=False, reverse=True))[2:] == [
        ("moved", "moved.png", "2.png"),
        ("removed", "new.png", None),
        ("removed", "smaller.jpg", None),
        ("added", "3.png", None),
        ("added", "4.png", None),
    ]


def test_the_command_exits_with_1_if_there_is_a_difference(
    index: ImageIndex, shop: Path, tmp_path: Path, cli: Cli
) -> None:
    with open_store(index.store.url) as store:
        store.create("b", index.collection.stamp)
    at = ("--store", index.store.url)
    equal = cli("diff", shop, "images", *at)
    assert (equal.code, equal.out.strip()) == (0, "6 equal")
    shutil.copy(shop / "0.png", shop / "copy.png")
    (shop / "0.png").unlink()
    differs = cli("diff", "images", shop, *at, "--json")
    assert differs.code == 1
    assert differs.json["differences"] == [
        {"kind": "moved", "path": str(shop / "0.png"), "to": str(shop / "copy.png")}
    ]
    assert (differs.json["counts"]["moved"], differs.json["counts"]["equal"]) == (1, 5)
    assert cli("diff", "images", "b", *at, "--no-near").out.count("removed  ") == 6
    assert cli("diff", "images", "images", *at, "--other-store", tmp_path / "none").code == 1
    assert cli("diff", shop, tmp_path, *at).code == 2
