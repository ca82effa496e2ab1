"""What the page shows at an address."""

import dataclasses
import logging
from dataclasses import dataclass

from imgsearch.errors import CollectionNotFoundError, ImgsearchError
from imgsearch.server.requests import Answer, Question
from imgsearch.server.service import Service
from imgsearch.server.ui.fields import Overviews, chosen
from imgsearch.server.ui.held import HeldPictures
from imgsearch.server.ui.links import Asked
from imgsearch.server.ui.rendering import render
from imgsearch.types import ImageRecord

log = logging.getLogger("imgsearch.server")

_INTERNAL = "internal error; the server's log tells more"


@dataclass(frozen=True, slots=True)
class View:
    """What an address shows: the parts as HTML, and how the search is set."""

    query: str
    results: str
    asked: Asked


class Views:
    """Answers addresses; what goes wrong is told in the page, in the words of the command line."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._overviews = Overviews(service)
        self.held = HeldPictures(service.settings.limits.pixels)

    @property
    def _collection(self) -> str:
        return self._service.settings.collection

    async def show(self, address: str) -> View:
        """The view at an address; it never raises."""
        asked, query = Asked(), ""
        try:
            asked = Asked.at(address)
            record = await self._asked_about(asked)
            query = render("query.html", asked=asked, record=record, collection=self._collection)
            results = await self._results(asked, record)
        except CollectionNotFoundError as error:
            results = render(
                "nothing.html",
                collection=self._collection,
                asked=asked,
                elsewhere=self._service.settings.store is not None,
                reason=self._service.told(error),
            )
        except ImgsearchError as error:
            results = render("trouble.html", asked=asked, reason=self._service.told(error))
        except Exception as error:
            log.error("internal error, please report it: %s: %s", type(error).__name__, error)
            results = render("trouble.html", asked=asked, reason=_INTERNAL)
        # By the address the page tells whether this answers what it asks for by now.
        return View(query, render("answer.html", address=address, results=results), asked)

    async def _asked_about(self, asked: Asked) -> ImageRecord | None:
        """The record whose picture is searched with; raises if the picture is not to be had."""
        if asked.picture:
            self.held.get(asked.picture)
        return await self._service.record(asked.record) if asked.record else None

    async def _results(self, asked: Asked, record: ImageRecord | None) -> str:
        if asked.is_empty and not asked.where:
            overview = await self._overviews.get()
            return render("start.html", overview=overview, collection=self._collection, asked=asked)
        if asked.is_empty:
            return await self._filtered(asked)
        question = self._question(asked, record)
        answer = await self._service.search(question)
        if answer.hits:
            return render("hits.html", answer=answer, asked=asked)
        best = await self._best(question)
        return render("no_hits.html", asked=asked, answer=answer, best=best)

    async def _filtered(self, asked: Asked) -> str:
        """Filters alone: how many pictures pass, and some of them."""
        records = await self._service.records(limit=asked.k, where=asked.where)
        count = await self._service.count(asked.where)
        return render(
            "filtered.html",
            asked=asked,
            collection=self._collection,
            records=records,
            count=count,
        )

    def _question(self, asked: Asked, record: ImageRecord | None) -> Question:
        question = Question(
            text=asked.words,
            region=asked.area if asked.has_picture else None,
            k=asked.k,
            where=asked.where,
            # It is a similarity to a picture: with words alone it has no meaning.
            min_score=asked.min_score if asked.has_picture else None,
        )
        if asked.picture:
            return dataclasses.replace(question, pictures=[self.held.get(asked.picture).file])
        return dataclasses.replace(question, records=[record.id]) if record else question

    async def _best(self, question: Question) -> Answer:
        """What would be found without the minimum score."""
        return await self._service.search(dataclasses.replace(question, k=1, min_score=None))

    async def filters(self, address: str) -> str:
        """The form of the filters, set as an address says; none where there is no collection."""
        try:
            asked = Asked.at(address)
            overview = await self._overviews.get()
        except ImgsearchError:  # told in the view itself
            return render("filters.html", filters=(), settings={}, others=(), nothing=True)
        settings, others = chosen(asked.where)
        known = {each.name for each in overview.filters}
        others += [
            f"{name}{operator}{value}"
            for (name, operator), value in settings.items()
            if name not in known
        ]
        return render("filters.html", filters=overview.filters, settings=settings, others=others)
