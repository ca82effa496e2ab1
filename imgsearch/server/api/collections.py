"""/v1/collections: collections, their records and images."""

from typing import Annotated

from fastapi import Body, Query, Request
from fastapi.responses import Response

from imgsearch.server.api.models import Collection, Record, RecordPage
from imgsearch.server.api.routing import (
    CollectionName,
    MetadataChanges,
    Router,
    ServiceDep,
    TextList,
)
from imgsearch.server.media import image_response, thumbnail_response

router = Router(prefix="/v1/collections")


@router.get("", tags=["collections"])
async def collections(service: ServiceDep) -> list[Collection]:
    """List all collections of the store, by name."""
    return [Collection.from_info(info) for info in await service.infos()]


@router.get("/{collection}", tags=["collections"])
async def collection(service: ServiceDep, collection: CollectionName) -> Collection:
    """Return a collection's model, size and fields."""
    return Collection.from_info(await service.info(collection))


@router.delete("/{collection}", tags=["collections"], status_code=204)
async def drop(service: ServiceDep, collection: CollectionName) -> Response:
    """Delete a collection and the files uploaded to it. Other files are not deleted."""
    await service.drop(collection)
    return Response(status_code=204)


@router.get("/{collection}/records", tags=["records"])
async def records(
    service: ServiceDep,
    collection: CollectionName,
    limit: Annotated[int, Query(ge=1, le=1000, description="Maximum number of records.")] = 100,
    after: Annotated[str, Query(max_length=100, description="`next` of the previous page.")] = "",
    where: Annotated[
        TextList, Query(description="Conditions on the metadata, which must all hold.")
    ] = (),
) -> RecordPage:
    """List records by id. Added or deleted records do not shift the other pages."""
    found = await service.records(collection, limit=limit, after=after, where=where)
    show_path = service.settings.show_paths
    return RecordPage(
        records=[Record.from_record(each, collection, show_path=show_path) for each in found],
        next=found[-1].id if len(found) == limit else None,
    )


@router.get("/{collection}/records/{record_id}", tags=["records"])
async def record(service: ServiceDep, collection: CollectionName, record_id: str) -> Record:
    """Return one record."""
    found = await service.record(record_id, collection)
    return Record.from_record(found, collection, show_path=service.settings.show_paths)


@router.patch("/{collection}/records/{record_id}", tags=["records"])
async def change(
    service: ServiceDep,
    collection: CollectionName,
    record_id: str,
    changes: Annotated[
        MetadataChanges,
        Body(description="Fields to set, with values of their types; null removes a field."),
    ],
) -> Record:
    """Change a record's metadata. The body has at most 64 KiB.

    A new field gets the type of its value.
    """
    found = await service.set_metadata(record_id, changes, collection)
    return Record.from_record(found, collection, show_path=service.settings.show_paths)


@router.delete("/{collection}/records/{record_id}", tags=["records"], status_code=204)
async def remove(service: ServiceDep, collection: CollectionName, record_id: str) -> Response:
    """Delete a record. Its file is deleted only if it was uploaded."""
    await service.remove(record_id, collection)
    return Response(status_code=204)


@router.get("/{collection}/records/{record_id}/image", tags=["images"], response_class=Response)
async def image(request: Request, service: ServiceDep, collection: str, record_id: str) -> Response:
    """Return the original image file, or a part of it (`Range`)."""
    record = await service.record(record_id, collection)
    return image_response(request, await service.open_image(record))


@router.get("/{collection}/records/{record_id}/thumbnail", tags=["images"], response_class=Response)
async def thumbnail(
    request: Request,
    service: ServiceDep,
    collection: CollectionName,
    record_id: str,
    side: Annotated[
        int, Query(ge=16, le=1024, description="Length of the longer side in pixels.")
    ] = 320,
) -> Response:
    """Return a small WebP of the image, in its EXIF orientation."""
    record = await service.record(record_id, collection)
    made, original = await service.thumbnail(record, side)
    return thumbnail_response(request, made, original, side)
