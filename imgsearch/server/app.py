"""The app: endpoints and guards over a service."""

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from imgsearch import __version__
from imgsearch.server.api import compat, docs, health
from imgsearch.server.api.v1 import collections, images, jobs, records, search
from imgsearch.server.error_responses import handle_problems
from imgsearch.server.middleware.admission import Admission
from imgsearch.server.middleware.answers import Answers
from imgsearch.server.middleware.head import Head
from imgsearch.server.middleware.origins import Origins
from imgsearch.server.service import Service

_ROUTERS = (
    compat.router,
    search.router,
    jobs.router,
    records.router,
    images.router,
    collections.router,
    health.router,
    docs.router,
)


def create_app(service: Service, *, for_browsers: bool = False) -> FastAPI:
    """The ASGI app of a service; who runs it starts the service, and closes it.

    `for_browsers` is for the page: see `Origins`.
    """
    app = FastAPI(
        title="imgsearch",
        description="Find pictures that look like a picture.",
        version=__version__,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    for router in _ROUTERS:
        app.include_router(router)
    docs.describe_problems(app)
    handle_problems(app)
    _guard(app, service, for_browsers)
    return app


def _guard(app: FastAPI, service: Service, for_browsers: bool) -> None:
    """The last one added is the first one asked."""
    settings = service.settings
    app.add_middleware(Admission, service=service)
    app.add_middleware(Origins, settings=settings, for_browsers=for_browsers)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["Content-Range", "ETag", "Location", "Retry-After"],
        )
    app.add_middleware(Head)
    embeddable = bool(settings.cors_origins)
    app.add_middleware(Answers, metrics=service.metrics, embeddable=embeddable)
