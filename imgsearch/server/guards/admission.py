"""How many requests are under way at once; who comes on top is told to come again."""

from starlette.types import ASGIApp, Receive, Scope, Send

from imgsearch.server.problems import RETRY_SECONDS, problem
from imgsearch.server.service import Service

# Answered whatever the load is, so that nobody restarts a service because it is busy.
_ALWAYS = frozenset({"/healthz", "/readyz", "/metrics"})


class Admission:
    """Bounds what waits, and so the memory and the time that an answer takes."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service
        self._most = service.settings.limits.requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _ALWAYS:
            await self._app(scope, receive, send)
            return
        retry = {"Retry-After": str(RETRY_SECONDS)}
        if self._service.state != "ready":
            detail = f"the service is {self._service.state}; try again in a moment"
            await problem(503, "not-ready", detail, retry)(scope, receive, send)
        elif self._service.in_flight >= self._most:
            detail = f"{self._most} requests are under way; try again in a moment"
            await problem(429, "overloaded", detail, retry)(scope, receive, send)
        else:
            self._service.in_flight += 1
            try:
                await self._app(scope, receive, send)
            finally:
                self._service.in_flight -= 1
