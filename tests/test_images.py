"""Images are detected, fingerprinted and decoded, or rejected with a reason."""

import contextlib
import csv
import io
import os
import random
import struct
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms

from imgsearch import images
from imgsearch.errors import ImageError
from imgsearch.images import (
    Loaded,
    Preprocessing,
    decode,
    files,
    fingerprint,
    fit,
    formats,
    load,
)
from tests.conftest import SAMPLES

AWKWARD = SAMPLES / "awkward"
with (AWKWARD / "expected.csv").open(encoding="utf-8") as table:
    EXPECTED = {row["file"]: row["verdict"] for row in csv.DictReader(table)}
# Samples that do not show the umbrella.
OTHER_SUBJECTS = {"one-pixel.png", "very-wide.png"}

TENSORFLOW = Preprocessing(224, (0.5,) * 3, (0.5,) * 3, "bicubic", crop_fraction=0.875)
TORCHVISION = Preprocessing(224, (0.5,) * 3, (0.5,) * 3, "bilinear", resize=232)

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, format_: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def half_and_half(size: tuple[int, int] = (40, 20)) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, *size))
    return image


def color(data: bytes, at: tuple[int, int] = (0, 0)) -> tuple[int, ...]:
    pixel = load(data).image.getpixel(at)
    assert isinstance(pixel, tuple)
    return pixel


def near(left: tuple[int, ...], right: tuple[int, ...], tolerance: int = 4) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(left, right, strict=True))


def grays(data: bytes) -> NDArray[np.float64]:
    return np.asarray(load(data).image.convert("L").resize((56, 72)), dtype=np.float64)


def reason(data: bytes | str, **options: Any) -> str:
    with pytest.raises(ImageError) as caught:
        load(data, **options)
    return str(caught.value)


# Unusual samples


@pytest.mark.parametrize("name", [name for name in EXPECTED if EXPECTED[name] == "indexed"])
def test_an_unusual_file_is_decoded_correctly(name: str) -> None:
    data = (AWKWARD / name).read_bytes()
    decoded = decode(data, TENSORFLOW)
    assert decoded.pixels.shape == (224, 224, 3)
    assert decoded.pixels.dtype == np.uint8
    if name not in OTHER_SUBJECTS:
        assert (decoded.width, decoded.height) == (112, 144)
        difference = np.abs(grays(data) - grays((AWKWARD / "upright.jpg").read_bytes())).mean()
        # It would be 35 upside down, and 150 with black in place of transparency.
        assert difference < (25 if name == "bilevel.png" else 8)


@pytest.mark.parametrize("name", [name for name in EXPECTED if EXPECTED[name] == "rejected"])
def test_an_unusable_file_is_rejected(name: str) -> None:
    with pytest.raises(ImageError):
        decode(str(AWKWARD / name), TENSORFLOW)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("text-named.jpg", "not an image of a known format"),
        ("empty.jpg", "the file is empty"),
        ("truncated.jpg", "damaged JPEG: image file is truncated (67 bytes not processed)"),
        ("truncated.png", "damaged PNG: image file is truncated"),
        ("corrupt-header.jpg", "damaged JPEG: its header cannot be read"),
        (
            "bomb.png",
            "20000 x 20000 pixels are more than the limit of 178,956,970 (max_pixels)",
        ),
    ],
)
def test_a_rejection_has_a_reason(name: str, why: str) -> None:
    assert reason(str(AWKWARD / name)) == why


