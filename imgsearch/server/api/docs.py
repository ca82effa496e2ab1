"""The API documentation at /docs: Swagger UI, with files served by this machine."""

import base64
import hashlib
import re
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from imgsearch.server.api.routing import Router
from imgsearch.server.errors import MEDIA_TYPE

router = Router()

_ERRORS = {
    400: "The request makes no sense, or its body is not a valid form.",
    401: "An API key is required.",
    403: "Pages of this origin may not call the service.",
    404: "The collection, record, image, job or path does not exist.",
    408: "The request arrived too slowly.",
    409: "The collection was made by another model, or jobs are writing to it.",
    413: "The request is too large: over 64 KiB, over `--max-body` for a form with files, or over "
    "`--max-queries` searches.",
    416: "The image has no bytes in this range.",
    421: "The service is not known by this host name.",
    422: "The request, or an image in it, is unusable.",
    429: "Too many requests are in progress; `Retry-After` says when to retry.",
    500: "An internal error, or the data directory is not writable.",
    501: "The service lacks a library that this needs.",
    503: "The store or the model is unavailable; `Retry-After` says when to retry.",
    507: "The disk is full.",
}
_PROBLEM = {"$ref": "#/components/schemas/Problem"}
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": description, "content": {MEDIA_TYPE: {"schema": _PROBLEM}}}
    for status, description in _ERRORS.items()
}
"""Error responses of any endpoint, in addition to its own responses."""

_SCHEMA = {
    "type": "object",
    "title": "Problem",
    "description": "An error, by RFC 9457.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "description": "Identifies the problem; stable."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What failed, and what to do."},
    },
    "example": {
        "type": "urn:imgsearch:problem:collection-not-found",
        "title": "Not Found",
        "status": 404,
        "detail": "no collection shoes here (there is images); `imgsearch ingest` makes one",
    },
}
# Alternatives.
_KEYS = {
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer"},
}
_SCRIPT = re.compile(r"<script>(.*?)</script>", re.S)


def add_docs(app: FastAPI) -> None:
    """Serve the documentation; add the schema of errors and the API key to an app's OpenAPI.

    `fastapi.security` would describe the key by itself, but check it on every request a second
    time, after `middleware.access`.
    """
    app.include_router(router)
    app.mount("/docs", StaticFiles(packages=[("fastapi_offline", "static")]))
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = generate()
            schema["components"]["schemas"]["Problem"] = _SCHEMA
            if app.state.service.settings.api_key:
                schema["components"]["securitySchemes"] = _KEYS
                schema["security"] = [{name: []} for name in _KEYS]
        return generate()

    app.openapi = openapi  # type: ignore[method-assign]


@router.get("/docs", include_in_schema=False)
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


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
