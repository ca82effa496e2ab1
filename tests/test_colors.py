"""Color profiles, and samples of more than 8 bits."""

import io
import struct
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from imgsearch.images import Preprocessing, decode, load, thumbnail
from tests.conftest import SAMPLES
from tests.profiles import SPACES, in_space, profile
from tests.raw_files import SHORT, Tiff
from tests.test_damaged_metadata import PNG, chunk, encoded

NOW = Preprocessing(224, (0.5,) * 3, (0.5,) * 3, "bicubic", crop_fraction=0.875)
BEFORE = replace(NOW, decoding=1)


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    with Image.open(SAMPLES / "images" / "10101.jpg") as image:
        return image.convert("RGB")


@pytest.fixture(scope="module")
def vivid() -> Image.Image:
    """Return all hues, from gray to saturated."""
    hue, saturation = np.meshgrid(np.arange(0, 256, 2), np.arange(0, 256, 4))
    hsv = np.stack([hue, saturation, np.full_like(hue, 220)], axis=-1).astype(np.uint8)
    return Image.frombytes("HSV", (128, 64), hsv.tobytes()).convert("RGB")


def difference(data: bytes, expected: Image.Image) -> float:
    shown = np.asarray(load(data).image, dtype=np.float64)
    return float(np.abs(shown - np.asarray(expected.convert("RGB"))).mean())


