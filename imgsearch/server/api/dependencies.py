"""What endpoints ask for."""

from typing import Annotated

from fastapi import Depends, Request

from imgsearch.server.service import Service


def service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


TheService = Annotated[Service, Depends(service_of)]
