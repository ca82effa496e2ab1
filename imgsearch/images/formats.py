"""Detect the format of a file from its content, and open it with the right Pillow plugin."""

import errno
import importlib
import linecache
import threading
import zlib
from typing import IO

from PIL import Image, ImageFile

from imgsearch.errors import ImageError
from imgsearch.images import jpeg, png
from imgsearch.images.raw import looks_raw, raw_format

# Pillow runs Ghostscript, an external program, on these.
_NEVER_OPENED = frozenset({"EPS"})

_SIGNATURES: tuple[bytes, ...] = (
    jpeg.SIGNATURE,
    png.SIGNATURE,
    b"GIF87a",
    b"GIF89a",
    b"II*\0",  # TIFF, both byte orders, and BigTIFF
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
    b"\0\0\0\x0cjP  \r\n\x87\n",  # JPEG 2000
    b"\xff\x4f\xff\x51",  # JPEG 2000 codestream
    b"8BPS\0\x01",  # Photoshop
    b"qoif",
    b"DDS ",
    b"icns",
)
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_BMP_HEADER_SIZES = frozenset({12, 40, 52, 56, 64, 108, 124})


def looks_like_an_image(head: bytes) -> bool:
    """Return whether the first 32 bytes of a file have the signature of a common image format."""
    if head.startswith(_SIGNATURES):
        return True
    if looks_raw(head):
        return True
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    if head[4:8] == b"ftyp":
        return head[8:12] in _HEIF_BRANDS | _AVIF_BRANDS
    # Texts may start with "BM" as well: check the size of the header that follows.
    return head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES


# Words in Pillow's messages for images that may be intact, but that it has no decoder for.
_UNSUPPORTED = ("unsupported", "not supported", "unknown", "not available", "cannot find loader")


def open_image(file: IO[bytes], verify: bool = False) -> ImageFile.ImageFile:
    """Open a file by its content, without metadata that its pixels do not depend on.

    With `verify`, reads the file and checks the checksums of its pixels. Unlike `Image.open`, it
    ignores Pillow's process-wide pixel limit. Raises ImageError.
    """
    head = file.read(32)
    if not head:
        raise ImageError("the file is empty")
    if head.startswith(png.SIGNATURE):
        container = png.without_metadata(file)
    elif head.startswith(jpeg.SIGNATURE):
        container = jpeg.without_metadata(file)
    else:
        return _open(file, head)
    if verify:
        container.verify()
    image = _open(container.file, head)
    image.info.update(container.info)
    return image


def _open(file: IO[bytes], head: bytes) -> ImageFile.ImageFile:
    _register_format(head)
    signed = looks_like_an_image(head)
    problem = ""
    for name, (factory, accept) in list(Image.OPEN.items()):
        accepted: bool | str = False
        # Formats without a signature would accept a damaged JPEG.
        if signed and accept is None:
            continue
        try:
            accepted = accept(head[:16]) if accept else True
            if accepted and name in _NEVER_OPENED:
                raise ImageError(f"{name} is not supported: decoding it would run another program")
            if isinstance(accepted, str):
                problem = problem or accepted
            elif accepted:
                file.seek(0)
                return factory(file, "")
        except (ImageError, MemoryError):
            raise
        # A format's header parser, or even its signature check, may raise anything.
        except Exception as error:
            if accept and accepted:
                problem = problem or damage(name, error)
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS and "HEIF" not in Image.OPEN:
        raise ImageError("HEIC needs an extra: pip install 'imgsearch-cli[heic]'")
    raise ImageError(problem or "not an image of a known format")


_formats_registered = False
_formats_lock = threading.Lock()


# The most common formats by their signatures; one import makes each known.
_COMMON = {
    jpeg.SIGNATURE: "PIL.JpegImagePlugin",
    png.SIGNATURE: "PIL.PngImagePlugin",
}


def _register_format(head: bytes) -> None:
    """Register the format of a file by its head, or all formats, which takes 0.1 s once."""
    for signature, module in _COMMON.items():
        if head.startswith(signature):
            importlib.import_module(module)
            return
    register_all_formats()


def register_all_formats() -> None:
    """Register all formats, including HEIC if its extra is installed. Later calls do nothing."""
    global _formats_registered
    with _formats_lock:  # the first calls come from several threads at once
        if _formats_registered:
            return
        Image.init()
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            pass
        else:
            register_heif_opener()
        _formats_registered = True


def media_type(file: IO[bytes]) -> str:
    """Return the media type of an image file, such as `image/jpeg`, detected from its content.

    Reads the header only and rewinds the file. Raises ImageError if the file is not an image, and
    OSError if it cannot be read.
    """
    if raw := raw_format(file):
        return f"image/x-{raw.lower().replace(' ', '-')}"
    name = open_image(file).format or ""
    file.seek(0)
    return Image.MIME.get(name, "application/octet-stream")


def damage(format_: str, error: Exception) -> str:
    """Return a readable reason for an exception of a decoder."""
    text = reason(error)
    if isinstance(error, Image.DecompressionBombError):
        return f"{format_}: {text}"
    # Pillow's text for an invalid header, and its way to pass on other exceptions.
    if text == "not identified by this driver" or (
        isinstance(error, SyntaxError) and error.args and isinstance(error.args[0], Exception)
    ):
        text = "its header cannot be read"
    elif not _said_by_decoder(error):
        text = "its content cannot be read"
    unsupported = any(word in text.lower() for word in _UNSUPPORTED)
    return f"{'unsupported' if unsupported else 'damaged'} {format_}: {text}"


def _said_by_decoder(error: Exception) -> bool:
    """Return whether a decoder raised the error deliberately, not Python within its code."""
    if isinstance(error, OSError):
        return error.errno != errno.EINVAL  # a negative seek position
    if isinstance(error, (SyntaxError, RuntimeError, zlib.error)):
        return not isinstance(error, RecursionError)
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None:
        return False
    line = linecache.getline(last.tb_frame.f_code.co_filename, last.tb_lineno)
    return line.strip().startswith("raise ")


def reason(error: BaseException) -> str:
    """Return the text of an error in one line of at most 200 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
