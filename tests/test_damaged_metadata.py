"""Intact pixels with damaged, oversized or hostile metadata are indexed without it."""

import io
import random
import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from imgsearch.errors import ImageError
from imgsearch.images import jpeg_end, load, media_type
from imgsearch.images.splicing import Part, splice

PNG = b"\x89PNG\r\n\x1a\n"


def photograph(mode: str = "RGB", size: tuple[int, int] = (48, 36)) -> Image.Image:
    chance = np.random.default_rng(7)
    small = Image.fromarray(chance.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC).convert(mode)


def encoded(image: Image.Image, format_: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def same_pixels(data: bytes, expected: bytes) -> bool:
    return load(data).image.tobytes() == load(expected).image.tobytes()


# PNG


def chunk(kind: bytes, data: bytes, checksum: int | None = None) -> bytes:
    if checksum is None:
        checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(PNG)
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += length + 12


def with_chunks(data: bytes, *added: bytes, last: bool = False) -> bytes:
    """Insert chunks before the first IDAT or, with `last`, before the end."""
    before = b"IEND" if last else b"IDAT"
    at = data.index(before) - 4
    return data[:at] + b"".join(added) + data[at:]


def with_checksum_of(data: bytes, kind: bytes, checksum: int = 0x12345678) -> bytes:
    parts = [chunk(name, body, checksum if name == kind else None) for name, body in chunks(data)]
    return PNG + b"".join(parts)


ANCILLARY = [
    b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"eXIf", b"acTL",
    b"fcTL", b"tRNS", b"bKGD", b"hIST", b"tIME", b"sBIT", b"sPLT", b"prVt",
]  # fmt: skip


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1"])
@pytest.mark.parametrize("kind", ANCILLARY)
def test_a_damaged_ancillary_chunk_is_ignored(kind: bytes, mode: str) -> None:
    sound = encoded(photograph(mode), "PNG")
    for last in (False, True):
        damaged = with_chunks(sound, chunk(kind, b"\0" * 8, checksum=1), last=last)
        assert same_pixels(damaged, sound)
        for length in (0, 1, 3, 5, 7):
            odd = with_chunks(sound, chunk(kind, b"\x02" * length), last=last)
            if kind == b"tRNS" and mode == "P":  # any length up to the palette's is valid
                load(odd)
            else:
                assert same_pixels(odd, sound), length


def test_oversized_texts_and_profiles_are_not_inflated() -> None:
    sound = encoded(photograph(), "PNG")
    bomb = zlib.compress(b"a" * (64 << 20), 9)
    texts = [
        chunk(b"zTXt", b"parameters\0\0" + bomb),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + bomb),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + bomb),
        chunk(b"iCCP", b"profile\0\0" + bomb),
        *[chunk(b"tEXt", b"workflow\0" + b"{}" * (1 << 20))] * 8,
    ]
    damaged = with_chunks(sound, *texts)
    tracemalloc.start()
    assert same_pixels(damaged, sound)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 40 << 20


def test_a_large_profile_is_used() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    padded = profile + random.Random(1).randbytes(1_500_000)
    padded = len(padded).to_bytes(4, "big") + padded[4:]
    sound = encoded(photograph(), "PNG")
    data = with_chunks(sound, chunk(b"iCCP", b"profile\0\0" + zlib.compress(padded)))
    load(data)


@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT"])
def test_a_wrong_checksum_in_a_critical_chunk_is_rejected(kind: bytes) -> None:
    for mode in ("RGB", "P"):
        with pytest.raises(ImageError, match="wrong checksum"):
            load(with_checksum_of(encoded(photograph(mode), "PNG"), kind))


def test_a_damaged_palette_matters_only_if_pixels_use_it() -> None:
    with pytest.raises(ImageError, match="palette"):
        load(with_checksum_of(encoded(photograph("P"), "PNG"), b"PLTE"))
    sound = encoded(photograph(), "PNG")
    assert same_pixels(with_chunks(sound, chunk(b"PLTE", bytes(9), checksum=5)), sound)


@pytest.mark.parametrize("lacking", [1, 4, 11, 12])
def test_a_png_without_its_end_is_indexed(lacking: int) -> None:
    sound = encoded(photograph(), "PNG")
    assert same_pixels(sound[:-lacking], sound)


@pytest.mark.parametrize("where", [0.3, 0.6, 0.9])
def test_a_truncated_png_is_rejected(where: float) -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64), dtype=np.uint8))
    sound = encoded(image, "PNG")
    with pytest.raises(ImageError, match="truncated"):
        load(sound[: int(len(sound) * where)])


@pytest.mark.parametrize("damage", [b"", b"\0", b"\0" * 7, b"\xff" * 8])
def test_an_animation_with_damaged_control_shows_its_first_image(damage: bytes) -> None:
    frames = [photograph(), photograph().transpose(Image.Transpose.ROTATE_180)]
    animated = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])
    assert b"acTL" in animated
    parts = [chunk(kind, damage if kind == b"acTL" else body) for kind, body in chunks(animated)]
    assert load(PNG + b"".join(parts)).image.tobytes() == frames[0].tobytes()
    assert load(animated).image.tobytes() == frames[0].tobytes()


