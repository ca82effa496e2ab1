"""/v1/collections/{collection}/records: list, look up, change and remove."""

from typing import Annotated

from fastapi import APIRouter, Body, Query, Response

from imgsearch.server.api.dependencies import TheService
from imgsearch.server.api.v1.models import (
    CollectionName,
    MetadataChanges,
    Record,
    RecordPage,
    TextList,
)

router = APIRouter(prefix="/v1/collections/{collection}/records", tags=["records"])


@router.get("")
async def records(
    service: TheService,
    collection: CollectionName,
    limit: Annotated[int, Query(ge=1, le=1000, description="How many at most.")] = 100,
    after: Annotated[str, Query(max_length=100, description="The `next` of the page before.")] = "",
    where: Annotated[TextList, Query(description="Only those whose metadata fits.")] = (),
) -> RecordPage:
    """The records by id. A page stays as it is when others come and go."""
    found = await service.records(collection, limit=limit, after=after, where=where)
    show_path = service.settings.show_paths
    return RecordPage(
        records=[Record.of(each, collection, show_path=show_path) for each in found],
        next=found[-1].id if len(found) == limit else None,
    )


@router.get("/{record_id}")
async def record(service: TheService, collection: CollectionName, record_id: str) -> Record:
    """One record."""
    found = await service.record(record_id, collection)
    return Record.of(found, collection, show_path=service.settings.show_paths)


@router.patch("/{record_id}")
async def change(
    service: TheService,
    collection: CollectionName,
    record_id: str,
    changes: Annotated[
        MetadataChanges,
        Body(description="Fields to set, typed as they are; null removes one."),
    ],
) -> Record:
    """Change a record's metadata, by a body of at most 64 KiB.

    New fields get the type of their value.
    """
    found = await service.set_metadata(record_id, changes, collection)
    return Record.of(found, collection, show_path=service.settings.show_paths)


@router.delete("/{record_id}", status_code=204)
async def remove(service: TheService, collection: CollectionName, record_id: str) -> Response:
    """Forget a picture. Its file stays, unless it was uploaded."""
    await service.remove(record_id, collection)
    return Response(status_code=204)