# Profiles


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("format_", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_colors_are_converted_to_srgb(vivid: Image.Image, format_: str, space: str) -> None:
    options: dict[str, Any] = {
        "WEBP": {"lossless": True},
        "JPEG": {"quality": 100, "subsampling": 0},
    }
    wide = in_space(vivid, space)
    data = encoded(wide, format_, icc_profile=profile(space), **options.get(format_, {}))
    ignored = float(np.abs(np.asarray(wide).astype(int) - np.asarray(vivid)).mean())
    assert ignored > 5
    assert difference(data, vivid) < 1.5


def test_srgb_damaged_and_mismatched_profiles_change_nothing(
    photograph: Image.Image,
) -> None:
    wide = profile("prophoto")
    for ignored in (
        profile("linear", gamma=2.4),  # the primaries and the curve of sRGB
        profile("gray", gamma=1.0),
        wide[:200],
        wide[:100] + b"\xff" * 100 + wide[200:],
        b"",
        b"rubbish" * 50,
    ):
        data = encoded(photograph, "PNG", icc_profile=ignored)
        assert load(data).image.tobytes() == photograph.tobytes()


def test_gray_is_converted_by_its_profile(photograph: Image.Image) -> None:
    gray = photograph.convert("L")
    linear = gray.point([round(255 * (value / 255) ** 2.2) for value in range(256)])
    for mode in ("L", "LA"):
        data = encoded(linear.convert(mode), "PNG", icc_profile=profile("gray", gamma=1.0))
        assert difference(data, gray) < 4
        assert difference(encoded(linear.convert(mode), "PNG"), gray) > 15


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_transparent_and_indexed_images_are_converted_too(
    photograph: Image.Image, mode: str
) -> None:
    colors = photograph.quantize(64)
    plain = colors if mode == "P" else colors.convert("RGBA")
    palette = colors.convert("RGB")
    wide = in_space(palette, "prophoto")
    if mode == "P":
        # The same indices, with another palette.
        stored = wide.quantize(256)
    else:
        stored = wide.convert("RGBA")
        stored.putalpha(255)
    data = encoded(stored, "PNG", icc_profile=profile("prophoto"))
    assert difference(data, plain) < 2.5


def test_a_thumbnail_is_srgb_without_a_profile(photograph: Image.Image) -> None:
    wide = in_space(photograph, "prophoto")
    data = encoded(wide, "PNG", icc_profile=profile("prophoto"))
    with Image.open(io.BytesIO(thumbnail(data, 320))) as shown:
        assert "icc_profile" not in shown.info
        small = photograph.copy()
        small.thumbnail((320, 320))
        assert np.abs(np.asarray(shown).astype(int) - np.asarray(small)).mean() < 4


# Depth


def png16(samples: NDArray[np.uint16], *added: bytes) -> bytes:
    """Return a 16-bit PNG of 1 to 4 channels."""
    height, width, channels = samples.shape
    color_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    rows = samples.astype(">u2").reshape(height, -1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    return b"".join(
        (
            PNG,
            chunk(b"IHDR", header),
            *added,
            chunk(b"IDAT", zlib.compress(data)),
            chunk(b"IEND", b""),
        )
    )


def deep(image: Image.Image, bits: int) -> NDArray[np.uint16]:
    values = np.asarray(image).astype(np.uint32)
    if values.ndim == 2:
        values = values[..., np.newaxis]
    return (values * ((1 << bits) - 1) // 255).astype(np.uint16)


def tiff16(samples: NDArray[np.uint16], tags: dict[int, int] | None = None) -> bytes:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in (tags or {}).items():
        info[tag] = value
        info.tagtype[tag] = 3
    buffer = io.BytesIO()
    Image.fromarray(samples[..., 0]).save(buffer, "TIFF", tiffinfo=info)
    return buffer.getvalue()


@pytest.mark.parametrize("bits", [8, 9, 10, 12, 14, 16])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_the_values_determine_the_significant_bits(
    photograph: Image.Image, mode: str, bits: int
) -> None:
    image = photograph.convert(mode)
    samples = deep(image, bits)
    samples[0, 0] = (1 << bits) - 1
    assert difference(png16(samples), image) < 1.5


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_may_have_more_significant_bits_than_color(
    photograph: Image.Image, mode: str, bits: int
) -> None:
    image = photograph.convert(mode)
    samples = deep(image, bits)
    samples[..., -1] = 65535
    assert difference(png16(samples), image) < 1.5


def test_stated_significant_bits_are_used_if_the_values_agree(
    photograph: Image.Image,
) -> None:
    dark = photograph.convert("L").point([value // 3 for value in range(256)])
    samples = deep(dark, 12)
    assert samples.max() < 2048
    brighter = load(png16(samples)).image
    assert np.asarray(brighter).mean() > 1.5 * np.asarray(dark).mean()
    assert difference(png16(samples, chunk(b"sBIT", b"\x0c")), dark) < 1.5
    assert difference(tiff16(samples, {281: 4095}), dark) < 1.5
    # As the PNG specification recommends: 12 bits, at the upper end.
    shifted = ((samples << 4) | (samples >> 8)).astype(np.uint16)
    assert difference(png16(shifted, chunk(b"sBIT", b"\x0c")), dark) < 1.5


def test_a_tiff_of_twelve_bits_a_sample(photograph: Image.Image) -> None:
    dark = photograph.convert("L").point([value // 3 for value in range(256)])
    samples = deep(dark, 12)[..., 0]
    samples = samples[:, : samples.shape[1] // 2 * 2]
    pairs = samples.reshape(samples.shape[0], -1, 2).astype(np.uint32)
    packed = (pairs[..., 0] << 12) | pairs[..., 1]
    data = np.stack([packed >> 16, packed >> 8, packed], axis=-1).astype(np.uint8).tobytes()
    tiff = Tiff()
    height, width = samples.shape
    entries: list[Any] = [
        (256, 4, [width]),
        (257, 4, [height]),
        (258, SHORT, [12]),
        (259, SHORT, [1]),
        (262, SHORT, [1]),
        (273, 4, [tiff.add(data)]),
        (277, SHORT, [1]),
        (278, 4, [height]),
        (279, 4, [len(data)]),
    ]
    assert difference(tiff.finish(tiff.directory(entries)), dark.crop((0, 0, width, height))) < 1.5


@pytest.mark.parametrize("compressed", [False, True])
def test_color_tiffs_of_sixteen_bits(photograph: Image.Image, compressed: bool) -> None:
    image = photograph
    for bits in (10, 16):
        samples = deep(image, bits).astype("<u2")
        data = zlib.compress(samples.tobytes()) if compressed else samples.tobytes()
        tiff = Tiff()
        entries: list[Any] = [
            (256, 4, [image.width]),
            (257, 4, [image.height]),
            (258, SHORT, [16, 16, 16]),
            (259, SHORT, [8 if compressed else 1]),
            (262, SHORT, [2]),
            (273, 4, [tiff.add(data)]),
            (277, SHORT, [3]),
            (278, 4, [image.height]),
            (279, 4, [len(data)]),
        ]
        assert difference(tiff.finish(tiff.directory(entries)), image) < 1.5, bits


def test_a_sixteen_bit_tiff_may_be_white_at_zero(photograph: Image.Image) -> None:
    gray = photograph.convert("L")
    data = bytearray(tiff16(65535 - deep(gray, 16)))
    at = data.index(struct.pack("<HHIH", 262, SHORT, 1, 1))
    data[at + 8] = 0
    assert difference(bytes(data), gray) < 1.5


# Older collections


def test_decoding_version_1_ignores_profiles_and_depth(photograph: Image.Image) -> None:
    wide = in_space(photograph, "prophoto")
    with_profile = encoded(wide, "PNG", icc_profile=profile("prophoto"))
    without = encoded(wide, "PNG")
    assert (decode(with_profile, BEFORE).pixels == decode(without, NOW).pixels).all()
    assert (decode(with_profile, BEFORE).pixels != decode(with_profile, NOW).pixels).any()
    shallow = png16(deep(photograph.convert("L"), 10))
    assert decode(shallow, BEFORE).pixels.max() <= 4
    assert decode(shallow, NOW).pixels.max() > 200


def test_images_without_profile_and_depth_are_equal_in_both_versions(
    photograph: Image.Image,
) -> None:
    for mode in ("RGB", "L", "P", "RGBA", "LA", "1", "CMYK"):
        format_ = "TIFF" if mode == "CMYK" else "PNG"
        data = encoded(photograph.convert(mode), format_)
        assert (decode(data, BEFORE).pixels == decode(data, NOW).pixels).all()
    full = png16(deep(photograph, 16))
    assert (decode(full, BEFORE).pixels == decode(full, NOW).pixels).all()


def test_integers_of_32_bits_are_scaled_by_their_significant_bits(photograph: Image.Image) -> None:
    gray = photograph.convert("L")
    values = deep(gray, 12)[..., 0].astype(np.int32)
    values[0, 0] = 4095
    assert difference(encoded(Image.fromarray(values), "TIFF"), gray) < 1.5


def test_interlaced_samples_of_sixteen_bits(photograph: Image.Image) -> None:
    image = photograph.resize((37, 29))
    samples = deep(image, 10)
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2)]
    rows = b""
    for left, top, across, down in [*passes, (0, 1, 1, 2)]:
        for row in samples[top::down, left::across]:
            rows += b"\0" + row.astype(">u2").tobytes()
    header = struct.pack(">IIBBBBB", image.width, image.height, 16, 2, 0, 0, 1)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    assert difference(PNG + b"".join(parts), image) < 1.5


def test_load_uses_the_requested_decoding_version(photograph: Image.Image) -> None:
    shallow = png16(deep(photograph.convert("L"), 10))
    assert np.asarray(load(shallow, decoding=1).image).max() <= 4
