"""/v1/collections/{collection}/map."""

from typing import Annotated

from fastapi import Query, Request
from fastapi.responses import HTMLResponse, Response

from imgsearch.server.api.models import JobStatus
from imgsearch.server.api.routing import CollectionName, Router, ServiceDep
from imgsearch.server.media import image_response

router = Router(prefix="/v1", tags=["maps"])

# The document's own policy names its scripts by their digests. This one adds what only a header can
# say: pages of this service alone may frame it, and it has an origin of its own, so that its
# scripts cannot call the service as the visitor.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'unsafe-inline'",
        "style-src 'unsafe-inline'",
        "img-src data: blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'self'",
        "sandbox allow-scripts allow-downloads allow-popups allow-popups-to-escape-sandbox",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Frame-Options": "SAMEORIGIN",
    "Cache-Control": "private, no-cache",
}


@router.get("/collections/{collection}/map", response_class=HTMLResponse)
async def show(request: Request, service: ServiceDep, collection: CollectionName) -> Response:
    """Return the map of a collection as it was last drawn, as one HTML page.

    It has the metadata and thumbnails of all images that were in the collection then, and their
    paths if the service may show them.
    """
    response = image_response(request, await service.maps.open(collection))
    response.headers.update(_HEADERS)
    return response


@router.post("/collections/{collection}/map", status_code=202)
async def draw(
    service: ServiceDep,
    response: Response,
    collection: CollectionName,
    new_layout: Annotated[
        bool, Query(description="Give all images new places, instead of placing new ones only.")
    ] = False,
) -> JobStatus:
    """Draw the map of a collection in a background job; `Location` is the path of its progress.

    If a job draws it already, that one is returned. If nothing has changed since the last map, the
    job ends at once. Needs the extra `map` where the service runs; without it, the answer is 501.
    """
    job = await service.maps.draw(collection, new_layout=new_layout)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return JobStatus.from_job(job, service)
