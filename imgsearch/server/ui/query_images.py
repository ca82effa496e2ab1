"""Images that visitors search with: in memory for a while, never on the disk."""

import asyncio
import hashlib
import hmac
import secrets
from dataclasses import dataclass

from cachetools import LRUCache

from imgsearch import config
from imgsearch.errors import ImageError
from imgsearch.images import thumbnail_data_uri

# Of all images together; the least recently used are dropped first.
_MAX_BYTES = 256 << 20
_PREVIEW_SIDE = 800


@dataclass(frozen=True, slots=True)
class QueryImage:
    """The bytes of a file, and an upright preview as a `data:` URI, which every browser shows."""

    file: bytes
    preview: str

    @property
    def size(self) -> int:
        return len(self.file) + len(self.preview)


class QueryImages:
    """A bounded cache of images by name. For one event loop.

    Whoever knows a name can see the image: it is part of the address of a search, to be shared.
    The same content gets the same name, which is keyed, so that nobody can find out whether a file
    that they have was searched with.
    """

    def __init__(self, max_pixels: int, max_file: int, max_bytes: int = _MAX_BYTES) -> None:
        """`max_file` is the size of the largest file, which always fits."""
        self._max_pixels = max_pixels
        self._images: LRUCache[str, QueryImage] = LRUCache(
            max(max_bytes, 2 * max_file), getsizeof=lambda each: each.size
        )
        self._key = secrets.token_bytes(32)
        # Every image that is decoded is in memory as a whole.
        self._decoding = asyncio.Semaphore(config.default_workers())

    async def add(self, file: bytes) -> str:
        """Store the bytes of an image; return its name. Raises ImageError."""
        name = hmac.new(self._key, file, hashlib.sha256).hexdigest()
        if name not in self._images:
            async with self._decoding:
                preview = await asyncio.to_thread(
                    thumbnail_data_uri, file, _PREVIEW_SIDE, self._max_pixels
                )
            self._images[name] = QueryImage(file, preview)
        return name

    def get(self, name: str) -> QueryImage:
        """Raises ImageError if the image is unknown or was dropped."""
        try:
            return self._images[name]
        except KeyError:
            raise ImageError(
                "the image of this search is no longer available (it is never stored on the disk): "
                "choose it again"
            ) from None
