"""Health, readiness and metrics."""

from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel

from imgsearch.server.api.dependencies import TheService
from imgsearch.server.errors import RefusedError
from imgsearch.server.service import PageState

router = APIRouter(tags=["health"])


class Health(BaseModel):
    status: Literal["ok"] = "ok"


class Life(Health):
    page: PageState
    """Whether the page is served. The API does not depend on it; the log has the reason."""


@router.get("/healthz")
async def health(service: TheService) -> Life:
    """Whether the process answers at all."""
    return Life(page=service.page)


@router.get("/readyz")
async def ready(service: TheService) -> Health:
    """Whether the model and the store are loaded, and the service is not shutting down."""
    if service.readiness != "ready":
        raise RefusedError(503, "not-ready", f"the service is {service.readiness}")
    return Health()


@router.get("/metrics", response_class=Response)
async def metrics(service: TheService) -> Response:
    """For Prometheus: latency by stage, queue depth, batch sizes, errors by kind."""
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")
