"""Which format a file has, by its content, and the Pillow plugin that opens it."""

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

# Pillow runs Ghostscript, an external program, on these; a picture index never should.
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


def looks_like_a_picture(head: bytes) -> bool:
    """Whether a file's first 32 bytes are those of a usual picture format."""
    if head.startswith(_SIGNATURES):
        return True
    if looks_raw(head):
        return True
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    if head[4:8] == b"ftyp":
        return head[8:12] in _HEIF_BRANDS | _AVIF_BRANDS
    # "BM" begins many a text as well: the size of the header that follows decides.
    return head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES


# Words of Pillow's for a picture that may be sound, but that it has no decoder for.
_UNSUPPORTED = ("unsupported", "not supported", "unknown", "not available", "cannot find loader")


def open_image(file: IO[bytes], verify: bool = False) -> ImageFile.ImageFile:
    """Open a file by its content, without metadata that its pixels do not depend on.

    `verify` checks the checksums of its pixels, for which all of them are read. Unlike `Image.open`
    it obeys no pixel limit, which is a setting of the whole process. Raises ImageError.
    """
    head = file.read(32)
    if not head:
        raise ImageError("the file is empty")
    if head.startswith(png.SIGNATURE):
        container = png.take_apart(file)
    elif head.startswith(jpeg.SIGNATURE):
        container = jpeg.take_apart(file)
    else:
        return _open(file, head)
    if verify:
        container.verify()
    image = _open(container.file, head)
    image.info.update(container.info)
    return image


def _open(file: IO[bytes], head: bytes) -> ImageFile.ImageFile:
    _know_formats(head)
    signed = looks_like_a_picture(head)
    problem = ""
    for name, (factory, accept) in list(Image.OPEN.items()):
        accepted: bool | str = False
        # Formats without a signature of their own would see a picture in a damaged JPEG.
        if signed and accept is None:
            continue
        try:
            accepted = accept(head[:16]) if accept else True
            if accepted and name in _NEVER_OPENED:
                raise ImageError(f"{name} is not decoded: another program would have to run")
            if isinstance(accepted, str):
                problem = problem or accepted
            elif accepted:
                file.seek(0)
                return factory(file, "")
        except (ImageError, MemoryError):
            raise
        # Whatever a format's header parser, or even its look at the signature, stumbles over.
        except Exception as error:
            if accept and accepted:
                problem = problem or damage(name, error)
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS and "HEIF" not in Image.OPEN:
        raise ImageError("HEIC needs an extra: pip install 'imgsearch-cli[heic]'")
    raise ImageError(problem or "not a picture of any known format")


_formats_known = False
_formats_lock = threading.Lock()


# The most common formats by their signatures; one import makes each known.
_COMMON = {
    jpeg.SIGNATURE: "PIL.JpegImagePlugin",
    png.SIGNATURE: "PIL.PngImagePlugin",
}


def _know_formats(head: bytes) -> None:
    """Register the format of a file that begins so, or all of them, which takes 0.1 s, once."""
    for signature, module in _COMMON.items():
        if head.startswith(signature):
            importlib.import_module(module)
            return
    know_all_formats()


def know_all_formats() -> None:
    """Register every format once; HEIC too, where its extra is installed."""
    global _formats_known
    with _formats_lock:  # the first calls come from several threads at once
        if _formats_known:
            return
        Image.init()
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            pass
        else:
            register_heif_opener()
        _formats_known = True


def media_type(file: IO[bytes]) -> str:
    """The media type of an image file, such as `image/jpeg`, detected from its content.

    Only its header is read; the file is at its beginning again. Raises ImageError for a file that
    is no image, OSError for one that cannot be read.
    """
    if raw := raw_format(file):
        return f"image/x-{raw.lower().replace(' ', '-')}"
    name = open_image(file).format or ""
    file.seek(0)
    return Image.MIME.get(name, "application/octet-stream")


def damage(format_: str, error: Exception) -> str:
    """A decoder's complaint as a reason that a person can read."""
    text = reason(error)
    if isinstance(error, Image.DecompressionBombError):
        return f"{format_}: {text}"
    # Pillow's words for a header that makes no sense; and its way to pass on what Python raised.
    if text == "not identified by this driver" or (
        isinstance(error, SyntaxError) and error.args and isinstance(error.args[0], Exception)
    ):
        text = "its header cannot be read"
    elif not _said_by_decoder(error):
        text = "its content cannot be read"
    unsupported = any(word in text.lower() for word in _UNSUPPORTED)
    return f"{'unsupported' if unsupported else 'damaged'} {format_}: {text}"


def _said_by_decoder(error: Exception) -> bool:
    """Whether the words are a decoder's own, not what Python says of a slip in its code."""
    if isinstance(error, OSError):
        return error.errno != errno.EINVAL  # of a seek to before the beginning
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
    """An error's text, in one line of bounded length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
