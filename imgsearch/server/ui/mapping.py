"""The tab with the map of the collection: what it shows, and the job that draws the map."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from imgsearch.errors import ImgsearchError
from imgsearch.server.jobs.job import Job
from imgsearch.server.maps import MapState
from imgsearch.server.service import Service
from imgsearch.server.ui.rendering import render

_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class MapView:
    """What the tab shows as HTML, the label of the button that draws, and the job in progress."""

    status: str
    map: str
    button: str
    job: str


class Mapping:
    """Shows the map of the default collection of a service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def show(self) -> AsyncIterator[MapView]:
        """Yield the view, and again while a job draws the map; never raises."""
        job: Job | None = None
        error = ""
        while True:
            try:
                state = await self._service.maps.state(self._service.settings.collection)
            except ImgsearchError as failed:
                yield MapView(
                    render("map_error.html", reason=self._service.redact(failed)), "", "", ""
                )
                return
            if job and not state.job:  # it has ended
                with contextlib.suppress(ImgsearchError):
                    error = self._service.jobs.get(job.id).error or ""
            job = state.job
            yield self._view(state, self._service.redact_text(error))
            if not job or self._service.state != "ready":
                return
            await asyncio.sleep(_POLL_SECONDS)

    async def draw(self) -> AsyncIterator[MapView]:
        """Draw the map, and yield views until it is there; never raises."""
        try:
            await self._service.maps.draw(self._service.settings.collection)
        except ImgsearchError as failed:
            error = self._service.redact(failed)
            with contextlib.suppress(ImgsearchError):
                state = await self._service.maps.state(self._service.settings.collection)
                yield self._view(state, error)
            return
        async for view in self.show():
            yield view

    async def cancel(self, job_id: str | None) -> None:
        """Cancel a job, if it has not ended."""
        with contextlib.suppress(ImgsearchError):
            await self._service.cancel(job_id or "")

    def _view(self, state: MapState, error: str) -> MapView:
        collection = self._service.settings.collection
        about, job = state.about, state.job
        status = render(
            "map_status.html", about=about, images=state.images, job=job, error=error,
            age=_age(time.time() - about.drawn) if about else "", collection=collection,
        )  # fmt: skip
        shown = render("map.html", about=about, collection=collection) if about else ""
        label = "" if job or not state.images else "Update the map" if about else "Draw the map"
        return MapView(status, shown, label, job.id if job else "")


def _age(seconds: float) -> str:
    """Return how long ago something was, in one unit."""
    for name, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if (count := int(seconds / length)) >= 1:
            return f"{count} {name}{'s' if count > 1 else ''} ago"
    return "just now"
