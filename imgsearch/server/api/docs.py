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

# Errors of any endpoint, in addition to its own responses.
_PROBLEMS = {
    400: "The request makes no sense, or its body is not a valid form.",
    401: "An API key is required.",
    403: "Pages of this origin may not call the service.",
    404: "The collection, record, image, job or path does not exist.",
    408: "The request arrived too slowly.",
    409: "The collection was made by another model, or jobs are writing to it.",
    413: "The request is too large: over 64 KiB, or over `--max-body` for a form with files.",
    416: "The image has no bytes in this range.",
    421: "The service is not known by this host name.",
    422: "The request, or an image in it, is unusable.",
    429: "Too many requests are in progress; `Retry-After` says when to retry.",
    500: "An internal error, or the data directory is not writable.",
    503: "The store or the model is unavailable; `Retry-After` says when to retry.",
    507: "The disk is full.",
}
_EXAMPLE = {
    "type": "urn:imgsearch:problem:collection-not-found",
    "title": "Not Found",
    "status": 404,
    "detail": "no collection shoes here (there is images); `imgsearch ingest` makes one",
}
# Alternatives.
_KEYS = {
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer"},
}
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
    "example": _EXAMPLE,
}


def add_docs(app: FastAPI) -> None:
    """Serve the documentation, with error responses and the API key in an app's OpenAPI."""
    app.include_router(router)
    app.mount("/docs", StaticFiles(packages=[("fastapi_offline", "static")]))
    generate: Any = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = generate()
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


_SCRIPT = re.compile(r"<script>(.*?)</script>", re.S)


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