@pytest.mark.parametrize(
    "where", ["eXIf", "late eXIf", "Raw profile type exif", "XML:com.adobe.xmp"]
)
def test_orientation_is_read_from_any_position_in_a_png(where: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    block = exif.tobytes()
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="6"/></x:xmpmeta>'
    profile = f"\nexif\n{len(block):8}\n{block.hex()}\n".encode()
    added = {
        "eXIf": chunk(b"eXIf", block[6:]),
        "late eXIf": chunk(b"eXIf", block[6:]),
        "Raw profile type exif": chunk(
            b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile)
        ),
        "XML:com.adobe.xmp": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
    }[where]
    data = with_chunks(encoded(photograph(), "PNG"), added, last=where.startswith("late"))
    loaded = load(data)
    assert (loaded.width, loaded.height) == (36, 48)


# JPEG


def segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def with_segments(data: bytes, *added: bytes) -> bytes:
    return data[:2] + b"".join(added) + data[2:]


APPLICATION = [
    segment(0xE0, b"JFIF\0"),
    segment(0xE0, b"JFIF\0\1"),
    segment(0xE1, b"Exif\0\0"),
    segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff"),
    segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\xff" * 40),
    segment(0xE1, b"http://ns.adobe.com/xap/1.0/"),
    segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"<" * 50),
    segment(0xE2, b"ICC_PROFILE\0"),
    segment(0xE2, b"ICC_PROFILE\0\1"),
    segment(0xE2, b"ICC_PROFILE\0\1\1short"),
    segment(0xE2, b"ICC_PROFILE\0\1\2half"),
    segment(0xE2, b"MPF\0"),
    segment(0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff\0"),
    segment(0xED, b"Photoshop 3.0\0"),
    segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0"),
    segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\2\0"),
    segment(0xEE, b"Adobe"),
    segment(0xEE, b"Adobe\0d\0"),
    segment(0xEB, b""),
    segment(0xFE, b""),
    segment(0xFE, b"") + b"rubbish between segments",
]


@pytest.mark.parametrize("added", APPLICATION, ids=range(len(APPLICATION)))
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_malformed_application_segments_are_ignored(mode: str, added: bytes) -> None:
    sound = encoded(photograph(mode), "JPEG", quality=95)
    damaged = with_segments(sound, added)
    assert same_pixels(damaged, sound)
    assert media_type(io.BytesIO(damaged)) == "image/jpeg"


def test_a_second_exif_block_and_trailing_garbage_change_nothing() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(photograph(), "JPEG", exif=exif)
    twice = with_segments(data, segment(0xE1, exif.tobytes())) + b"rubbish" * 1000
    loaded = load(twice)
    assert (loaded.width, loaded.height) == (36, 48)
    assert same_pixels(twice, data)


def test_a_jpeg_of_several_images_shows_its_first() -> None:
    frames = [photograph(), photograph().transpose(Image.Transpose.ROTATE_180)]
    data = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert load(data).image.tobytes() == load(encoded(frames[0], "JPEG")).image.tobytes()
    assert media_type(io.BytesIO(data)) == "image/jpeg"


# JPEGs without an end


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("restart", [0, 3])
@pytest.mark.parametrize("step", [40, pytest.param(3, marks=pytest.mark.slow)])
def test_a_jpeg_without_its_end_marker_is_indexed_and_one_that_lacks_more_is_not(
    mode: str, progressive: bool, restart: int, step: int
) -> None:
    for quality, subsampling, size in ((50, 2, (48, 36)), (95, 0, (33, 17)), (80, 1, (1, 50))):
        sound = encoded(
            photograph(mode, size), "JPEG", quality=quality, subsampling=subsampling,
            progressive=progressive, restart_marker_blocks=restart,
        )  # fmt: skip
        for tail in (b"", b"\xff"):
            assert same_pixels(sound[:-2] + tail, sound)
        for cut in range(1, len(sound) - 100, step):
            with pytest.raises(ImageError):
                load(sound[: -2 - cut])


def test_trailing_zeros_of_an_incomplete_file_are_no_pixels() -> None:
    sound = encoded(photograph(), "JPEG")
    assert same_pixels(sound[:-2] + bytes(500), sound)
    with pytest.raises(ImageError, match="truncated"):
        load(sound[: len(sound) * 2 // 3] + bytes(5000))


def test_a_jpeg_with_much_trailing_data_is_not_scanned(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("the codes were counted")

    monkeypatch.setattr(jpeg_end._Image, "_count", never)
    sound = encoded(photograph(), "JPEG", progressive=True)
    assert same_pixels(sound + b"video" * 10_000, sound)


# Spliced files


def test_a_spliced_file_reads_as_its_joined_parts() -> None:
    data = random.Random(3).randbytes(1000)
    parts: list[Part] = [(0, 10), (10, 5), b"between", (500, 0), (300, 200), b"", (100, 1)]
    whole = b"".join(
        part if isinstance(part, bytes) else data[part[0] : sum(part)] for part in parts
    )
    file = splice(io.BytesIO(data), parts)
    assert file.read() == whole
    chance = random.Random(4)
    for _ in range(200):
        at, size = chance.randrange(len(whole) + 5), chance.randrange(40)
        file.seek(at)
        assert file.read(size) == whole[at : at + size]
        assert file.tell() == max(at, min(at + size, len(whole)))
    assert file.seek(-3, io.SEEK_END) == len(whole) - 3
