"""Thumbnails that were made lately, in bounded memory."""

from collections import OrderedDict

_BYTES = 64 << 20
_Key = tuple[str, str, int]
"""A record's id, the tag of its file, and the side in pixels."""


class Thumbnails:
    """The last ones used, up to so many bytes. For one event loop."""

    def __init__(self, most: int = _BYTES) -> None:
        self._most = most
        self._bytes = 0
        self._known: OrderedDict[_Key, bytes] = OrderedDict()

    def get(self, key: _Key) -> bytes | None:
        if key in self._known:
            self._known.move_to_end(key)
        return self._known.get(key)

    def put(self, key: _Key, thumbnail: bytes) -> None:
        self._bytes += len(thumbnail) - len(self._known.pop(key, b""))
        self._known[key] = thumbnail
        while self._bytes > self._most:
            _, oldest = self._known.popitem(last=False)
            self._bytes -= len(oldest)
