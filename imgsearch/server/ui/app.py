"""The page as an ASGI app: its own few routes, and of Gradio's what the page needs."""

from importlib.resources import files

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette._utils import get_route_path
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imgsearch import __version__
from imgsearch.server.errors import add_error_handlers, problem
from imgsearch.server.service import Service
from imgsearch.server.ui.views import Views

# Gradio has some fifty more, which fetch files, take uploads or show other visitors. By its
# `app_id` the page learns that the server is back.
_GRADIO = frozenset({"/", "/config", "/theme.css", "/favicon.ico", "/gradio_api/app_id"})
_ASKING = "/gradio_api/run/predict"
_GRADIO_FOLDERS = ("/assets/", "/static/")
_OWN = ("/page.css", "/page.js", "/pictures")

# Gradio writes scripts into its page, and makes functions of texts. Whatever it may ask for, the
# browser fetches nothing from another host.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "manifest-src 'self'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}
_MEDIA_TYPES = {"page.css": "text/css", "page.js": "text/javascript"}


class Parts:
    """Sends each request to the app that answers it, or answers 404."""

    def __init__(self, gradio: ASGIApp, asking: ASGIApp, own: ASGIApp) -> None:
        """`asking` is where Gradio's questions go; the rest of `gradio` are files."""
        self._gradio = gradio
        self._asking = asking
        self._own = own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app_for(scope)(scope, receive, send_on)

    def _app_for(self, scope: Scope) -> ASGIApp:
        path = get_route_path(scope)
        if scope["type"] != "http":
            return problem(404, "not-found", "there is nothing here")
        if path.startswith(_OWN):
            return self._own
        if path == _ASKING:
            return self._asking
        if path in _GRADIO or path.startswith(_GRADIO_FOLDERS):
            return self._gradio
        return problem(404, "not-found", "there is nothing here")


def own_app(service: Service, views: Views) -> FastAPI:
    """Return the app of the page's style, its script, and query images."""
    app = FastAPI(openapi_url=None, version=__version__)
    app.state.service = service
    add_error_handlers(app)
    folder = files("imgsearch.server.ui") / "static"
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in _MEDIA_TYPES}

    @app.get("/page.css")
    @app.get("/page.js")
    async def static(request: Request) -> Response:
        name = request.url.path.rpartition("/")[2]
        headers = {"Cache-Control": "no-cache"}
        return Response(texts[name], media_type=_MEDIA_TYPES[name], headers=headers)

    @app.post("/pictures")
    async def store(request: Request) -> JSONResponse:
        """Store an image, the body as it is, to search with."""
        return JSONResponse({"picture": await views.images.add(await request.body())})

    @app.get("/pictures/{name}")
    async def query_image(name: str) -> Response:
        headers = {"Cache-Control": "private, max-age=3600"}
        return Response(views.images.get(name).preview, media_type="image/webp", headers=headers)

    return app
