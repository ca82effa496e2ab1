"""The ASGI app: endpoints, middleware, and the page under /ui."""

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from imgsearch import __version__
from imgsearch.server.api import collections, compat, docs, health, jobs, maps, search
from imgsearch.server.errors import add_error_handlers
from imgsearch.server.middleware.access import AccessMiddleware
from imgsearch.server.middleware.limits import LimitMiddleware
from imgsearch.server.middleware.responses import ResponseMiddleware
from imgsearch.server.service import Service

_PAGE_PATH = "/ui"
_ROUTERS = (
    compat.router,
    search.router,
    jobs.router,
    maps.router,
    collections.router,
    health.router,
)


def create_app(service: Service) -> FastAPI:
    """Return the ASGI app of a service; the caller starts and closes the service."""
    app = FastAPI(
        title="imgsearch",
        description="Image similarity search.",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        responses=docs.RESPONSES,
    )
    app.state.service = service
    for router in _ROUTERS:
        app.include_router(router)
    docs.add_docs(app)
    add_error_handlers(app)
    _add_middleware(app, service)
    return app


def _add_middleware(app: FastAPI, service: Service) -> None:
    """Add middleware, the innermost first."""
    settings = service.settings
    app.add_middleware(LimitMiddleware, service=service)
    app.add_middleware(AccessMiddleware, settings=settings)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["Content-Range", "ETag", "Location", "Retry-After"],
        )
    embeddable = bool(settings.cors_origins)
    app.add_middleware(ResponseMiddleware, metrics=service.metrics, embeddable=embeddable)
    app.add_middleware(_PageLinks)


def mount_page(app: FastAPI, page: ASGIApp) -> None:
    """Serve the page under /ui, behind the API's middleware. An app may be running already."""
    app.mount(_PAGE_PATH, page)


class _PageLinks:
    """Serves /ui/v1 as /v1, as the page links to the API relative to its own address."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if path.startswith(f"{_PAGE_PATH}/v1/"):
            raw_path = scope.get("raw_path", b"").removeprefix(_PAGE_PATH.encode())
            scope = {**scope, "path": path.removeprefix(_PAGE_PATH), "raw_path": raw_path}
        await self._app(scope, receive, send)


class PagePort:
    """The same app for the page's own port, where the page is also at /."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if path != _PAGE_PATH and not path.startswith((_PAGE_PATH + "/", "/v1/")):
            raw_path = _PAGE_PATH.encode() + scope.get("raw_path", b"")
            scope = {**scope, "path": _PAGE_PATH + path, "raw_path": raw_path}
        await self._app(scope, receive, send)