def test_every_awkward_sample_is_in_the_table() -> None:
    assert {path.name for path in AWKWARD.iterdir()} - {"expected.csv"} == set(EXPECTED)


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_exif_orientation_is_applied_once(format_: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = half_and_half()
    options: dict[str, Any] = (
        {"tiffinfo": {0x0112: orientation}} if format_ == "TIFF" else {"exif": exif}
    )
    loaded = load(encoded(stored, format_, **options))
    sideways = orientation >= 5
    assert (loaded.width, loaded.height) == ((20, 40) if sideways else (40, 20))
    # Where the left edge of the stored pixels is after orientation.
    edges = {1: "left", 2: "right", 3: "right", 4: "left", 5: "top", 6: "top"}
    red_at = {"left": (0, 5), "right": (39, 5), "top": (5, 0), "bottom": (5, 39)}
    pixel = loaded.image.getpixel(red_at[edges.get(orientation, "bottom")])
    assert isinstance(pixel, tuple)
    assert near(pixel, RED, 6)


def test_orientation_is_read_from_a_damaged_exif_block() -> None:
    """Pillow's `exif_transpose` fails on this block and leaves the image on its side."""
    entries = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)  # orientation
    entries += struct.pack("<HHII", 0x829A, 5, 1, 0xFFFFFF)  # exposure time, outside of the block
    block = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 2) + entries + bytes(4)
    loaded = load(encoded(half_and_half(), "JPEG", exif=block))
    assert (loaded.width, loaded.height) == (20, 40)


# Modes


def test_transparency_is_composited_over_white_in_every_mode() -> None:
    base = half_and_half()
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert color(encoded(clear, "PNG")) == WHITE
    assert color(encoded(clear.convert("LA"), "PNG")) == WHITE
    assert color(encoded(clear, "WEBP", lossless=True)) == WHITE
    assert color(encoded(base, "PNG", transparency=RED)) == WHITE
    assert color(encoded(base, "PNG", transparency=RED), (39, 0)) == BLUE
    gray = base.convert("L")
    assert color(encoded(gray, "PNG", transparency=gray.getpixel((0, 0)))) == WHITE
    assert color(encoded(base.quantize(4), "PNG", transparency=bytes(4))) == WHITE
    assert color(encoded(Image.new("1", (4, 4)), "PNG", transparency=0)) == WHITE
    assert color(encoded(Image.new("LA", (4, 4), (0, 128)), "PNG")) == (127, 127, 127)


@pytest.mark.parametrize(
    ("mode", "value", "gray"),
    [
        ("I;16", 65535, 255),
        ("I;16", 40000, 156),
        ("I;16B", 40000, 156),
        ("I", 40000, 156),
        ("I", 200, 200),
        ("F", 0.5, 128),
        ("F", 200.0, 200),
        ("F", float("nan"), 0),
        ("F", 3e38, 0),
    ],
)
def test_gray_of_more_than_eight_bits_is_scaled_not_clipped(
    mode: str, value: float, gray: int
) -> None:
    assert color(encoded(Image.new(mode, (4, 4), value), "TIFF")) == (gray,) * 3


def test_floats_outside_of_the_usual_ranges_are_stretched() -> None:
    for low, high in ((-3e38, 3e38), (-1.0, 1.0), (0.0, 4095.0)):
        ramp = np.linspace(low, high, 16, dtype=np.float32).reshape(4, 4)
        image = load(encoded(Image.fromarray(ramp), "TIFF")).image
        assert (image.getpixel((0, 0)), image.getpixel((3, 3))) == ((0, 0, 0), WHITE)


def ink_profile() -> bytes:
    """A CMYK profile of a press whose cyan ink is red, which no default conversion gives."""
    red, white, black = (136, 208, 195), (255, 128, 128), (0, 128, 128)  # L*a*b*, 8 bits each
    table = b""
    for inks in range(16):
        cyan, key = inks & 8, inks & 1
        table += bytes(black if key else red if cyan else white)
    ramp = bytes(range(256))
    identity = b"".join(struct.pack(">i", 65536 * (i % 4 == 0)) for i in range(9))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + ramp * 4 + table + ramp * 3
    tags = struct.pack(">I4sII", 1, b"A2B0", 144, len(lut))
    header = struct.pack(">I4s4s4s4s4s", 144 + len(lut), bytes(4), b"\2\x40\0\0", b"prtr", b"CMYK",
                         b"Lab ")  # fmt: skip
    header += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    header += struct.pack(">3I", 0xF6D6, 0x10000, 0xD32D)  # D50
    return header.ljust(128, b"\0") + tags + lut


