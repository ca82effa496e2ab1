"""One picture: told by its first bytes, fingerprinted, decoded safely, oriented, preprocessed.

Pillow does the decoding. Whatever a decoder raises on a damaged file becomes an ImageError, whose
message is the reason, so that one bad file never ends a run.
"""

import base64
import hashlib
import importlib
import io
import math
import os
import stat
import threading
from dataclasses import dataclass
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from imgsearch.config import DEFAULT_MAX_PIXELS
from imgsearch.errors import ImageError, UsageError

Pixels = NDArray[np.uint8]
Source = str | bytes | Image.Image
"""A picture: the path of its file, the file's bytes, or as Pillow has it."""

# Files up to this size are kept in memory between fingerprint and decoding; larger ones are
# opened again, so that a queue of large pictures cannot fill the memory.
KEEP_BYTES = 4 << 20

# Pillow runs Ghostscript, an external program, on these; a picture index never should.
_NEVER_OPENED = frozenset({"EPS"})

_SIGNATURES: tuple[bytes, ...] = (
    b"\xff\xd8\xff",  # JPEG, MPO
    b"\x89PNG\r\n\x1a\n",
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
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    if head[4:8] == b"ftyp":
        return head[8:12] in _HEIF_BRANDS | _AVIF_BRANDS
    # "BM" begins many a text as well: the size of the header that follows decides.
    return head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A file as it was read: SHA-256 in hexadecimal, size in bytes, mtime in ns."""

    sha256: str
    size: int
    mtime_ns: int
    data: bytes | None
    """The file's bytes, or None for one larger than `KEEP_BYTES`."""


_CHANGED = "the file changed while it was read; the next run will take it"


def fingerprint(path: str) -> Fingerprint:
    """Read a file once. Raises ImageError if it cannot be read, is empty, or changes meanwhile."""
    try:
        with open_file(path) as file:
            before = os.fstat(file.fileno())
            # One byte more than there should be, so that a file that grows cannot fill the memory.
            data = file.read(before.st_size + 1) if before.st_size <= KEEP_BYTES else None
            if data is None:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            else:
                digest = hashlib.sha256(data).hexdigest()
            after = os.fstat(file.fileno())
    except OSError as error:
        raise ImageError(error.strerror or str(error)) from error
    if before.st_size == 0:
        raise ImageError("the file is empty")
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise ImageError(_CHANGED)
    return Fingerprint(digest, before.st_size, before.st_mtime_ns, data)


def open_file(path: str) -> io.BufferedReader:
    """Open a file, and nothing else: a pipe would wait for a writer. Raises OSError, ImageError."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ImageError("not a regular file")
    return open(path, "rb")


def check_unchanged(path: str, known: Fingerprint) -> None:
    """Raises ImageError if a file is not, by size and time, the one that was fingerprinted."""
    try:
        now = os.stat(path)
    except OSError as error:
        raise ImageError(error.strerror or str(error)) from error
    if (now.st_size, now.st_mtime_ns) != (known.size, known.mtime_ns):
        raise ImageError(_CHANGED)


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """From a picture of any size to a network's input.

    With `crop_fraction`, as in TensorFlow: the centre square of that part of the short side is
    cut out, then resized to `size`. Else, as in torchvision: the short side is resized to
    `resize`, then the centre square of `size` is cut out. `mean` and `std` are for values in
    [0, 1] and are applied by the encoder.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bilinear", "bicubic"]
    resize: int | None = None
    crop_fraction: float | None = None

    def describe(self) -> str:
        """The form in which a collection's stamp holds it. A change of any step changes it."""
        if self.crop_fraction is not None:
            shape = f"crop {self.crop_fraction:g}, resize {self.size}"
        else:
            shape = f"resize {self.resize}, crop {self.size}"
        mean = " ".join(f"{value:g}" for value in self.mean)
        std = " ".join(f"{value:g}" for value in self.std)
        return f"{shape}, {self.interpolation}, mean {mean}, std {std}, {DECODING}"

    @property
    def short_side(self) -> int:
        """Pixels of the whole picture's short side at the network's scale."""
        if self.crop_fraction is not None:
            return round(self.size / self.crop_fraction)
        return self.resize or self.size


# How pixels come from a file (see `decode`); part of every stamp.
DECODING = "decode 1"

# A JPEG is decoded at a half, quarter or eighth of its size as long as the result is still this
# many times the network's own scale, so that the resize that follows has enough to work from.
# With 4, vectors of efficientnet-lite0 have a cosine of at least 0.994 with those of the whole
# picture (0.999 on average) and decoding takes half the time or less; with 2 it would be 0.973,
# and a third of the time. Measured by benchmarks/draft_mode.py at 8 to 17 megapixels, 40
# photographs each, with as much noise (4 of 255) as a camera makes in poor light.
DRAFT_MARGIN = 4
DRAFT_COSINE = 0.99

# Pictures longer than this many times their short side are cut before they are resized.
_LONGEST = 16

_DRAFT_FORMATS = frozenset({"JPEG", "MPO"})

# What to do for each value of EXIF's orientation. Done here rather than by Pillow's
# `exif_transpose`, which gives up when it cannot write the rest of the EXIF block anew.
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
# Those after which the file's right or lower edge is the picture's left, or its upper one.
_FROM_THE_RIGHT = frozenset(_TURNS[value] for value in (2, 3, 6, 7))
_FROM_BELOW = frozenset(_TURNS[value] for value in (3, 4, 7, 8))

# Words of Pillow's for a picture that may be sound, but that it has no decoder for.
_UNSUPPORTED = ("unsupported", "not supported", "unknown", "not available", "cannot find loader")

_RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture: `pixels` is uint8 of shape (size, size, 3), RGB, ready for the encoder.

    `width` and `height` are those of the whole picture in the file, oriented.
    """

    pixels: Pixels
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle in a picture as it is seen, upright, from its upper left corner on.

    In pixels, or in fractions of the picture's width and height. What is beyond the picture is
    left out.
    """

    left: float
    top: float
    right: float
    bottom: float
    unit: Literal["pixels", "fractions"] = "pixels"

    def box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """In whole pixels of a picture. Raises UsageError if no pixel is inside."""
        across, down = (width, height) if self.unit == "fractions" else (1, 1)
        edges = (self.left * across, self.top * down, self.right * across, self.bottom * down)
        if all(map(math.isfinite, edges)):
            left, top = max(0, math.floor(edges[0])), max(0, math.floor(edges[1]))
            right, bottom = min(width, math.ceil(edges[2])), min(height, math.ceil(edges[3]))
            if left < right and top < bottom:
                return left, top, right, bottom
        raise UsageError(
            f"the region from ({self.left:g}, {self.top:g}) to ({self.right:g}, {self.bottom:g}) "
            f"in {self.unit} holds nothing of a picture of {width} x {height} pixels"
        )


def decode(
    source: Source,
    preprocessing: Preprocessing,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    region: Region | None = None,
) -> Picture:
    """Decode a picture, or a region of it as if it were the whole, for a network.

    Large JPEGs are decoded at reduced size (see `DRAFT_MARGIN`). Raises ImageError, and
    UsageError for a region that holds nothing.
    """
    enough = None if region else DRAFT_MARGIN * preprocessing.short_side
    loaded = load(source, enough, max_pixels)
    shown = loaded
    if region:
        part = loaded.image.crop(region.box(loaded.width, loaded.height))
        shown = Loaded(part, part.width, part.height)
    try:
        square = fit(shown, preprocessing)
    except (MemoryError, ValueError, OSError) as error:
        raise ImageError(f"cannot be resized: {_reason(error)}") from error
    return Picture(np.asarray(square, dtype=np.uint8), loaded.width, loaded.height)


@dataclass(frozen=True, slots=True)
class Loaded:
    """An RGB picture, oriented and over white.

    `width` and `height` are those of the whole picture in the file, oriented. `image` is smaller
    by the factor `scale`, and its last pixels may reach over the whole's edge: so the whole lies
    in it from (`left`, `top`), in pixels of `image`, on.
    """

    image: Image.Image
    width: int
    height: int
    scale: float = 1.0
    left: float = 0.0
    top: float = 0.0

    def box(self, left: float, top: float, right: float, bottom: float) -> "_Box":
        """A part of the whole picture, in pixels of `image`."""
        return (
            self.left + left / self.scale,
            self.top + top / self.scale,
            self.left + right / self.scale,
            self.top + bottom / self.scale,
        )


_Box = tuple[float, float, float, float]


def fit(loaded: Loaded, preprocessing: Preprocessing) -> Image.Image:
    """The centre square at the network's size.

    All is reckoned in pixels of the whole picture, so that a reduced one gives the same square:
    a shift by a part of a pixel moves a vector more than the reduction itself does.
    """
    width, height = loaded.width, loaded.height
    size = preprocessing.size
    filter_ = _RESAMPLING[preprocessing.interpolation]
    if preprocessing.crop_fraction is not None:
        # `decode_and_center_crop` of TensorFlow's EfficientNet: whole pixels, rounded this way.
        side = max(1, int(preprocessing.crop_fraction * min(width, height)))
        left, top = (width - side + 1) // 2, (height - side + 1) // 2
        box = loaded.box(left, top, left + side, top + side)
        return _cut_and_resize(loaded.image, box, (size, size), filter_)
    # torchvision's Resize and CenterCrop, with the same rounding.
    short = preprocessing.resize or size
    if width <= height:
        whole = (short, int(short * height / width))
    else:
        whole = (int(short * width / height), short)
    left, top = round((whole[0] - size) / 2.0), round((whole[1] - size) / 2.0)
    if max(whole) <= _LONGEST * short:
        resized = loaded.image.resize(whole, filter_, box=loaded.box(0, 0, width, height))
        return resized.crop((left, top, left + size, top + size))
    # The same square without making the rest: a picture of 10,000 x 1 would need gigabytes.
    scale = min(width, height) / short
    box = loaded.box(left * scale, top * scale, (left + size) * scale, (top + size) * scale)
    return loaded.image.resize((size, size), filter_, box=box)


def _cut_and_resize(
    image: Image.Image,
    box: tuple[float, float, float, float],
    size: tuple[int, int],
    filter_: Image.Resampling,
) -> Image.Image:
    """Resize a part of a picture as if there were nothing around it.

    `resize(box=...)` alone lets the filter reach for pixels beyond the box.
    """
    left, top = math.floor(box[0]), math.floor(box[1])
    right, bottom = min(image.width, math.ceil(box[2])), min(image.height, math.ceil(box[3]))
    inner = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
    return image.crop((left, top, right, bottom)).resize(size, filter_, box=inner)


def load(source: Source, enough: int | None = None, max_pixels: int = DEFAULT_MAX_PIXELS) -> Loaded:
    """Decode a picture. Raises ImageError.

    A JPEG may come back smaller, but with no side under `enough` pixels.
    """
    try:
        if isinstance(source, Image.Image):
            _check_pixels(source, max_pixels)
            return _decoded(source, None)
        with io.BytesIO(source) if isinstance(source, bytes) else open_file(source) as file:
            image = _open(file)
            _check_pixels(image, max_pixels)
            return _decoded(image, enough)
    except OSError as error:
        raise ImageError(error.strerror or str(error)) from error
    except MemoryError as error:
        raise ImageError("not enough memory to decode it") from error


def media_type(file: IO[bytes]) -> str:
    """What a picture's file is, told by its content, as `image/jpeg`.

    Only its header is read; the file is at its beginning again. Raises ImageError for a file that
    is no picture, OSError for one that cannot be read.
    """
    name = _open(file).format or ""
    file.seek(0)
    if name == "MPO":  # a JPEG with more behind it, as many cameras write them
        name = "JPEG"
    return Image.MIME.get(name, "application/octet-stream")


def thumbnail(source: Source, side: int, max_pixels: int = DEFAULT_MAX_PIXELS) -> bytes:
    """A WebP thumbnail of at most `side` pixels. Raises ImageError."""
    image = load(source, side, max_pixels).image
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80)
    return buffer.getvalue()


