"""Pictures that visitors search with: in memory for a while, by content, never on the disk."""

import asyncio
import hashlib
from collections import OrderedDict
from dataclasses import dataclass

from imgsearch import config
from imgsearch.errors import ImageError
from imgsearch.images import thumbnail

# Of all that are held; the ones that were not looked at for longest go first.
_MOST_BYTES = 256 << 20
_MOST = 500
_PREVIEW_SIDE = 800


@dataclass(frozen=True, slots=True)
class HeldPicture:
    """The bytes of the file, and a WebP of it, upright, which every browser can show."""

    file: bytes
    preview: bytes

    @property
    def size(self) -> int:
        return len(self.file) + len(self.preview)


class HeldPictures:
    """Holds so many that they fit into a bounded memory. For one event loop."""

    def __init__(self, max_pixels: int, most_bytes: int = _MOST_BYTES) -> None:
        self._max_pixels = max_pixels
        self._most_bytes = most_bytes
        self._held: OrderedDict[str, HeldPicture] = OrderedDict()
        # A picture that is decoded is whole in memory.
        self._decoding = asyncio.Semaphore(config.default_workers())

    async def hold(self, file: bytes) -> str:
        """The SHA-256 by which a picture is known from now on. Raises ImageError."""
        name = hashlib.sha256(file).hexdigest()
        if name not in self._held:
            async with self._decoding:
                preview = await asyncio.to_thread(thumbnail, file, _PREVIEW_SIDE, self._max_pixels)
            self._held[name] = HeldPicture(file, preview)
        self._make_room()
        return name

    def _make_room(self) -> None:
        """The newest one stays, whatever its size."""
        while len(self._held) > 1 and (
            len(self._held) > _MOST
            or sum(each.size for each in self._held.values()) > self._most_bytes
        ):
            self._held.popitem(last=False)

    def get(self, name: str) -> HeldPicture:
        """Raises ImageError for what is not held, or not any more."""
        if name not in self._held:
            raise ImageError(
                "the picture of this search is not held any more (it is never kept on the disk): "
                "choose it again"
            )
        self._held.move_to_end(name)
        return self._held[name]
