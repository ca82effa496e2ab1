"""Pictures by record."""

from collections.abc import AsyncIterator, Iterator
from typing import Annotated, BinaryIO

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import iterate_in_threadpool

from imgsearch.server.api.dependencies import TheService
from imgsearch.server.api.v1.models import CollectionName
from imgsearch.server.error_responses import problem
from imgsearch.server.media import caching
from imgsearch.server.media.originals import CHUNK, PictureFile
from imgsearch.server.media.ranges import UnsatisfiableRangeError, requested_range
from imgsearch.server.service import Service

router = APIRouter(tags=["pictures"])


@router.get("/v1/collections/{collection}/records/{record_id}/image", response_class=Response)
async def image(request: Request, service: TheService, collection: str, record_id: str) -> Response:
    """The image's file, as it is, with its own media type; a part of it by `Range`."""
    return await picture_response(request, service, record_id, collection)


async def picture_response(
    request: Request, service: Service, record_id: str, collection: str | None = None
) -> Response:
    """The file of a record, or that the client has it already."""
    record = await service.record(record_id, collection)
    picture = await service.open_picture(record)
    headers = caching.headers(picture.etag, picture.mtime_ns)
    if caching.is_fresh(request, picture.etag, picture.mtime_ns):
        picture.file.close()
        return Response(status_code=304, headers=headers)
    headers["Accept-Ranges"] = "bytes"
    status = 200
    try:
        asked = requested_range(request, picture.size, picture.etag, headers.get("Last-Modified"))
    except UnsatisfiableRangeError:
        picture.file.close()
        detail = f"the image has {picture.size:,} bytes, none of them in this range"
        return problem(416, "no-such-range", detail, {"Content-Range": f"bytes */{picture.size}"})
    if asked:
        status = 206
        headers["Content-Range"] = f"bytes {asked.start}-{asked.stop - 1}/{picture.size}"
    part = asked or range(picture.size)
    headers["Content-Length"] = str(len(part))
    return StreamingResponse(
        _chunks(picture, part), status, media_type=picture.media_type, headers=headers
    )


async def _chunks(picture: PictureFile, part: range) -> AsyncIterator[bytes]:
    with picture.file as file:
        async for chunk in iterate_in_threadpool(_read(file, part)):
            yield chunk


def _read(file: BinaryIO, part: range) -> Iterator[bytes]:
    """No more than was promised, should the file grow meanwhile."""
    file.seek(part.start)
    left = len(part)
    while left > 0 and (chunk := file.read(min(CHUNK, left))):
        yield chunk
        left -= len(chunk)


@router.get("/v1/collections/{collection}/records/{record_id}/thumbnail", response_class=Response)
async def thumbnail(
    request: Request,
    service: TheService,
    collection: CollectionName,
    record_id: str,
    side: Annotated[int, Query(ge=16, le=1024, description="Of the longer side, in pixels.")] = 320,
) -> Response:
    """A small WebP of the picture, upright."""
    record = await service.record(record_id, collection)
    made, picture = await service.thumbnail(record, side)
    etag = f'{picture.etag[:-1]}-{side}"'
    headers = caching.headers(etag, picture.mtime_ns)
    if caching.is_fresh(request, etag, picture.mtime_ns):
        return Response(status_code=304, headers=headers)
    return Response(made, media_type="image/webp", headers=headers)
