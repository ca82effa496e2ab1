"""Images that visitors search with: in memory for a while, never on the disk."""

import asyncio
import hashlib
import hmac
import secrets
from collections import OrderedDict
from dataclasses import dataclass

from imgsearch import config
from imgsearch.errors import ImageError
from imgsearch.images import thumbnail

# Of all images together; those used longest ago are dropped first.
_MAX_BYTES = 256 << 20
_MAX_IMAGES = 500
_PREVIEW_SIDE = 800


@dataclass(frozen=True, slots=True)
class QueryImage:
    """The bytes of a file, and an upright WebP of it, which every browser can show."""

    file: bytes
    preview: bytes

    @property
    def size(self) -> int:
        return len(self.file) + len(self.preview)


class QueryImages:
    """A bounded cache of images by name. For one event loop.

    Whoever knows a name can see the image: it is part of the address of a search, to be shared.
    The same content gets the same name, which is keyed, so that nobody can ask whether a file that
    they have was searched with.
    """

    def __init__(self, max_pixels: int, max_bytes: int = _MAX_BYTES) -> None:
        self._max_pixels = max_pixels
        self._max_bytes = max_bytes
        self._images: OrderedDict[str, QueryImage] = OrderedDict()
        self._key = secrets.token_bytes(32)
        # Every image that is decoded is in memory as a whole.
        self._decoding = asyncio.Semaphore(config.default_workers())

    async def add(self, file: bytes) -> str:
        """Store the bytes of an image; return its name. Raises ImageError."""
        name = hmac.new(self._key, file, hashlib.sha256).hexdigest()
        if name not in self._images:
            async with self._decoding:
                preview = await asyncio.to_thread(thumbnail, file, _PREVIEW_SIDE, self._max_pixels)
            self._images[name] = QueryImage(file, preview)
        self._evict()
        return name

    def _evict(self) -> None:
        """The newest image stays, whatever its size."""
        while len(self._images) > 1 and (
            len(self._images) > _MAX_IMAGES
            or sum(each.size for each in self._images.values()) > self._max_bytes
        ):
            self._images.popitem(last=False)

    def get(self, name: str) -> QueryImage:
        """Raises ImageError if the image is unknown or was dropped."""
        if name not in self._images:
            raise ImageError(
                "the image of this search is no longer available (it is never stored on the disk): "
                "choose it again"
            )
        self._images.move_to_end(name)
        return self._images[name]
