"""Camera raw files give the image and never its thumbnail, or a reason that names the extra."""

import io
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from imgsearch import images
from imgsearch.errors import ImageError
from imgsearch.images import load
from imgsearch.images.raw import raw_format
from tests.conftest import SAMPLES
from tests.raw_files import SHORT, Tiff, raw_file


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    with Image.open(SAMPLES / "images" / "10101.jpg") as image:
        return image.convert("RGB").resize((720, 960))


def difference(one: Image.Image, other: Image.Image) -> float:
    small = (90, 120)
    pair = [np.asarray(image.resize(small), dtype=np.float64) for image in (one, other)]
    return float(np.abs(pair[0] - pair[1]).mean())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"linear": True},
        {"thumbnail": False},
        {"thumbnail": False, "linear": True},
        {"maker": "NEF"},
        {"maker": "CR2"},
    ],
)
def test_sensor_data_is_developed(photograph: Image.Image, options: dict[str, Any]) -> None:
    loaded = load(raw_file(photograph, **options))
    assert (loaded.width, loaded.height) in {(360, 480), (720, 960)}
    assert difference(loaded.image, photograph) < 12  # of the green thumbnail: over 100


def test_a_large_preview_is_used(photograph: Image.Image) -> None:
    marked = photograph.copy()
    marked.paste((255, 0, 255), (0, 0, 100, 100))
    loaded = load(raw_file(photograph, preview=marked))
    assert (loaded.width, loaded.height) == (720, 960)
    assert loaded.image.getpixel((50, 50)) == pytest.approx((255, 0, 255), abs=6)


@pytest.mark.parametrize("size", [(240, 320), (640, 480)], ids=["small", "other proportions"])
def test_a_preview_that_is_not_the_whole_image_is_not_used(
    photograph: Image.Image, size: tuple[int, int]
) -> None:
    loaded = load(raw_file(photograph, preview=Image.new("RGB", size, "lime")))
    assert difference(loaded.image, photograph) < 12


@pytest.mark.parametrize("with_preview", [True, False])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_orientation_is_applied_once(
    photograph: Image.Image, orientation: int, with_preview: bool
) -> None:
    preview = photograph if with_preview else None
    loaded = load(raw_file(photograph, preview=preview, orientation=orientation))
    turns = {1: 0, 3: 180, 6: 270, 8: 90}
    upright = photograph.rotate(turns[orientation], expand=True)
    assert (loaded.width > loaded.height) == (upright.width > upright.height)
    assert difference(loaded.image, upright) < 12


@pytest.mark.parametrize("maker", ["DNG", "NEF", "CR2"])
def test_a_missing_extra_is_named(
    photograph: Image.Image, maker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rawpy", None)
    with pytest.raises(ImageError) as caught:
        load(raw_file(photograph, maker=maker, preview=photograph))
    assert str(caught.value) == (
        f"{maker} (camera raw) needs an extra: pip install 'imgsearch-cli[raw]'"
    )


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"FUJIFILMCCD-RAW 0201", "RAF"),
        (b"IIRO\x08\0\0\0", "ORF"),
        (b"IIU\0\x18\0\0\0", "RW2"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1", "CR3"),
        (b"FOVb\1\0\2\0", "X3F"),
    ],
)
def test_raw_formats_other_than_tiff_are_recognized(head: bytes, name: str) -> None:
    data = head.ljust(64, b"\0")
    assert raw_format(io.BytesIO(data)) == name
    assert images.looks_like_an_image(data[:32])
    with pytest.raises(ImageError, match=name):
        load(data)


def test_a_truncated_raw_file_is_rejected_even_if_its_preview_is_complete(
    photograph: Image.Image,
) -> None:
    whole = raw_file(photograph, preview=photograph)
    with pytest.raises(ImageError):
        load(whole[: len(whole) // 2])
    start = int.from_bytes(whole[4:8], "little")
    claimed = bytearray(whole)
    at = claimed.index((279).to_bytes(2, "little") + b"\x04\0\x01\0\0\0", start)
    claimed[at + 8 : at + 12] = (1 << 30).to_bytes(4, "little")
    with pytest.raises(ImageError, match="truncated"):
        load(bytes(claimed))


def test_the_pixel_limit_applies_to_raw_files(photograph: Image.Image) -> None:
    with pytest.raises(ImageError, match="720 x 960 pixels are more than the limit"):
        load(raw_file(photograph, preview=photograph), max_pixels=100_000)


def test_a_tiff_with_reduced_images_is_not_raw(photograph: Image.Image) -> None:
    """As in pyramids and in TIFFs with previews."""
    tiff = Tiff()

    def directory(image: Image.Image, kind: int, below: list[int]) -> int:
        entries: list[Any] = [
            (254, 4, [kind]),
            (256, 4, [image.width]),
            (257, 4, [image.height]),
            (258, SHORT, [8, 8, 8]),
            (259, SHORT, [1]),
            (262, SHORT, [2]),
            (273, 4, [tiff.add(image.tobytes())]),
            (277, SHORT, [3]),
            (278, 4, [image.height]),
            (279, 4, [image.width * image.height * 3]),
        ]
        return tiff.directory(entries + ([(330, 4, below)] if below else []))

    small = directory(photograph.resize((90, 120)), 1, [])
    data = tiff.finish(directory(photograph, 0, [small]))
    assert raw_format(io.BytesIO(data)) is None
    loaded = load(data)
    assert loaded.image.tobytes() == photograph.tobytes()


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("pages", [1, 3])
def test_an_ordinary_tiff_is_not_raw(photograph: Image.Image, pages: int, big: bool) -> None:
    buffer = io.BytesIO()
    rest = [photograph] * (pages - 1)
    photograph.save(buffer, "TIFF", save_all=True, append_images=rest, big_tiff=big)
    assert raw_format(buffer) is None
    assert load(buffer.getvalue()).image.tobytes() == photograph.tobytes()


def test_invalid_and_cyclic_directories_end(photograph: Image.Image) -> None:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[330] = tuple([8, 1 << 31, 12] * 20)
    info.tagtype[330] = 4
    buffer = io.BytesIO()
    photograph.save(buffer, "TIFF", tiffinfo=info)
    assert raw_format(buffer) is None
    assert load(buffer.getvalue()).width == 720


def test_a_raw_file_has_its_own_media_type(photograph: Image.Image) -> None:
    assert images.media_type(io.BytesIO(raw_file(photograph, maker="NEF"))) == "image/x-nef"
