"""Answers addresses of the page with HTML."""

import dataclasses
import logging
from dataclasses import dataclass

from imgsearch.errors import CollectionNotFoundError, ImgsearchError
from imgsearch.search import SearchRequest
from imgsearch.server.service import SearchResult, Service
from imgsearch.server.ui.fields import Overviews, selected
from imgsearch.server.ui.query_images import QueryImages
from imgsearch.server.ui.rendering import render
from imgsearch.server.ui.state import SearchState
from imgsearch.types import ImageRecord

log = logging.getLogger("imgsearch.server")

_INTERNAL = "internal error; see the server's log"


@dataclass(frozen=True, slots=True)
class View:
    """The query and the results at an address as HTML, and the state of the controls."""

    query: str
    results: str
    state: SearchState


class Views:
    """Answers addresses. Errors are part of the view, in the words of the command line."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._overviews = Overviews(service)
        self.images = QueryImages(service.settings.limits.pixels)

    @property
    def _collection(self) -> str:
        return self._service.settings.collection

    async def show(self, address: str) -> View:
        """Return the view at an address; never raises."""
        state, query = SearchState(), ""
        try:
            state = SearchState.parse(address)
            record = await self._record(state)
            query = render("query.html", state=state, record=record, collection=self._collection)
            results = await self._results(state, record)
        except CollectionNotFoundError as error:
            results = render(
                "nothing.html",
                collection=self._collection,
                state=state,
                elsewhere=self._service.settings.store is not None,
                reason=self._service.redact(error),
            )
        except ImgsearchError as error:
            results = render("trouble.html", state=state, reason=self._service.redact(error))
        except Exception as error:
            log.error("internal error, please report it: %s: %s", type(error).__name__, error)
            results = render("trouble.html", state=state, reason=_INTERNAL)
        # By the address, the page knows whether this answers what it shows by now.
        return View(query, render("answer.html", address=address, results=results), state)

    async def _record(self, state: SearchState) -> ImageRecord | None:
        """The record to search with. Raises ImgsearchError if the query image is unavailable."""
        if state.image:
            self.images.get(state.image)
        return await self._service.record(state.record) if state.record else None

    async def _results(self, state: SearchState, record: ImageRecord | None) -> str:
        if state.is_empty and not state.where:
            overview = await self._overviews.get()
            return render("start.html", overview=overview, collection=self._collection, state=state)
        if state.is_empty:
            return await self._filtered(state)
        question = self._question(state, record)
        answer = await self._service.search(question)
        if answer.hits:
            return render("hits.html", answer=answer, state=state)
        best = await self._best(question)
        return render("no_hits.html", state=state, answer=answer, best=best)

    async def _filtered(self, state: SearchState) -> str:
        """Filters alone: how many images pass, and some of them."""
        records = await self._service.records(limit=state.k, where=state.where)
        count = await self._service.count(state.where)
        return render(
            "filtered.html",
            state=state,
            collection=self._collection,
            records=records,
            count=count,
        )

    def _question(self, state: SearchState, record: ImageRecord | None) -> SearchRequest:
        question = SearchRequest(
            text=state.words,
            region=state.area if state.has_image else None,
            k=state.k,
            where=state.where,
            # It is a similarity to an image: for words alone it has no meaning.
            min_score=state.min_score if state.has_image else None,
        )
        if state.image:
            return dataclasses.replace(question, images=[self.images.get(state.image).file])
        return dataclasses.replace(question, records=[record.id]) if record else question

    async def _best(self, question: SearchRequest) -> SearchResult:
        """What would be found without the minimum score."""
        return await self._service.search(dataclasses.replace(question, k=1, min_score=None))

    async def filters(self, address: str) -> str:
        """Return the form of the filters, set as an address says; empty without a collection."""
        try:
            state = SearchState.parse(address)
            overview = await self._overviews.get()
        except ImgsearchError:  # the view itself says so
            return render("filters.html", filters=(), settings={}, others=(), nothing=True)
        settings, others = selected(state.where)
        known = {each.name for each in overview.filters}
        others += [
            f"{name}{operator}{value}"
            for (name, operator), value in settings.items()
            if name not in known
        ]
        return render("filters.html", filters=overview.filters, settings=settings, others=others)
