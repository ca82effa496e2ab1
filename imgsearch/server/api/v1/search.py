"""/v1/collections/{collection}/search."""

from typing import Annotated

from fastapi import APIRouter, File, Form, UploadFile

from imgsearch.errors import UsageError
from imgsearch.images import Region
from imgsearch.server.api.dependencies import TheService
from imgsearch.server.api.v1.models import CollectionName, SearchAnswer, Text
from imgsearch.server.requests import MAX_DEPTH, MAX_PICTURES, Question

router = APIRouter(prefix="/v1", tags=["search"])


@router.post("/collections/{collection}/search")
async def search(
    service: TheService,
    collection: CollectionName,
    image: Annotated[
        list[UploadFile] | None,
        File(description="Pictures; of several, what they have in common is searched for."),
    ] = None,
    record: Annotated[
        list[Text] | None,
        Form(max_length=MAX_PICTURES, description="Ids of records to search with, likewise."),
    ] = None,
    text: Annotated[
        Text,
        Form(
            max_length=1000,
            description="Words to look for in the metadata, beside a picture or alone.",
            examples=["red summer"],
        ),
    ] = "",
    region: Annotated[
        str | None,
        Form(
            description="Search with a part of each picture: left, top, right and bottom edge, as "
            "fractions of its width and height.",
            examples=["0.25,0,0.75,0.5"],
        ),
    ] = None,
    k: Annotated[int, Form(ge=1, le=MAX_DEPTH, description="How many hits.")] = 10,
    offset: Annotated[int, Form(ge=0, le=MAX_DEPTH, description="Hits to leave out.")] = 0,
    where: Annotated[
        list[Text] | None,
        Form(
            description="Only pictures whose metadata fits; all must hold.",
            examples=[["year>=2012"]],
        ),
    ] = None,
    min_score: Annotated[
        float | None, Form(ge=-1, le=1, description="Only hits with at least this similarity.")
    ] = None,
    copies: Annotated[
        bool, Form(description="Give each of several equal pictures, not one for all.")
    ] = False,
    exclude_self: Annotated[
        bool, Form(description="Leave out the pictures themselves and their exact copies.")
    ] = False,
) -> SearchAnswer:
    """Find the pictures that look like one, or several, or of which words tell.

    Nothing of the question is kept.
    """
    files = image or ()
    async with service.reading.hold(sum(each.size or 0 for each in files)):
        question = Question(
            pictures=[await each.read() for each in files],
            records=record or (),
            text=text,
            region=_region(region) if region else None,
            k=k,
            offset=offset,
            where=where or (),
            min_score=min_score,
            copies=copies,
            exclude_self=exclude_self,
        )
        answer = await service.search(question, collection)
    return SearchAnswer.of(answer, show_path=service.settings.show_paths)


def _region(text: str) -> Region:
    try:
        left, top, right, bottom = map(float, text.split(","))
    except ValueError:
        raise UsageError(
            f"region {text[:100]!r}: write it as LEFT,TOP,RIGHT,BOTTOM, for example 0.25,0,0.75,0.5"
        ) from None
    return Region(left, top, right, bottom, "fractions")
