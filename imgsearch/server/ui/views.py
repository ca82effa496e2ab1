"""Answers searches with HTML. Errors are part of it, in the words of the command line."""

import asyncio
import dataclasses
import logging
import threading
from dataclasses import dataclass
from pathlib import Path

from imgsearch.errors import CollectionNotFoundError, ImgsearchError, UsageError
from imgsearch.search import SearchRequest
from imgsearch.server.searches import SearchResult
from imgsearch.server.service import Service
from imgsearch.server.ui.fields import Filter, Overviews, settings
from imgsearch.server.ui.query_images import QueryImages
from imgsearch.server.ui.rendering import render
from imgsearch.server.ui.state import SearchState
from imgsearch.types import ImageRecord

log = logging.getLogger("imgsearch.server")

# Gradio's own preview of an upload is fetched while the search runs.
_PREVIEW_SECONDS = 10.0
_INTERNAL = "internal error; see the server's log"


@dataclass(frozen=True, slots=True)
class View:
    """What the page shows of a search: the query image and the results as HTML."""

    state: SearchState
    address: str
    query: str
    results: str


class Views:
    """Answers searches in the default collection."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._overviews = Overviews(service)
        limits = service.settings.limits
        self.images = QueryImages(limits.pixels, limits.body)

    @property
    def collection(self) -> str:
        return self._service.settings.collection

    async def visit(self, address: str) -> View:
        """Return the view at an address; never raises."""
        try:
            state = SearchState.parse(address)
        except UsageError as error:
            return View(SearchState(), address, "", self.error(SearchState(), error))
        return dataclasses.replace(await self.show(state), address=address)

    async def show_with(self, state: SearchState, image: Path) -> View:
        """Return the view of a search with a new image, whose file is deleted; never raises."""
        try:
            name = await self.images.add(await asyncio.to_thread(take, image))
        except Exception as error:
            return dataclasses.replace(await self.show(state), results=self.error(state, error))
        return await self.show(dataclasses.replace(state, image=name, record="", region=""))

    async def show(self, state: SearchState) -> View:
        """Return the view of a search; never raises."""
        query = ""
        try:
            record = await self._service.record(state.record) if state.record else None
            image = self.images.get(state.image) if state.image else None
            query = render(
                "query.html", state=state, record=record, image=image, collection=self.collection
            )
            results = await self._results(state, record)
        except Exception as error:
            results = self.error(state, error)
        return View(state, state.address, query, results)

    def error(self, state: SearchState, error: Exception) -> str:
        """Return the HTML for an error, with ways to go on."""
        if isinstance(error, CollectionNotFoundError):
            return render(
                "no_collection.html",
                collection=self.collection,
                state=state,
                elsewhere=self._service.settings.store is not None,
                reason=self._service.redact(error),
            )
        if isinstance(error, ImgsearchError):
            reason = self._service.redact(error)
        else:
            log.error("internal error, please report it: %s: %s", type(error).__name__, error)
            reason = _INTERNAL
        return render("error.html", state=state, reason=reason)

    async def _results(self, state: SearchState, record: ImageRecord | None) -> str:
        if state.is_empty and not state.where:
            overview = await self._overviews.get()
            return render("start.html", overview=overview, collection=self.collection, state=state)
        if state.is_empty:
            return await self._filtered(state)
        request = self._request(state, record)
        result = await self._service.searches.find(request)
        if result.hits:
            return render("hits.html", result=result, state=state)
        return render("no_hits.html", state=state, result=result, best=await self._best(request))

    async def _filtered(self, state: SearchState) -> str:
        """Filters alone: how many images pass, and some of them."""
        records = await self._service.records(limit=state.k, where=state.where)
        # Fewer than were wanted are all that pass.
        count = len(records)
        if count == state.k:
            count = await self._service.count(state.where)
        return render(
            "filtered.html", state=state, collection=self.collection, records=records, count=count
        )

    def _request(self, state: SearchState, record: ImageRecord | None) -> SearchRequest:
        return SearchRequest(
            images=[self.images.get(state.image).file] if state.image else (),
            records=[record.id] if record and not state.image else (),
            text=state.text,
            region=state.area if state.has_image else None,
            k=state.k,
            where=state.where,
            # It is a similarity to an image: for text alone it has no meaning.
            min_score=state.min_score if state.has_image else None,
            confident=state.confident and state.has_image,
        )

    async def _best(self, request: SearchRequest) -> SearchResult:
        """What would be found without the minimum score, and by chance."""
        anything = dataclasses.replace(request, k=1, min_score=None, confident=False)
        return await self._service.searches.find(anything)

    async def filters(self, state: SearchState) -> list[tuple[Filter, str]]:
        """Return the filters of the collection and their values; none without a collection."""
        try:
            filters = (await self._overviews.get()).filters
        except ImgsearchError:  # the view itself says so
            return []
        return list(zip(filters, settings(filters, state.where)[0], strict=True))


def take(path: Path) -> bytes:
    """Return the content of an upload, which is deleted as soon as a browser has shown it."""
    content = path.read_bytes()
    deleting = threading.Timer(_PREVIEW_SECONDS, path.unlink, kwargs={"missing_ok": True})
    deleting.daemon = True
    deleting.start()
    return content
