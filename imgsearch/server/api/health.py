"""Health, readiness and metrics."""

from typing import Literal

from fastapi import Response
from pydantic import BaseModel

from imgsearch.server.api.routing import Router, ServiceDep
from imgsearch.server.errors import not_ready
from imgsearch.server.service import PageState

router = Router(tags=["health"])


class Health(BaseModel):
    status: Literal["ok"] = "ok"


class Life(Health):
    page: PageState
    """State of the page, which the API does not depend on; the log has details."""


@router.get("/healthz")
async def health(service: ServiceDep) -> Life:
    """Return 200 while the process responds."""
    return Life(page=service.page)


@router.get("/readyz")
async def ready(service: ServiceDep) -> Health:
    """Return 200 once model and store are loaded, until the service shuts down."""
    if service.readiness != "ready":
        raise not_ready(f"the service is {service.readiness}")
    return Health()


@router.get("/metrics", response_class=Response)
async def metrics(service: ServiceDep) -> Response:
    """Return Prometheus metrics: latency by stage, queue depth, batch sizes, errors by kind."""
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")
