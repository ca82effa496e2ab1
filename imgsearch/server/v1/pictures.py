"""Pictures by record."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import iterate_in_threadpool

from imgsearch.server import caching
from imgsearch.server.dependencies import TheService
from imgsearch.server.pictures import CHUNK, PictureFile
from imgsearch.server.service import Service
from imgsearch.server.v1.models import CollectionName

router = APIRouter(tags=["pictures"])


@router.get("/v1/collections/{collection}/records/{record_id}/image", response_class=Response)
async def image(request: Request, service: TheService, collection: str, record_id: str) -> Response:
    """The picture's file, as it is, with its own media type."""
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
    headers["Content-Length"] = str(picture.size)
    return StreamingResponse(_chunks(picture), media_type=picture.media_type, headers=headers)


async def _chunks(picture: PictureFile) -> AsyncIterator[bytes]:
    with picture.file:
        left = picture.size
        async for chunk in iterate_in_threadpool(iter(lambda: picture.file.read(CHUNK), b"")):
            # No more than was promised, should the file grow meanwhile.
            yield chunk[:left]
            left -= len(chunk)
            if left <= 0:
                return


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
