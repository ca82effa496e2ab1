"""The endpoints of TochKa21U/image-search, so that its clients work unchanged.

Where the original had a field, it is here with the same name and meaning; what ours adds are more
fields. Unlike there, a query is never written to the database.
"""

import base64
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Request, Response, UploadFile
from pydantic import BaseModel, ConfigDict, Field

from imgsearch import __version__
from imgsearch.server.api.dependencies import TheService
from imgsearch.server.api.v1.images import picture_response
from imgsearch.server.api.v1.models import SearchHit, Text, hits_of
from imgsearch.server.errors import RefusedError
from imgsearch.server.requests import Question
from imgsearch.server.service import Service
from imgsearch.server.uploads import DESCRIPTION_FIELD
from imgsearch.types import Hit

router = APIRouter(tags=["compatible with image-search"])


class EntryPoint(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True)

    version: str = Field(alias="Version", examples=[__version__])
    status: str = Field(examples=["ready"])
    docs: str = Field(alias="docs/swagger", examples=["/docs"])


@router.get("/")
async def entry_point(service: TheService) -> EntryPoint:
    """What this is, and where its documentation is."""
    return EntryPoint.model_validate(
        {"Version": __version__, "status": service.state, "docs/swagger": "/docs"}
    )


class Additional(BaseModel):
    id: str
    distance: float = Field(description="The cosine distance, 0 for equal.", examples=[0.07])


class SearchResult(BaseModel):
    """The best hit, in the form of Weaviate's answers."""

    model_config = ConfigDict(serialize_by_alias=True)

    text: str = Field(description="Its description.", examples=["a red dress"])
    image: str | None = Field(description="The picture's file in Base64; null if it is gone.")
    additional: Additional = Field(alias="_additional")


class SimilarPicture(BaseModel):
    filename: str | None = Field(description="As the client named it.", examples=["shoe.jpg"])
    similar_category: str = Field(description="The best hit's description.")
    image: str = Field(description="Where the best hit is.", examples=["/get-image/0b4f6a2e"])
    search_results: SearchResult | None = Field(
        None, description="The best hit itself; left out without `fullresult`."
    )
    hits: list[SearchHit] = Field(description="All of them, the best one first.")


@router.post("/search/", response_model_exclude_unset=True)
async def search_file(
    service: TheService,
    file: Annotated[UploadFile, File(description="The picture to look for.")],
    description: Annotated[  # noqa: ARG001
        str, Form(description="Accepted as in the original, where it had no effect either.")
    ] = "",
    fullresult: Annotated[bool, Form(description="Whether to give `search_results`.")] = True,
) -> SimilarPicture:
    """Find the picture that is most alike. Nothing of the question is kept."""
    async with service.reading.hold(file.size or 0):
        answer = await service.search(Question([await file.read()]))
    if not answer.hits:
        raise RefusedError(404, "nothing-found", f"collection {answer.collection} is empty")
    best = answer.hits[0]
    found: dict[str, Any] = {"search_results": await _result(service, best)} if fullresult else {}
    return SimilarPicture(
        filename=_name(file),
        similar_category=_description(best),
        image=f"/get-image/{best.record.id}",
        hits=hits_of(answer, show_path=service.settings.show_paths),
        **found,
    )


class Uploaded(BaseModel):
    filename: str | None = Field(description="As the client named it.", examples=["shoe.jpg"])
    description: str = Field(examples=["a blue shoe"])
    id: str = Field(description="Of its record.")
    image: str = Field(description="Where the picture is.", examples=["/get-image/0b4f6a2e"])


@router.post("/upload/")
async def upload_file(
    service: TheService,
    file: Annotated[UploadFile, File(description="The picture to keep and index.")],
    description: Annotated[
        Text, Form(max_length=10_000, description="To search for by words.")
    ] = "",
) -> Uploaded:
    """Keep a picture and index it. The same picture again replaces its description by a new one."""
    collection = service.settings.collection
    async with service.reading.hold(file.size or 0):
        record = await service.uploads.add(await file.read(), description, collection)
    return Uploaded(
        filename=_name(file),
        description=str(record.metadata.get(DESCRIPTION_FIELD, "")),
        id=record.id,
        image=f"/get-image/{record.id}",
    )


@router.get("/get-image/{image_id}", response_class=Response)
async def get_image(request: Request, service: TheService, image_id: str) -> Response:
    """The picture of a record of the default collection, with its own media type."""
    return await picture_response(request, service, image_id)


def _name(file: UploadFile) -> str | None:
    """As the client named it, as far as that can be said in UTF-8."""
    return file.filename and file.filename.encode("utf-8", "replace").decode()


def _description(hit: Hit) -> str:
    return str(hit.record.metadata.get(DESCRIPTION_FIELD, ""))


async def _result(service: Service, hit: Hit) -> SearchResult:
    try:
        image = base64.b64encode(await service.read_picture(hit.record)).decode()
    except RefusedError:
        image = None
    additional = Additional(id=hit.record.id, distance=max(0.0, 1.0 - hit.score))
    return SearchResult(text=_description(hit), image=image, _additional=additional)
