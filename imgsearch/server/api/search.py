"""/v1/collections/{collection}/search."""

from typing import Annotated

from fastapi import File, Form, UploadFile

from imgsearch.images import Region
from imgsearch.search import SearchRequest
from imgsearch.server.api.models import SearchAnswer, SearchAnswers
from imgsearch.server.api.routing import CollectionName, Router, ServiceDep, Text, file_name
from imgsearch.server.searches import MAX_DEPTH, MAX_HITS, MAX_IMAGES, Query

router = Router(prefix="/v1", tags=["search"])

WhereForm = Annotated[
    list[Text] | None,
    Form(
        description="Conditions on the metadata, which must all hold.",
        examples=[["year>=2012"]],
    ),
]
ConfidentForm = Annotated[
    bool,
    Form(description="Only hits that are hardly there by chance, so that often there is none."),
]
MinScoreForm = Annotated[
    float | None, Form(ge=-1, le=1, description="Minimum cosine similarity of hits.")
]
CopiesForm = Annotated[
    bool, Form(description="Return every copy of an image, not one hit for all.")
]
ExcludeSelfForm = Annotated[
    bool, Form(description="Leave out the query images and their exact copies.")
]
TextForm = Annotated[
    Text, Form(max_length=1000, description="Text to find in the metadata, for each.")
]
HitsForm = Annotated[int, Form(ge=1, le=MAX_HITS, description="Maximum number of hits for each.")]


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
    where: WhereForm = None,
    min_score: MinScoreForm = None,
    confident: ConfidentForm = False,
    copies: CopiesForm = False,
    exclude_self: ExcludeSelfForm = False,
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
            confident=confident,
            collapse=not copies,
            exclude_self=exclude_self,
        )
        result = await service.searches.find(request, collection, offset=offset)
    return SearchAnswer.from_result(result, show_path=service.settings.show_paths)


@router.post("/collections/{collection}/searches")
async def searches(
    service: ServiceDep,
    collection: CollectionName,
    image: Annotated[
        list[UploadFile] | None, File(description="Images; each is searched for by itself.")
    ] = None,
    record: Annotated[
        list[Text] | None, Form(description="Ids of records; each is searched for by itself.")
    ] = None,
    text: TextForm = "",
    k: HitsForm = 10,
    where: WhereForm = None,
    min_score: MinScoreForm = None,
    confident: ConfidentForm = False,
    copies: CopiesForm = False,
    exclude_self: ExcludeSelfForm = False,
) -> SearchAnswers:
    """Search with each of many images and records, which takes less time than one by one.

    A request may have 100 queries by default (`--max-queries`); more get 413. An unusable image or
    an unknown record has a result with the reason. The service does not store the queries.
    """
    files = image or ()
    service.searches.check_number(len(files) + len(record or ()))
    async with service.memory.reserve(sum(each.size or 0 for each in files)):
        queries = [Query(file_name(each) or "", await each.read()) for each in files]
        queries += [Query(each) for each in record or ()]
        request = SearchRequest(
            text=text,
            k=k,
            where=where or (),
            min_score=min_score,
            confident=confident,
            collapse=not copies,
            exclude_self=exclude_self,
        )
        results = await service.searches.find_many(queries, request, collection)
    return SearchAnswers.from_results(results, queries, service)
