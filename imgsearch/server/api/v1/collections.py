"""/v1/collections: what there is."""

from fastapi import APIRouter, Response

from imgsearch.server.api.dependencies import TheService
from imgsearch.server.api.v1.models import Collection, CollectionName

router = APIRouter(prefix="/v1/collections", tags=["collections"])


@router.get("")
async def collections(service: TheService) -> list[Collection]:
    """All collections of the store, by name."""
    return [Collection.of(info) for info in await service.infos()]


@router.get("/{collection}")
async def collection(service: TheService, collection: CollectionName) -> Collection:
    """A collection's model, size and fields."""
    return Collection.of(await service.info(collection))


@router.delete("/{collection}", status_code=204)
async def drop(service: TheService, collection: CollectionName) -> Response:
    """Forget a whole collection, and delete what was uploaded into it. Other files stay."""
    await service.drop(collection)
    return Response(status_code=204)
