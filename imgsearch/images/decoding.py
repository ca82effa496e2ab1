"""Decode a file to RGB pixels: size limits, reduced decoding of JPEGs, orientation.

Every exception of a decoder becomes an ImageError whose message is the reason, so that one bad file
never ends a run.
"""

import io
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import IO, Any, BinaryIO

import numpy as np
from PIL import Image, ImageFile

from imgsearch.config import DEFAULT_MAX_PIXELS
from imgsearch.errors import ImageError
from imgsearch.images.colors import to_rgb
from imgsearch.images.depth import raw_mode, with_lower_bytes
from imgsearch.images.files import open_file
from imgsearch.images.footprint import decoding_bytes, rgb_bytes
from imgsearch.images.formats import damage, open_image, reason
from imgsearch.images.limits import check_pixels
from imgsearch.images.preprocessing import DECODING, Loaded, Pixels, Preprocessing, fit
from imgsearch.images.raw import decode_raw, raw_format
from imgsearch.images.regions import Region
from imgsearch.system import memory
from imgsearch.system.memory import Lease

Source = str | bytes | BinaryIO | Image.Image
"""An image: the path of its file, the file's bytes, the open file, or a Pillow image."""

# A JPEG is decoded at a half, quarter or eighth of its size as long as the result is at least this
# many times the network's scale, so that the resize that follows has enough pixels. With 4, vectors
# of efficientnet-lite0 have a cosine of at least 0.994 with those of the full image (0.999 on
# average), and decoding takes at most half the time; with 2 it is 0.973, in a third of the time.
# Measured by benchmarks/draft_mode.py at 8 to 17 megapixels, 40 images each, with as much noise
# (4 of 255) as a camera makes in poor light.
DRAFT_MARGIN = 4
DRAFT_COSINE = 0.99