def _check_pixels(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise ImageError(
            f"{image.width} x {image.height} pixels are more than the limit of {max_pixels:,} "
            "(--max-pixels)"
        )


def _open(file: IO[bytes]) -> ImageFile.ImageFile:
    """`Image.open` without its pixel limit, which is a setting of the whole process."""
    head = file.read(32)
    if not head:
        raise ImageError("the file is empty")
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
                problem = problem or _damage(name, error)
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS and "HEIF" not in Image.OPEN:
        raise ImageError("HEIC needs an extra: pip install 'imgsearch-cli[heic]'")
    raise ImageError(problem or "not a picture of any known format")


_formats_known = False
_formats_lock = threading.Lock()


# The formats that most pictures have, each told by how its files begin, and known by one import.
_COMMON = {
    b"\xff\xd8\xff": "PIL.JpegImagePlugin",
    b"\x89PNG\r\n\x1a\n": "PIL.PngImagePlugin",
}


def _know_formats(head: bytes) -> None:
    """Register the format of a file that begins so, or all of them, which takes 0.1 s, once."""
    for signature, module in _COMMON.items():
        if head.startswith(signature):
            importlib.import_module(module)
            return
    _know_all_formats()


def _know_all_formats() -> None:
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


def _decoded(image: Image.Image, enough: int | None) -> Loaded:
    """Raises ImageError or MemoryError."""
    scale = 1.0
    try:
        # Only JPEG: HEIC's draft is an embedded thumbnail, which may show anything.
        if enough is not None and image.format in _DRAFT_FORMATS:
            whole = image.size
            if draft := image.draft(image.mode, (enough, enough)):
                scale = whole[0] / draft[1][2]
        _make_room(image)
        image.load()
        turn = _TURNS.get(_orientation(image))
        rgb = _to_rgb(image)
        if turn is not None:
            rgb = rgb.transpose(turn)
    except (ImageError, MemoryError):
        raise
    # Decoders raise nearly anything on damaged input: OSError, SyntaxError, struct.error,
    # IndexError, zlib.error, DecompressionBombError (no OSError) and more.
    except Exception as error:
        raise ImageError(_damage(image.format or "picture", error)) from error
    if scale == 1.0:
        return Loaded(rgb, rgb.width, rgb.height)
    width, height = whole if turn not in _SIDEWAYS else (whole[1], whole[0])
    # What reaches over the edge on the right and at the bottom goes with the turn.
    left = rgb.width - width / scale if turn in _FROM_THE_RIGHT else 0.0
    top = rgb.height - height / scale if turn in _FROM_BELOW else 0.0
    return Loaded(rgb, width, height, scale, left, top)


def _make_room(image: Image.Image) -> None:
    """Give a TIFF its memory before Pillow does, which would ask the process's own pixel limit."""
    if image.format == "TIFF" and image._im is None:
        core: Any = getattr(Image, "core")  # noqa: B009
        image.im = core.new(image.mode, getattr(image, "_tile_size", image.size))


def _damage(format_: str, error: Exception) -> str:
    """A decoder's complaint as a reason that a person can read."""
    text = _reason(error)
    if isinstance(error, Image.DecompressionBombError):
        return f"{format_}: {text}"
    if text == "not identified by this driver":  # Pillow's words for a header that makes no sense
        text = "its header cannot be read"
    unsupported = any(word in text.lower() for word in _UNSUPPORTED)
    return f"{'unsupported' if unsupported else 'damaged'} {format_}: {text}"


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


def _orientation(image: Image.Image) -> int:
    """After loading, because some formats have their EXIF block behind the pixels."""
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # damaged EXIF says nothing about the pixels
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB: transparency over white, 16 bits and floats scaled, inks by profile."""
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_to_eight_bits(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGB", rgba.size, "white")
        white.paste(rgba, mask=rgba)
        return white
    if image.mode == "CMYK":
        return _cmyk_to_rgb(image)
    if image.mode == "LAB":
        from PIL import ImageCms

        return _through_profiles(image, ImageCms.createProfile("LAB"))
    return image.convert("RGB")


def _to_eight_bits(values: NDArray[Any]) -> Pixels:
    """Grey values of more than 8 bits to 8.

    Integers are taken as 16 bits wide unless all of them fit into 8; floats as 0 to 1 or 0 to
    255, whichever holds them all; what fits neither is stretched from its least to its greatest.
    """
    kind, width = values.dtype.kind, values.dtype.itemsize
    grey = values.astype(np.float32)
    np.nan_to_num(grey, copy=False, posinf=0.0, neginf=0.0)
    low, high = float(grey.min()), float(grey.max())
    if (kind == "u" and width == 2) or (kind == "i" and low >= 0 and 255 < high < 65536):
        grey /= 257.0
    elif kind == "f" and low >= 0 and high <= 1.0:
        grey *= 255.0
    elif low < 0 or high > 255.0:
        scale = 255.0 / (high - low) if high > low else 0.0
        grey *= scale
        grey -= low * scale
    np.rint(grey, out=grey)
    return grey.astype(np.uint8)


def _cmyk_to_rgb(image: Image.Image) -> Image.Image:
    """By the embedded ink profile where there is one: without it, colours are only a guess."""
    if profile := image.info.get("icc_profile"):
        from PIL import ImageCms

        try:
            return _through_profiles(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)))
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass  # a damaged profile is as good as none
    return image.convert("RGB")


def _through_profiles(image: Image.Image, profile: Any) -> Image.Image:
    from PIL import ImageCms  # only here and above, as few pictures need its library

    converted = ImageCms.profileToProfile(
        image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    if converted is None:  # only with inPlace=True
        raise ImageError("its colours cannot be converted")
    return converted


def thumbnail_data_uri(
    source: Source, side: int = 320, max_pixels: int = DEFAULT_MAX_PIXELS
) -> str:
    """A WebP thumbnail of at most `side` pixels as a `data:` URI. Raises ImageError."""
    encoded = base64.b64encode(thumbnail(source, side, max_pixels)).decode()
    return f"data:image/webp;base64,{encoded}"