def test_cmyk_is_converted_by_its_profile() -> None:
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    assert near(color(encoded(cyan, "TIFF")), (0, 255, 255))
    red, green, blue = color(encoded(cyan, "TIFF", icc_profile=ink_profile()))
    assert red > 200
    assert max(green, blue) < 80


@pytest.mark.parametrize("kind", ["rubbish", "RGB"])
def test_cmyk_with_an_unusable_profile_is_converted_without_one(kind: str) -> None:
    rgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = b"rubbish" * 40 if kind == "rubbish" else rgb
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    assert near(color(encoded(cyan, "TIFF", icc_profile=profile)), (0, 255, 255))


# Geometry


def test_torchvision_preprocessing_is_torchvisions() -> None:
    from torchvision.transforms import functional

    noise = np.random.default_rng(0)
    for width, height in ((300, 200), (201, 333), (100, 90), (640, 481), (7, 50)):
        image = Image.fromarray(noise.integers(0, 256, (height, width, 3), dtype=np.uint8))
        theirs = functional.center_crop(
            functional.resize(image, [232], functional.InterpolationMode.BILINEAR), [224, 224]
        )
        mine = fit(Loaded(image, width, height), TORCHVISION)
        assert np.array_equal(np.asarray(mine), np.asarray(theirs))


