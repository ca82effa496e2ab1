"""Shards that are open in this process, and the content of their members."""

import threading
from collections import OrderedDict
from typing import BinaryIO, cast

from imgsearch.objects import Content
from imgsearch.shards import access
from imgsearch.shards.base import Member, ShardChangedError
from imgsearch.shards.shard import Shard, indexed
from imgsearch.uris import MemberUrl

_MAX_OPEN = 32
_open: "OrderedDict[str, Shard]" = OrderedDict()
_lock = threading.Lock()
_opening: dict[str, threading.Lock] = {}


def open_shard(uri: str) -> Shard:
    """Return the current version of a shard by its URI. Raises OSError.

    The first time, all headers are read. After that, and in later runs, only its version is.
    """
    with _lock:
        opening = _opening.setdefault(uri, threading.Lock())
    with opening:
        state = access.state_of(uri)
        with _lock:
            known = _open.get(uri)
        if known is None or known.state != state:
            known = indexed(uri, state)
        with _lock:
            _open[uri] = known
            _open.move_to_end(uri)
            while len(_open) > _MAX_OPEN:
                # Not closed: a thread may be reading. It is closed with its last reader.
                _opening.pop(_open.popitem(last=False)[0], None)
    return known


def open_member(url: MemberUrl, spill: int) -> BinaryIO:
    """Return the content of a member; content of more than `spill` bytes goes to a file.

    Its range is read, not the shard. Raises FileNotFoundError, ShardError or ObjectError.
    """
    shard = _known(url.shard)
    try:
        return _content(shard, shard.member(url.name), spill)
    except ShardChangedError:
        shard = open_shard(url.shard)
        return _content(shard, shard.member(url.name), spill)


def version_of_member(url: MemberUrl) -> tuple[int, int]:
    """Return size and `mtime_ns` of a member as it is now. Raises OSError."""
    shard = open_shard(url.shard)
    return shard.version_of(shard.member(url.name))


def _known(uri: str) -> Shard:
    """Return a shard that is open. If it has changed since, reading from it raises an error."""
    with _lock:
        if known := _open.get(uri):
            _open.move_to_end(uri)
            return known
    return open_shard(uri)


def _content(shard: Shard, member: Member, spill: int) -> BinaryIO:
    file = Content(shard.version_of(member), spill)
    try:
        for chunk in shard.read(member):
            file.write(chunk)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return cast(BinaryIO, file)
