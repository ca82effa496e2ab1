"""One image: recognised by its content, fingerprinted, decoded safely, and preprocessed.

`files` reads and fingerprints, `formats` recognises and opens, `decoding` makes RGB pixels with
the help of `colours`, `preprocessing` makes a network's input of them, `regions` and `thumbnails`
do what they are named for. Pillow does the decoding.
"""

from imgsearch.images.decoding import (
    DRAFT_COSINE,
    DRAFT_MARGIN,
    Picture,
    Source,
    decode,
    load,
)
from imgsearch.images.files import (
    ChangedError,
    Fingerprint,
    check_unchanged,
    fingerprint,
    open_file,
    open_original,
)
from imgsearch.images.formats import looks_like_a_picture, media_type
from imgsearch.images.preprocessing import DECODING, DECODINGS, Loaded, Pixels, Preprocessing, fit
from imgsearch.images.regions import Region
from imgsearch.images.thumbnails import thumbnail, thumbnail_data_uri, thumbnail_of

__all__ = [
    "DECODING",
    "DECODINGS",
    "DRAFT_COSINE",
    "DRAFT_MARGIN",
    "ChangedError",
    "Fingerprint",
    "Loaded",
    "Picture",
    "Pixels",
    "Preprocessing",
    "Region",
    "Source",
    "check_unchanged",
    "decode",
    "fingerprint",
    "fit",
    "load",
    "looks_like_a_picture",
    "media_type",
    "open_file",
    "open_original",
    "thumbnail",
    "thumbnail_data_uri",
    "thumbnail_of",
]
