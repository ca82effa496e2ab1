"""Response headers, request metrics, and the response to unexpected errors."""

import json
import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imgsearch.server.errors import MEDIA_TYPE, internal_error
from imgsearch.server.metrics import Metrics

_SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-site",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class ResponseMiddleware:
    """The outermost middleware. A client that disconnects is no error."""

    def __init__(self, app: ASGIApp, metrics: Metrics, *, embeddable: bool = False) -> None:
        """`embeddable` lets pages of other sites show images."""
        self._app = app
        self._metrics = metrics
        self._embeddable = embeddable

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 0
        is_problem = False

        async def send_with_headers(message: Message) -> None:
            nonlocal status, is_problem
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                if self._embeddable and headers.get("content-type", "").startswith("image/"):
                    headers["Cross-Origin-Resource-Policy"] = "cross-origin"
                for name, value in _SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                is_problem = headers.get("content-type") == MEDIA_TYPE
            elif is_problem and (body := message.get("body")):
                self._metrics.error(json.loads(body)["type"].rpartition(":")[2])
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:
            response = internal_error(error)
            # If the response has begun, the server closes the connection.
            if not status:
                await response(scope, receive, send_with_headers)
        finally:
            self._metrics.request(_route(scope), status, time.perf_counter() - started)


def _route(scope: Scope) -> str:
    """Return the route's pattern; the path would make a metric for every record."""
    route = scope.get("route")
    return getattr(route, "path", "none")
