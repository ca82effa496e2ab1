"""Parts of a file, as clients ask for them by `Range` (RFC 9110, section 14)."""

import re

from fastapi import Request

_RANGE = re.compile(r"bytes=\s*(\d{0,19})-(\d{0,19})\s*", re.I)


class UnsatisfiableRangeError(Exception):
    """The file has none of the bytes that were asked for."""


def requested_range(
    request: Request, size: int, etag: str, last_modified: str | None
) -> range | None:
    """The bytes of a file of `size` bytes to answer with; None is the whole file.

    A `Range` that is malformed, in another unit, or of several parts is ignored, as a server may;
    so is one whose `If-Range` names another state of the file. Raises UnsatisfiableRangeError.
    """
    asked = request.headers.get("range")
    condition = request.headers.get("if-range")
    if asked is None or (condition is not None and condition not in (etag, last_modified)):
        return None
    match = _RANGE.fullmatch(asked)
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:  # the last so many
        start, stop = max(0, size - int(match[2])), size
    else:
        start, stop = int(match[1]), min(size, int(match[2] or size) + 1)
        if match[2] and int(match[2]) < start:
            return None
    if start >= size or start >= stop:
        raise UnsatisfiableRangeError
    return range(start, stop)
