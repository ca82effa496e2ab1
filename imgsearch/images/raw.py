"""Detect camera raw files from their content, and decode them with LibRaw (extra `raw`).

Most raw formats are TIFF files whose first directory holds a thumbnail of 160 x 120 pixels, which
a TIFF decoder takes for the image. A file is raw if that directory or a sub-directory holds sensor
data; other TIFF files with sub-directories (pyramids, previews) are not.
"""

import io
import os
from collections.abc import Callable
from contextlib import closing
from typing import IO, Any

from PIL import Image

from imgsearch.errors import ImageError
from imgsearch.images import tiff
from imgsearch.images.footprint import raw_decoding_bytes
from imgsearch.images.limits import check_pixels

# Formats that have a signature.
_SIGNATURES = {
    b"FUJIFILMCCD-RAW": "RAF",
    b"IIRO": "ORF",
    b"IIRS": "ORF",
    b"MMOR": "ORF",
    b"IIU\0": "RW2",
    b"\0MRM": "MRW",
    b"FOVb": "X3F",
}
# Photometric interpretations: one sample of a color filter array, and RGB as a sensor has it.
_CFA, _LINEAR = 32803, 34892
_BY_MAKER = {
    b"nikon": "NEF",
    b"sony": "ARW",
    b"pentax": "PEF",
    b"ricoh": "PEF",
    b"samsung": "SRW",
    b"hasselblad": "3FR",
    b"seiko epson": "ERF",
    b"eastman kodak": "DCR",
    b"kodak": "DCR",
    b"mamiya": "MEF",
    b"leaf": "MOS",
    b"leica": "RWL",
}
# The minimum short side in pixels of an embedded preview: a smaller one is not enough for a
# network's input and for thumbnails.
_LEAST_PREVIEW = 480
# The maximum relative difference of the aspect ratios of preview and sensor: some have black bars.
_PROPORTIONS = 0.04


def looks_raw(head: bytes) -> bool:
    """Return whether the first 32 bytes of a file have the signature of a raw format."""
    return _own_format(head) is not None


def _own_format(head: bytes) -> str | None:
    for signature, name in _SIGNATURES.items():
        if head.startswith(signature):
            return name
    if head[4:12] == b"ftypcrx ":
        return "CR3"
    if head[:2] == b"II" and head[6:14] == b"HEAPCCDR":
        return "CRW"
    return None


def raw_format(file: IO[bytes]) -> str | None:
    """Return the name of a raw file's format, such as `NEF`, or None. Rewinds the file."""
    head = file.read(32)
    try:
        return _own_format(head) or (_tiff_format(file, head) if tiff.is_tiff(head) else None)
    finally:
        file.seek(0)


def _tiff_format(file: IO[bytes], head: bytes) -> str | None:
    if head[8:10] == b"CR":
        return "CR2"
    if (head[8:12] == b"IIII" and head[13:16] == b"waR") or head[8:15] == b"MMMMRaw":
        return "IIQ"
    found = list(tiff.directories(file))
    if not any(_is_sensor_data(directory) for directory in found):
        return None
    if tiff.DNG_VERSION in found[0]:
        return "DNG"
    maker = found[0].get(tiff.MAKE, b"")
    for name, format_ in _BY_MAKER.items():
        if isinstance(maker, bytes) and maker.lower().startswith(name):
            return format_
    return "camera raw"


def _is_sensor_data(directory: tiff.Directory) -> bool:
    return directory.get(tiff.PHOTOMETRIC) in ((_CFA,), (_LINEAR,))


def decode_raw(
    file: IO[bytes], name: str, max_pixels: int, take_memory: Callable[[int], None]
) -> bytes | Image.Image:
    """Return the largest embedded preview as JPEG with EXIF orientation, or the developed image.

    A preview is the camera's own rendering, and takes a fraction of the time. The developed image
    has half the sensor's width and height. `take_memory` is called with the bytes needed before any
    pixel is decoded. Raises ImageError.
    """
    try:
        import rawpy
    except ImportError as error:
        raise ImageError(
            f"{name} (camera raw) needs an extra: pip install 'imgsearch-cli[raw]'"
        ) from error
    _check_whole(file, name)
    file.seek(0)
    try:
        opened: Any = rawpy.RawPy()
        with closing(opened) as raw:
            raw.open_buffer(file)
            sizes = raw.sizes
            check_pixels(sizes.raw_width, sizes.raw_height, max_pixels)
            take_memory(raw_decoding_bytes(sizes.raw_width, sizes.raw_height))
            return _preview(raw) or _developed(raw)
    except rawpy.LibRawError as error:
        what = "unsupported" if isinstance(error, rawpy.LibRawFileUnsupportedError) else "damaged"
        raise ImageError(f"{what} {name}: {_text(error)}") from error


def _text(error: Exception) -> str:
    text = error.args[0] if error.args else ""
    return text.decode(errors="replace") if isinstance(text, bytes) else str(text)


def _check_whole(file: IO[bytes], name: str) -> None:
    """Raise ImageError if the file is truncated, even if its preview is complete."""
    size = file.seek(0, os.SEEK_END)
    for directory in tiff.directories(file):
        for offsets, lengths in (
            (tiff.STRIP_OFFSETS, tiff.STRIP_BYTES),
            (tiff.TILE_OFFSETS, tiff.TILE_BYTES),
        ):
            pairs = zip(directory.get(offsets, ()), directory.get(lengths, ()), strict=False)
            if any(offset + length > size for offset, length in pairs):
                raise ImageError(f"damaged {name}: the file is truncated")


def _preview(raw: Any) -> bytes | None:
    import rawpy

    try:
        found = raw.extract_thumb()
    except rawpy.LibRawError:
        return None
    if found.format != rawpy.ThumbFormat.JPEG:
        return None
    try:
        with Image.open(io.BytesIO(found.data)) as image:
            width, height = image.size
            exif = image.getexif()
    except Exception:  # a damaged preview is ignored
        return None
    sizes = raw.sizes
    proportion = (width / height) / (sizes.iwidth / sizes.iheight)
    if min(width, height) < _LEAST_PREVIEW or abs(proportion - 1) > _PROPORTIONS:
        return None
    turn = {3: 3, 5: 8, 6: 6}.get(sizes.flip)
    if turn is None or 0x0112 in exif:  # the preview has an orientation
        return bytes(found.data)
    return _with_orientation(bytes(found.data), turn)


def _with_orientation(jpeg: bytes, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    block = exif.tobytes()
    return jpeg[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + jpeg[2:]


def _developed(raw: Any) -> Image.Image:
    raw.unpack()
    return Image.fromarray(raw.postprocess(half_size=True, use_camera_wb=True))
