"""The documentation at /docs: Swagger, from files of this machine instead of another host's."""

import base64
import hashlib
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse

from imgsearch.server.error_responses import MEDIA_TYPE
from imgsearch.server.errors import RefusedError

router = APIRouter(include_in_schema=False)

_FILES = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png")
_KEPT = {"Cache-Control": "max-age=86400"}

# What any request may meet, beside what its own endpoint says.
_PROBLEMS = {
    400: "The question makes no sense, or the body is no form.",
    401: "An API key is needed.",
    403: "Pages of this origin may not call the service.",
    404: "There is no such thing.",
    408: "The request came too slowly.",
    409: "The collection was made by another model, or jobs are at work in it.",
    413: "The request is too large: over 64 KiB, or over `--max-body` for a form with files.",
    416: "The image has no bytes in this range.",
    421: "The service is not called by this name.",
    422: "The request, or a picture in it, cannot be used.",
    429: "Too many requests are under way; `Retry-After` says when to come again.",
    500: "An internal error, or the data directory cannot be written to.",
    503: "The store or the model is away; `Retry-After` says when to come again.",
    507: "The disk is full.",
}
_EXAMPLE = {
    "type": "urn:imgsearch:problem:collection-not-found",
    "title": "Not Found",
    "status": 404,
    "detail": "no collection shoes here (there is images); `imgsearch ingest` makes one",
}
# Each of them will do.
_KEYS = {
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer"},
}
_SCHEMA = {
    "type": "object",
    "title": "Problem",
    "description": "What went wrong, by RFC 9457.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "description": "Names the problem; stays as it is."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What failed, and what to do."},
    },
    "example": _EXAMPLE,
}


def describe_problems(app: FastAPI) -> None:
    """Add to the app's OpenAPI what every endpoint may answer when something goes wrong."""
    made: Any = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = made()
            schema.setdefault("components", {}).setdefault("schemas", {})["Problem"] = _SCHEMA
            if app.state.service.settings.api_key:
                schema["components"]["securitySchemes"] = _KEYS
                schema["security"] = [{name: []} for name in _KEYS]
            for operations in schema["paths"].values():
                for operation in operations.values():
                    _add_problems(operation["responses"])
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _add_problems(responses: dict[str, Any]) -> None:
    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    for status, description in _PROBLEMS.items():
        responses[str(status)] = {"description": description, "content": {MEDIA_TYPE: problem}}


@router.get("/docs")
async def docs() -> HTMLResponse:
    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="imgsearch",
        swagger_js_url="/docs/swagger-ui-bundle.js",
        swagger_css_url="/docs/swagger-ui.css",
        swagger_favicon_url="/docs/favicon.png",
    )
    text = bytes(page.body).decode()
    scripts = " ".join(f"'sha256-{_digest(each)}'" for each in re.findall(_SCRIPT, text))
    policy = (
        f"default-src 'none'; script-src 'self' {scripts}; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; connect-src 'self'; frame-ancestors 'none'"
    )
    return HTMLResponse(text, headers={"Content-Security-Policy": policy})


_SCRIPT = re.compile(r"<script>(.*?)</script>", re.S)


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _file(name: str) -> Path:
    package = find_spec("fastapi_offline")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).with_name("static") / name


@router.get("/docs/{name}")
async def file(name: str) -> FileResponse:
    """One of Swagger's own files."""
    if name not in _FILES:
        raise RefusedError(404, "not-found", f"there is no {name[:100]!r} here")
    return FileResponse(_file(name), headers=_KEPT)