# The transposition for each value of the EXIF orientation. Pillow's `exif_transpose` fails when it
# cannot rewrite the rest of the EXIF block.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = frozenset(_TURNS[value] for value in (5, 6, 7, 8))
# Transpositions that move the file's right edge to the left, or its lower edge to the top.
_FROM_THE_RIGHT = frozenset(_TURNS[value] for value in (2, 3, 6, 7))
_FROM_BELOW = frozenset(_TURNS[value] for value in (3, 4, 7, 8))


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An image ready for the encoder: `pixels` is uint8 of shape (size, size, 3), RGB.

    `width` and `height` are those of the full image in the file, after orientation.
    """

    pixels: Pixels
    width: int
    height: int


def decode(
    source: Source,
    preprocessing: Preprocessing,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    region: Region | None = None,
) -> DecodedImage:
    """Decode and preprocess an image, or a region of it.

    Large JPEGs are decoded at reduced size (see `DRAFT_MARGIN`). Raises ImageError, and
    UsageError for a region outside the image.
    """
    enough = None if region else DRAFT_MARGIN * preprocessing.short_side
    with memory.lease() as lease:
        return _decode(source, preprocessing, enough, max_pixels, region, lease)


def _decode(
    source: Source,
    preprocessing: Preprocessing,
    enough: int | None,
    max_pixels: int,
    region: Region | None,
    lease: Lease,
) -> DecodedImage:
    """Decode. A separate function, so that the image is freed before the lease ends."""
    loaded = load(source, enough, max_pixels, lease, preprocessing.decoding)
    shown = loaded
    if region:
        part = loaded.image.crop(region.box(loaded.width, loaded.height))
        shown = Loaded(part, part.width, part.height)
    try:
        square = fit(shown, preprocessing)
    except (MemoryError, ValueError, OSError) as error:
        raise ImageError(f"cannot be resized: {reason(error)}") from error
    return DecodedImage(np.asarray(square, dtype=np.uint8), loaded.width, loaded.height)


def load(
    source: Source,
    enough: int | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    lease: Lease | None = None,
    decoding: int = DECODING,
) -> Loaded:
    """Decode an image. Raises ImageError.

    A JPEG may be decoded at a reduced size, but with no side under `enough` pixels. Waits for
    memory while other threads decode; the memory belongs to `lease` if given, else it is released
    on return. `decoding` is the version of `Preprocessing`.
    """
    if lease is None:
        with memory.lease() as own:
            return load(source, enough, max_pixels, own, decoding)
    try:
        if isinstance(source, Image.Image):
            return _decoded(source, None, max_pixels, lease, decoding)
        with _opened(source) as file:
            if name := raw_format(file):
                return _load_raw(file, name, enough, max_pixels, lease, decoding)
            # Not bound to a variable, so that the reader's memory is freed as soon as possible.
            return _decoded(
                open_image(file, verify=True),
                enough,
                max_pixels,
                lease,
                decoding,
                reopen=lambda: _reopened(file),
            )
    except OSError as error:
        raise ImageError(error.strerror or str(error)) from error
    except MemoryError as error:
        raise ImageError("not enough memory to decode it") from error


def _opened(source: str | bytes | BinaryIO) -> AbstractContextManager[IO[bytes]]:
    """Open a source; a file that is open already stays open."""
    if isinstance(source, bytes):
        return io.BytesIO(source)
    return open_file(source) if isinstance(source, str) else nullcontext(source)


def _reopened(file: IO[bytes]) -> ImageFile.ImageFile:
    file.seek(0)
    image = open_image(file)
    _allocate_pixels(image)
    return image


def _load_raw(
    file: IO[bytes],
    name: str,
    enough: int | None,
    max_pixels: int,
    lease: Lease,
    decoding: int,
) -> Loaded:
    with memory.lease() as own:
        found = decode_raw(file, name, max_pixels, own.take)
    if isinstance(found, bytes):
        return load(found, enough, max_pixels, lease, decoding)
    lease.take(rgb_bytes(found))
    return Loaded(found, found.width, found.height)


def _reserve(image: Image.Image, whole: tuple[int, int], lease: Lease) -> None:
    """Wait for the memory that decoding takes. Raises ImageError if it exceeds the total."""
    need = decoding_bytes(image, whole)
    if need > (most := memory.most_for_one_image()):
        raise ImageError(
            f"{whole[0]} x {whole[1]} pixels of {image.format or image.mode} take about "
            f"{need / 1e9:.1f} GB of memory to decode; {most / 1e9:.1f} GB are available"
        )
    lease.take(need)


def _decoded(
    image: Image.Image,
    enough: int | None,
    max_pixels: int,
    lease: Lease,
    decoding: int,
    reopen: Callable[[], ImageFile.ImageFile] | None = None,
) -> Loaded:
    """Load an opened image as RGB. With `reopen`, the image may be modified.

    Raises ImageError or MemoryError.
    """
    check_pixels(image.width, image.height, max_pixels)
    scale = 1.0
    whole, format_, mode = image.size, image.format, raw_mode(image)
    try:
        # Only JPEG: the draft of HEIC is an embedded thumbnail, which may show anything.
        if enough is not None and format_ == "JPEG":
            draft = image.draft(image.mode, (enough, enough))
            scale = whole[0] / draft[1][2] if draft else 1.0
        _reserve(image, whole, lease)
        _allocate_pixels(image)
        image.load()
        turn = _TURNS.get(_orientation(image))
        if decoding > 1 and reopen is not None:
            image = with_lower_bytes(image, mode, reopen)
        rgb = to_rgb(image, decoding, expendable=reopen is not None)
        del image
        if turn is not None:
            rgb = rgb.transpose(turn)
    except (ImageError, MemoryError):
        raise
    # Decoders raise almost anything on damaged input: OSError, SyntaxError, struct.error,
    # IndexError, zlib.error, DecompressionBombError (not an OSError) and more.
    except Exception as error:
        raise ImageError(damage(format_ or "image", error)) from error
    if scale == 1.0:
        return Loaded(rgb, rgb.width, rgb.height)
    width, height = whole if turn not in _SIDEWAYS else (whole[1], whole[0])
    # Padding on the right and at the bottom moves with the transposition.
    left = rgb.width - width / scale if turn in _FROM_THE_RIGHT else 0.0
    top = rgb.height - height / scale if turn in _FROM_BELOW else 0.0
    return Loaded(rgb, width, height, scale, left, top)


def _allocate_pixels(image: Image.Image) -> None:
    """Allocate a TIFF's pixels before Pillow does, which applies the process-wide pixel limit.

    Uses internals of Pillow if they are there; otherwise that limit applies.
    """
    if image.format == "TIFF" and getattr(image, "_im", image) is None:
        core: Any = getattr(Image, "core")  # noqa: B009
        image.im = core.new(image.mode, getattr(image, "_tile_size", image.size))


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of a loaded image: some formats store EXIF after the pixels."""
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # the pixels are usable without EXIF
        return 1
