"""The page, over the same service object as the API."""

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp

from imgsearch.server.service import Service


def build_page(service: Service) -> ASGIApp:
    """The page's ASGI app, which searches through the service; it may take seconds to load."""
    address = "see /docs of the API"
    return PlainTextResponse(
        f"imgsearch serves collection {service.settings.collection}: {address}"
    )
