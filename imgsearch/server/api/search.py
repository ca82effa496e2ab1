"""/v1/collections/{collection}/search."""

from typing import Annotated

from fastapi import File, Form, UploadFile

from imgsearch.images import Region
from imgsearch.search import SearchRequest
from imgsearch.server.api.models import SearchAnswer
from imgsearch.server.api.routing import CollectionName, Router, ServiceDep, Text
from imgsearch.server.service import MAX_DEPTH, MAX_IMAGES

router = Router(prefix="/v1", tags=["search"])


@router.post("/collections/{collection}/search")
async def search(
    service: ServiceDep,
    collection: CollectionName,
    image: Annotated[
        list[UploadFile] | None,
        File(description="Images; several are searched for by what they have in common."),
    ] = None,
    record: Annotated[
        list[Text] | None,
        Form(max_length=MAX_IMAGES, description="Ids of records to search with, like images."),
    ] = None,
    text: Annotated[
        Text,
        Form(
            max_length=1000,
            description="Text to find in the metadata, alone or in addition to images.",
            examples=["red summer"],
        ),
    ] = "",
    region: Annotated[
        str | None,
        Form(
            description="Search with a part of each image: its left, top, right and bottom edge, "
            "as fractions of width and height.",
            examples=["0.25,0,0.75,0.5"],
        ),
    ] = None,
    k: Annotated[int, Form(ge=1, le=MAX_DEPTH, description="Maximum number of hits.")] = 10,
    offset: Annotated[int, Form(ge=0, le=MAX_DEPTH, description="Number of hits to skip.")] = 0,
    where: Annotated[
        list[Text] | None,
        Form(
            description="Conditions on the metadata, which must all hold.",
            examples=[["year>=2012"]],
        ),
    ] = None,
    min_score: Annotated[
        float | None, Form(ge=-1, le=1, description="Minimum cosine similarity of hits.")
    ] = None,
    copies: Annotated[
        bool, Form(description="Return every copy of an image, not one hit for all.")
    ] = False,
    exclude_self: Annotated[
        bool, Form(description="Leave out the query images and their exact copies.")
    ] = False,
) -> SearchAnswer:
    """Find images by example images, records, text, or a combination of them.

    The service does not store the query.
    """
    files = image or ()
    async with service.memory.reserve(sum(each.size or 0 for each in files)):
        request = SearchRequest(
            images=[await each.read() for each in files],
            records=record or (),
            text=text,
            region=Region.parse(region) if region else None,
            k=k,
            where=where or (),
            min_score=min_score,
            collapse=not copies,
            exclude_self=exclude_self,
        )
        result = await service.search(request, collection, offset=offset)
    return SearchAnswer.from_result(result, show_path=service.settings.show_paths)
