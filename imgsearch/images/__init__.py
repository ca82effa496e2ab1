"""Detect, fingerprint, decode and preprocess one image at a time.

`files` reads and fingerprints files, `formats` detects and opens them, `decoding` returns RGB
pixels (with `colors`, `depth` and `profiles`), `preprocessing` turns them into a network's input.
Pillow decodes all formats but camera raw, which LibRaw decodes.
"""

from imgsearch.images.decoding import (
    DRAFT_COSINE,
    DRAFT_MARGIN,
    DecodedImage,
    Source,
    decode,
    load,
)
from imgsearch.images.files import (
    ChangedError,
    Fingerprint,
    Version,
    check_unchanged,
    fingerprint,
    open_file,
    open_original,
    read_original,
    version_at,
    version_of,
)
from imgsearch.images.formats import looks_like_an_image, media_type
from imgsearch.images.preprocessing import DECODING, DECODINGS, Loaded, Pixels, Preprocessing, fit
from imgsearch.images.regions import Region
from imgsearch.images.thumbnails import small_of, thumbnail, thumbnail_data_uri, thumbnail_of

__all__ = [
    "DECODING",
    "DECODINGS",
    "DRAFT_COSINE",
    "DRAFT_MARGIN",
    "ChangedError",
    "DecodedImage",
    "Fingerprint",
    "Loaded",
    "Pixels",
    "Preprocessing",
    "Region",
    "Source",
    "Version",
    "check_unchanged",
    "decode",
    "fingerprint",
    "fit",
    "load",
    "looks_like_an_image",
    "media_type",
    "open_file",
    "open_original",
    "read_original",
    "small_of",
    "thumbnail",
    "thumbnail_data_uri",
    "thumbnail_of",
    "version_at",
    "version_of",
]
