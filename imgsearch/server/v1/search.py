"""/v1/collections/{collection}/search."""

from typing import Annotated

from fastapi import APIRouter, File, Form, UploadFile

from imgsearch.server.dependencies import TheService
from imgsearch.server.service import MAX_DEPTH, Question
from imgsearch.server.v1.models import SearchAnswer

router = APIRouter(prefix="/v1", tags=["search"])


@router.post("/collections/{collection}/search")
async def search(
    service: TheService,
    collection: str,
    image: Annotated[UploadFile, File(description="The picture to look for.")],
    k: Annotated[int, Form(ge=1, le=MAX_DEPTH, description="How many hits.")] = 10,
    offset: Annotated[int, Form(ge=0, le=MAX_DEPTH, description="Hits to leave out.")] = 0,
    where: Annotated[
        list[str] | None,
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
        bool, Form(description="Leave out the picture itself and its exact copies.")
    ] = False,
) -> SearchAnswer:
    """Find the pictures that look like one. Nothing of the question is kept."""
    question = Question(
        await image.read(), k, offset, tuple(where or ()), min_score, copies, exclude_self
    )
    answer = await service.search(question, collection)
    return SearchAnswer.of(answer, show_path=service.settings.show_paths)
