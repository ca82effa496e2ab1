"""Image files as responses: originals with conditional and range requests, and thumbnails."""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import BinaryIO

from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import iterate_in_threadpool

from imgsearch import images
from imgsearch.errors import ImageError
from imgsearch.server.errors import ApiError, not_found, too_large
from imgsearch.types import ImageRecord

_CHUNK_BYTES = 1 << 18
_CACHE_SECONDS = 300
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_TIMESTAMP = int((datetime(9999, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds())
_RANGE = re.compile(r"bytes=\s*(\d{0,19})-(\d{0,19})\s*", re.I)


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An open image file, which the receiver closes. `size` is in bytes."""

    file: BinaryIO
    media_type: str
    size: int
    mtime_ns: int

    @property
    def etag(self) -> str:
        return f'"{self.mtime_ns:x}-{self.size:x}"'


def open_image(record: ImageRecord) -> ImageFile:
    """Open the file of a record.

    The file is opened once, so that the file that was checked is the one that is read. Raises
    ApiError (404) if it is missing, or is not the image that was indexed.
    """
    if record.site:
        raise _gone(record, "is not on this machine")
    try:
        file = images.open_original(record)
    except images.ChangedError as error:
        raise _gone(record, "has been changed or replaced since it was indexed") from error
    except (OSError, ImageError) as error:
        raise _gone(record, "is missing or cannot be read") from error
    try:
        media_type = images.media_type(file)
        version = images.version_of(file)
    except (OSError, ImageError) as error:
        file.close()
        raise _gone(record, "is no longer an image") from error
    return ImageFile(file, media_type, version.size, version.mtime_ns)


def read_image(record: ImageRecord, max_bytes: int) -> bytes:
    """Return the content of a record's file. Raises ApiError as `open_image`, or if too large."""
    image = open_image(record)
    with image.file:
        if image.size > max_bytes:
            raise too_large(f"the image of record {record.id} is too large")
        return image.file.read(image.size)


def _gone(record: ImageRecord, what: str) -> ApiError:
    return not_found("picture-gone", f"the image of record {record.id} {what}")


def image_response(request: Request, image: ImageFile) -> Response:
    """Return the response with an image file, or a part of it; closes the file.

    Raises ApiError (416) for a range outside the file.

    Starlette's FileResponse is not used: it opens the file again by its path, compares no ETag,
    and answers several ranges or a malformed one differently (`test_originals.py`,
    `test_serve_ranges.py`).
    """
    if not_modified := not_modified_response(request, image.etag, image.mtime_ns):
        image.file.close()
        return not_modified
    headers = cache_headers(image.etag, image.mtime_ns) | {"Accept-Ranges": "bytes"}
    try:
        part = requested_range(request, image.size, image.etag, headers["Last-Modified"])
    except ApiError:
        image.file.close()
        raise
    status = 200 if part is None else 206
    if part is None:
        part = range(image.size)
    else:
        headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{image.size}"
    headers["Content-Length"] = str(len(part))
    return StreamingResponse(
        _stream(image, part), status, media_type=image.media_type, headers=headers
    )


async def _stream(image: ImageFile, part: range) -> AsyncIterator[bytes]:
    with image.file as file:
        async for chunk in iterate_in_threadpool(_read(file, part)):
            yield chunk


def _read(file: BinaryIO, part: range) -> Iterator[bytes]:
    """Yield exactly the part's bytes, even if the file grows while it is read."""
    file.seek(part.start)
    left = len(part)
    while left > 0 and (chunk := file.read(min(_CHUNK_BYTES, left))):
        yield chunk
        left -= len(chunk)


def thumbnail_response(request: Request, thumbnail: bytes, image: ImageFile, side: int) -> Response:
    """Return the response with a WebP thumbnail of an image."""
    etag = f'{image.etag[:-1]}-{side}"'
    return not_modified_response(request, etag, image.mtime_ns) or Response(
        thumbnail, media_type="image/webp", headers=cache_headers(etag, image.mtime_ns)
    )


def cache_headers(etag: str, mtime_ns: int) -> dict[str, str]:
    """Return the headers for caches: private, as a response may require a key."""
    # Some file systems hold dates that HTTP and Python cannot express.
    changed = _EPOCH + timedelta(seconds=min(max(mtime_ns // 10**9, 0), _MAX_TIMESTAMP))
    return {
        "ETag": etag,
        "Last-Modified": format_datetime(changed, usegmt=True),
        "Cache-Control": f"private, max-age={_CACHE_SECONDS}",
    }


def not_modified_response(request: Request, etag: str, mtime_ns: int) -> Response | None:
    """Return a 304 if the client has this version of the file (RFC 9110, section 13)."""
    is_fresh = False
    if tags := request.headers.get("if-none-match"):
        known = [tag.strip().removeprefix("W/") for tag in tags.split(",")]
        is_fresh = etag in known or "*" in known
    elif since := request.headers.get("if-modified-since"):
        with suppress(ValueError, OverflowError):  # not a date
            is_fresh = mtime_ns // 10**9 <= parsedate_to_datetime(since).timestamp()
    return Response(status_code=304, headers=cache_headers(etag, mtime_ns)) if is_fresh else None


def requested_range(request: Request, size: int, etag: str, last_modified: str) -> range | None:
    """Return the byte range that a request asks for (RFC 9110, section 14); None for the whole.

    A `Range` that is malformed, in another unit, or of several parts is ignored, as the RFC
    allows, and so is one whose `If-Range` names another version. HEAD has no ranges. Raises
    ApiError (416) if the file has none of the bytes.
    """
    header = request.headers.get("range")
    condition = request.headers.get("if-range")
    if header is None or request.method != "GET":
        return None
    if condition is not None and condition not in (etag, last_modified):
        return None
    match = _RANGE.fullmatch(header)
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:  # the last bytes
        start, stop = max(0, size - int(match[2])), size
    else:
        start, stop = int(match[1]), min(size, int(match[2] or size) + 1)
        if match[2] and int(match[2]) < start:
            return None
    if start >= size or start >= stop:
        detail = f"the image has {size:,} bytes, none of them in this range"
        raise ApiError(416, "no-such-range", detail, {"Content-Range": f"bytes */{size}"})
    return range(start, stop)