@given(
    width=st.integers(1, 70_000), height=st.integers(1, 70_000), mirrored=st.booleans()
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_the_center_square_is_inside_any_image(width: int, height: int, mirrored: bool) -> None:
    """The square is cut from an image of an eighth of the size, as in draft mode."""
    small = Image.new("RGB", (-(-width // 8), -(-height // 8)))
    if small.width * small.height > 1_000_000:
        small, width, height = Image.new("RGB", (100, 100)), 800, 800
    left = small.width - width / 8 if mirrored else 0.0
    for preprocessing in (TENSORFLOW, TORCHVISION):
        loaded = Loaded(small, width, height, 8, left, 0.0)
        assert fit(loaded, preprocessing).size == (224, 224)


@pytest.mark.parametrize("size", [(60_000, 1), (1, 60_000), (1, 1), (2, 1), (5_000, 300)])
def test_extreme_shapes_take_bounded_memory(size: tuple[int, int]) -> None:
    data = encoded(Image.new("RGB", size, (9, 9, 9)), "PNG")
    for preprocessing in (TENSORFLOW, TORCHVISION):
        decoded = decode(data, preprocessing)
        assert (decoded.pixels == 9).all()
        assert (decoded.width, decoded.height) == size


# Draft mode


def camera_jpeg(size: tuple[int, int], **options: Any) -> tuple[Image.Image, bytes]:
    """Return smooth shapes with fine structure."""
    random_ = np.random.default_rng(5)
    coarse = Image.fromarray(random_.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    large = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), dtype=np.int16)
    large = large + random_.integers(-4, 5, (*large.shape[:2], 1), dtype=np.int16)
    image = Image.fromarray(large.clip(0, 255).astype(np.uint8))
    return image, encoded(image, "JPEG", quality=90, **options)


def test_a_large_jpeg_is_decoded_smaller_but_not_too_small() -> None:
    _, data = camera_jpeg((2501, 1903))
    loaded = load(data, enough=400)
    assert loaded.image.size == (626, 476)
    assert (loaded.width, loaded.height, loaded.scale) == (2501, 1903, 4.0)
    assert load(data, enough=1000).image.size == (2501, 1903)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("preprocessing", [TENSORFLOW, TORCHVISION])
def test_draft_mode_does_not_shift_the_image(
    orientation: int, preprocessing: Preprocessing
) -> None:
    """A fractional shift would show, as the size is not a multiple of the reduction."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    _, data = camera_jpeg((1203, 1033), exif=exif)
    whole = np.asarray(fit(load(data), preprocessing), dtype=np.float64)
    small = load(data, enough=258)
    drafted = np.asarray(fit(small, preprocessing), dtype=np.float64)
    naive = fit(Loaded(small.image, *small.image.size), preprocessing)
    assert np.abs(whole - drafted).mean() < 0.6
    assert np.abs(whole - np.asarray(naive)).mean() > 0.75


def test_vectors_of_draft_mode_are_equal_within_the_stated_cosine() -> None:
    from imgsearch.encoders.factory import open_encoder
    from imgsearch.encoders.request import EncoderRequest

    encoder = open_encoder(EncoderRequest("efficientnet-lite0", device="cpu"))
    enough = images.DRAFT_MARGIN * encoder.preprocessing.short_side
    wholes, drafts = [], []
    for name in ("10101.jpg", "10304.jpg", "10502.jpg", "10806.jpg"):
        with Image.open(SAMPLES / "images" / name) as small:
            # The smallest size for which draft mode is used: the hardest.
            large = small.resize((2 * enough + 3, 2 * enough + 3), Image.Resampling.BICUBIC)
        data = encoded(large, "JPEG", quality=90)
        assert load(data, enough).scale == 2
        wholes.append(np.asarray(fit(load(data), encoder.preprocessing)))
        drafts.append(decode(data, encoder.preprocessing).pixels)
    whole, draft = encoder.encode(np.stack(wholes)), encoder.encode(np.stack(drafts))
    assert (whole * draft).sum(axis=1).min() > images.DRAFT_COSINE


@pytest.mark.parametrize("format_", ["HEIF", "MPO"])
def test_an_embedded_thumbnail_is_never_used(format_: str) -> None:
    """The draft mode of pillow-heif returns the thumbnail, which may show another image."""
    formats.register_all_formats()
    data = encoded(half_and_half((1024, 768)), format_, **(
        {"thumbnails": [256]} if format_ == "HEIF" else {}
    ))  # fmt: skip
    loaded = load(data, enough=200)
    assert (loaded.width, loaded.height) == (1024, 768)
    if format_ == "HEIF":
        assert loaded.image.size == (1024, 768)


# Limits


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "AVIF", "QOI", "PPM"])
def test_the_process_wide_pixel_limit_is_ignored_and_unchanged(
    format_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    data = encoded(half_and_half(), format_)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(data).image.size == (40, 20)
    assert Image.MAX_IMAGE_PIXELS == 10
    assert reason(data, max_pixels=799).startswith("40 x 20 pixels are more than the limit of 799")
    assert load(data, max_pixels=800).image.size == (40, 20)


def small_outside_large_inside() -> dict[str, bytes]:
    bomb = (AWKWARD / "bomb.png").read_bytes()
    icon = struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(bomb), 22) + bomb

    gif = bytearray(encoded(half_and_half().quantize(4), "GIF"))
    struct.pack_into("<HH", gif, gif.index(b",", 25) + 5, 30_000, 30_000)

    webp = bytearray(encoded(half_and_half(), "WEBP", save_all=True, append_images=[Image.new("RGB", (40, 20))]))  # fmt: skip  # noqa: E501
    canvas = webp.index(b"VP8X") + 12
    webp[canvas : canvas + 6] = b"\xfe\x3f\0\xfe\x3f\0"

    shape = {256: 10, 257: 10, 258: 8, 259: 1, 262: 1, 277: 1, 322: 60_000, 323: 60_000, 324: 8,
             325: 100}  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in shape.items())
    directory = struct.pack("<H", len(shape)) + entries + bytes(4)
    tiff = b"II*\0" + struct.pack("<I", 108) + bytes(100) + directory
    return {"icon": icon, "gif": bytes(gif), "webp": bytes(webp), "tiff": tiff}


@pytest.mark.parametrize("kind", ["icon", "gif", "webp", "tiff"])
def test_a_bomb_inside_something_small_is_rejected(kind: str) -> None:
    why = reason(small_outside_large_inside()[kind])
    assert "pixels" in why or why.startswith("damaged TIFF")


def test_postscript_is_never_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(os, "system", refuse)
    why = reason(encoded(half_and_half(), "EPS"))
    assert why == "EPS is not supported: decoding it would run another program"


# HEIC


def test_heic_is_read_where_its_extra_is_installed() -> None:
    formats.register_all_formats()
    loaded = load(encoded(half_and_half((64, 48)), "HEIF", quality=95))
    assert (loaded.width, loaded.height) == (64, 48)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    formats.register_all_formats()
    data = encoded(half_and_half((64, 48)), "HEIF")
    monkeypatch.delitem(Image.OPEN, "HEIF")
    assert reason(data) == "HEIC needs an extra: pip install 'imgsearch-cli[heic]'"


# Files


def test_a_fingerprint_is_that_of_the_decoded_bytes(tmp_path: Path) -> None:
    import hashlib

    file = tmp_path / "a.bin"
    file.write_bytes(b"some bytes")
    found = fingerprint(str(file))
    assert found.sha256 == hashlib.sha256(b"some bytes").hexdigest()
    assert (found.size, found.data) == (10, b"some bytes")
    assert found.mtime_ns == file.stat().st_mtime_ns


def test_a_large_file_is_not_held_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"some bytes")
    first = fingerprint(str(file))
    monkeypatch.setattr(files, "KEEP_BYTES", 5)
    assert fingerprint(str(file)).data is None
    assert fingerprint(str(file)).sha256 == first.sha256


@pytest.mark.parametrize("keep", [0, files.KEEP_BYTES])
def test_a_file_that_changes_while_it_is_read_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: int
) -> None:
    file = tmp_path / "growing.jpg"
    file.write_bytes(b"first half")
    real = os.fstat
    asked: list[int] = []

    def grow(descriptor: int) -> os.stat_result:
        asked.append(descriptor)
        if len(asked) == 2:
            with file.open("ab") as more:
                more.write(b"second half")
        return real(descriptor)

    monkeypatch.setattr(files, "KEEP_BYTES", keep)
    monkeypatch.setattr(os, "fstat", grow)
    with pytest.raises(ImageError, match="changed while it was read"):
        fingerprint(str(file))


def test_a_missing_empty_or_odd_file_is_rejected_without_its_path(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    for read in (fingerprint, load):
        with pytest.raises(ImageError, match=r"^the file is empty$"):
            read(str(tmp_path / "empty.jpg"))
        with pytest.raises(ImageError, match=r"^No such file or directory$"):
            read(str(tmp_path / "gone.jpg"))
        with pytest.raises(ImageError, match=r"^not a regular file$"):
            read(str(tmp_path))


def test_an_unreadable_file_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.jpg"
    file.write_bytes(encoded(half_and_half(), "JPEG"))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr("builtins.open", refuse)
    for read in (fingerprint, load):
        with pytest.raises(ImageError, match=r"^Permission denied$"):
            read(str(file))


@pytest.mark.skipif(sys.platform == "win32", reason="no named pipes in folders there")
def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    for read in (fingerprint, load):
        with pytest.raises(ImageError, match="not a regular file"):
            read(str(pipe))


# Robustness


def sources_to_damage() -> dict[str, bytes]:
    formats.register_all_formats()
    files = {
        name: (AWKWARD / name).read_bytes()
        for name in EXPECTED
        if 0 < (AWKWARD / name).stat().st_size < 20_000
    }
    small = half_and_half((32, 32))
    more = ("JPEG2000", "HEIF", "ICO", "TGA", "PCX", "SGI", "PPM", "DDS", "QOI", "DIB")
    return files | {format_: encoded(small, format_) for format_ in more}


def damaged(data: bytes, chance: random.Random) -> bytes:
    if chance.random() < 0.25:
        return data[: chance.randrange(len(data))]
    changed = bytearray(data)
    for _ in range(chance.choice((1, 2, 5, 20))):
        # More often in headers than in pixels, as decoders fail there.
        end = len(data) if chance.random() < 0.4 else min(200, len(data))
        position = chance.randrange(end)
        changed[position] = chance.choice((0, 255, changed[position] ^ (1 << chance.randrange(8))))
    return bytes(changed)


def test_damaged_files_are_decoded_or_rejected() -> None:
    chance = random.Random(20)
    preprocessing = Preprocessing(32, (0.5,) * 3, (0.5,) * 3, "bilinear", resize=32)
    decoded, reasons = 0, []
    for data in sources_to_damage().values():
        for _ in range(40):
            try:
                decode(damaged(data, chance), preprocessing, max_pixels=2_000_000)
                decoded += 1
            except ImageError as error:
                reasons.append(str(error))
    assert min(decoded, len(reasons)) > 100
    assert all(3 < len(why) < 300 for why in reasons)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 8, 15, 31])
def test_files_shorter_than_a_signature_are_rejected(length: int) -> None:
    for data in (
        (AWKWARD / "upright.jpg").read_bytes(),
        bytes(32),
        b"P6 " * 16,
        b"\x89PNG\r\n" * 6,
    ):
        assert reason(data[:length])


@given(st.binary(max_size=200))
@settings(max_examples=150, deadline=None)
def test_random_bytes_are_rejected(data: bytes) -> None:
    with contextlib.suppress(ImageError):
        load(data, max_pixels=100_000)


def test_formats_are_registered_once_by_concurrent_threads() -> None:
    """Runs in its own process, where no format is registered yet."""
    program = f"""
import threading
from imgsearch import images
failures = []
start = threading.Barrier(8)
def work():
    start.wait()
    try:
        images.load({str(AWKWARD / "still.avif")!r})
        images.load({str(AWKWARD / "lzw.tif")!r})
    except BaseException as error:
        failures.append(error)
threads = [threading.Thread(target=work) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert not failures, failures
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=240)


def test_many_threads_decode_the_same_pixels() -> None:
    names = ["upright.jpg", "still.avif", "lab.tif", "cmyk.jpg", "palette.png"]
    alone = {name: decode(str(AWKWARD / name), TENSORFLOW).pixels for name in names}
    wrong: list[str] = []

    def work() -> None:
        for name in names * 3:
            if not np.array_equal(decode(str(AWKWARD / name), TENSORFLOW).pixels, alone[name]):
                wrong.append(name)  # noqa: PERF401

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# Sniffing


@pytest.mark.parametrize(
    "format_",
    ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "HEIF", "JPEG2000", "QOI", "DDS", "ICNS"],
)
def test_images_are_detected_by_their_first_bytes(format_: str) -> None:
    formats.register_all_formats()
    assert images.looks_like_an_image(encoded(half_and_half((64, 64)), format_)[:32])


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\xff\xd8",
        b"id,articleType\n1,BM\n",
        b"BM is how this text begins, and goes on",
        b"BMW,Mercedes,Audi\n1,2,3\n4,5,6\n7,8",
        b"PK\x03\x04\x14\0\0\0\x08\0" + bytes(22),
        b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(8),
        b"\0\0\0\x14ftypqt  \0\0\x02\0qt  " + bytes(12),
        b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + bytes(16),
        b"RIFF\x24\x08\0\0WAVEfmt \x10\0\0\0" + bytes(12),
        b"RIFF\x24\x08\0\0AVI LIST" + bytes(16),
        b"\x7fELF\x02\x01\x01" + bytes(25),
        b"II*something else",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingB",
        b"GIF of a cat, described in words",
        b"SQLite format 3\0" + bytes(16),
        "\ufeffÿØÿ as text in UTF-8".encode(),
    ],
)
def test_other_files_are_not_detected_as_images(head: bytes) -> None:
    assert not images.looks_like_an_image(head[:32])


# Thumbnails


def test_a_thumbnail_fits_and_is_composited_over_white() -> None:
    import base64

    uri = images.thumbnail_data_uri(str(AWKWARD / "rgba-transparent.png"), side=50)
    kind, _, body = uri.partition(",")
    assert kind == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(body))) as image:
        assert max(image.size) == 50
        assert near(image.convert("RGB").getpixel((0, 0)), WHITE, 8)  # type: ignore[arg-type]
