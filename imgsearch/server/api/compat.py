"""The endpoints of TochKa21U/image-search, for its existing clients.

Fields of the original have the same name and meaning here; additional fields are ours. Unlike the
original, a search never writes the query image to the database.
"""

import base64
from typing import Annotated, Any

from fastapi import File, Form, Request, Response, UploadFile
from pydantic import BaseModel, ConfigDict, Field

from imgsearch import __version__
from imgsearch.search import SearchRequest
from imgsearch.server.api.models import SearchHit, search_hits
from imgsearch.server.api.routing import Router, ServiceDep, Text, file_name
from imgsearch.server.errors import ApiError, not_found
from imgsearch.server.media import image_response
from imgsearch.server.service import Service
from imgsearch.server.uploads import DESCRIPTION_FIELD
from imgsearch.types import Hit

router = Router(tags=["compatible with image-search"])


class EntryPoint(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True)

    version: str = Field(alias="Version", examples=[__version__])
    status: str = Field(examples=["ready"])
    docs: str = Field(alias="docs/swagger", examples=["/docs"])


@router.get("/")
async def entry_point(service: ServiceDep) -> EntryPoint:
    """Return the version, the state, and the path of the documentation."""
    return EntryPoint.model_validate(
        {"Version": __version__, "status": service.state, "docs/swagger": "/docs"}
    )


class Additional(BaseModel):
    id: str
    distance: float = Field(description="Cosine distance, 0 for equal images.", examples=[0.07])


class SearchResult(BaseModel):
    """The best hit, in the form of Weaviate's responses."""

    model_config = ConfigDict(serialize_by_alias=True)

    text: str = Field(description="Its description.", examples=["a red dress"])
    image: str | None = Field(description="The image file in Base64; null if it is missing.")
    additional: Additional = Field(alias="_additional")


class SimilarPicture(BaseModel):
    filename: str | None = Field(description="File name from the client.", examples=["shoe.jpg"])
    similar_category: str = Field(description="The best hit's description.")
    image: str = Field(description="Path of the best hit.", examples=["/get-image/0b4f6a2e"])
    search_results: SearchResult | None = Field(
        None, description="The best hit; omitted without `fullresult`."
    )
    hits: list[SearchHit] = Field(description="All hits, the best one first.")


@router.post("/search/", response_model_exclude_unset=True)
async def search_file(
    service: ServiceDep,
    file: Annotated[UploadFile, File(description="The query image.")],
    description: Annotated[  # noqa: ARG001
        str, Form(description="Accepted for compatibility; without effect, as in the original.")
    ] = "",
    fullresult: Annotated[bool, Form(description="Whether to return `search_results`.")] = True,
) -> SimilarPicture:
    """Find the most similar image. The service does not store the query."""
    async with service.memory.reserve(file.size or 0):
        result = await service.searches.find(SearchRequest([await file.read()]))
    if not result.hits:
        raise not_found("nothing-found", f"collection {result.collection} is empty")
    best = result.hits[0]
    found: dict[str, Any] = {"search_results": await _best(service, best)} if fullresult else {}
    return SimilarPicture(
        filename=file_name(file),
        similar_category=_description(best),
        image=f"/get-image/{best.record.id}",
        hits=search_hits(result, show_path=service.settings.show_paths),
        **found,
    )


class Uploaded(BaseModel):
    filename: str | None = Field(description="File name from the client.", examples=["shoe.jpg"])
    description: str = Field(examples=["a blue shoe"])
    id: str = Field(description="Id of the record.")
    image: str = Field(description="Path of the image.", examples=["/get-image/0b4f6a2e"])


@router.post("/upload/")
async def upload_file(
    service: ServiceDep,
    file: Annotated[UploadFile, File(description="The image to store and index.")],
    description: Annotated[
        Text, Form(max_length=10_000, description="Searchable description.")
    ] = "",
) -> Uploaded:
    """Store and index an image. An equal image with a new description replaces the old one."""
    collection = service.settings.collection
    async with service.memory.reserve(file.size or 0):
        record = await service.uploads.add(await file.read(), description, collection)
    return Uploaded(
        filename=file_name(file),
        description=str(record.metadata.get(DESCRIPTION_FIELD, "")),
        id=record.id,
        image=f"/get-image/{record.id}",
    )


@router.get("/get-image/{image_id}", response_class=Response)
async def get_image(request: Request, service: ServiceDep, image_id: str) -> Response:
    """Return the image of a record of the default collection, with its own media type."""
    record = await service.record(image_id)
    return image_response(request, await service.open_image(record))


def _description(hit: Hit) -> str:
    return str(hit.record.metadata.get(DESCRIPTION_FIELD, ""))


async def _best(service: Service, hit: Hit) -> SearchResult:
    try:
        image = base64.b64encode(await service.read_image(hit.record)).decode()
    except ApiError:
        image = None
    additional = Additional(id=hit.record.id, distance=max(0.0, 1.0 - hit.score))
    return SearchResult(text=_description(hit), image=image, _additional=additional)
