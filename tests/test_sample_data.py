"""sample_data is what `python -m tools.sample_data` draws, and its tables describe it."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import SAMPLES
from tools.sample_data.awkward import AWKWARD
from tools.sample_data.shop import PRODUCTS, product_image


def _column(table: Path, name: str) -> set[str]:
    with table.open(encoding="utf-8", newline="") as file:
        return {row[name] for row in csv.DictReader(file)}


def test_the_tables_describe_all_files_that_are_drawn() -> None:
    products = {str(product) for product in PRODUCTS}
    assert products == _column(SAMPLES / "styles.csv", "id")
    assert products == {path.stem for path in (SAMPLES / "images").iterdir()}
    assert set(AWKWARD) == _column(SAMPLES / "awkward" / "expected.csv", "file")


@pytest.mark.parametrize("product", [10105, 10506])
def test_a_product_is_drawn_as_committed(product: int) -> None:
    """Compare pixels, not bytes, which depend on the versions of Pillow and its codecs."""
    with Image.open(SAMPLES / "images" / f"{product}.jpg") as committed:
        difference = np.asarray(committed, np.int16) - np.asarray(product_image(product), np.int16)
    assert abs(difference).mean() < 2


@pytest.mark.parametrize("name", ["upright.jpg", "gray-16bit.png", "rgba-transparent.png"])
def test_an_awkward_file_is_drawn_as_committed(name: str) -> None:
    file = io.BytesIO(AWKWARD[name]())
    with Image.open(SAMPLES / "awkward" / name) as committed, Image.open(file) as drawn:
        assert (drawn.mode, drawn.size) == (committed.mode, committed.size)
        difference = np.asarray(committed, np.int32) - np.asarray(drawn, np.int32)
    assert abs(difference).mean() < 2 * (257 if "16bit" in name else 1)


def test_the_bomb_is_small_and_decodes_to_many_pixels() -> None:
    bomb = AWKWARD["bomb.png"]()
    assert bomb == (SAMPLES / "awkward" / "bomb.png").read_bytes()
    assert len(bomb) < 100_000
