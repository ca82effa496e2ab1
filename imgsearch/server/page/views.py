"""What the page shows at an address."""

import dataclasses
import logging
from dataclasses import dataclass

from imgsearch.errors import CollectionNotFoundError, ImgsearchError
from imgsearch.records import ImageRecord
from imgsearch.server.page.fields import Overviews, chosen
from imgsearch.server.page.held import HeldPictures
from imgsearch.server.page.links import Asked
from imgsearch.server.page.rendering import render
from imgsearch.server.questions import Answer, Question
from imgsearch.server.service import Service

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
        asked = Asked()
        try:
            asked = Asked.at(address)
            return await self._view(asked)
        except CollectionNotFoundError as error:
            results = render(
                "nothing.html", collection=self._collection, reason=self._service.told(error)
            )
        except ImgsearchError as error:
            results = render("trouble.html", reason=self._service.told(error))
        except Exception as error:
            log.error("internal error, please report it: %s: %s", type(error).__name__, error)
            results = render("trouble.html", reason=_INTERNAL)
        return View("", results, asked)

    async def _view(self, asked: Asked) -> View:
        if asked.is_empty:
            overview = await self._overviews.get()
            start = render(
                "start.html", overview=overview, collection=self._collection, asked=asked
            )
            return View("", start, asked)
        question, record = await self._question(asked)
        query = render("query.html", asked=asked, record=record, collection=self._collection)
        answer = await self._service.search(question)
        if answer.hits:
            results = render("hits.html", answer=answer, asked=asked)
        else:
            best = await self._best(question)
            results = render("no_hits.html", asked=asked, answer=answer, best=best)
        return View(query, results, asked)

    async def _question(self, asked: Asked) -> tuple[Question, ImageRecord | None]:
        """The question, and the record that it is about."""
        record = await self._service.record(asked.record) if asked.record else None
        question = Question(
            text=asked.words,
            region=asked.area,
            k=asked.k,
            where=asked.where,
            min_score=asked.min_score,
        )
        if asked.picture:
            held = self.held.get(asked.picture)
            return dataclasses.replace(question, pictures=[held.file]), record
        if record is None:
            return question, None
        if question.region:  # its vector is that of the whole
            picture = await self._service.read_picture(record)
            return dataclasses.replace(question, pictures=[picture]), record
        return dataclasses.replace(question, records=[record.id]), record

    async def _best(self, question: Question) -> Answer:
        """What would be found without the minimum score."""
        return await self._service.search(dataclasses.replace(question, k=1, min_score=None))

    async def filters(self, address: str) -> str:
        """The form of the filters, set as an address says; none where there is no collection."""
        try:
            asked = Asked.at(address)
            overview = await self._overviews.get()
        except ImgsearchError:  # told in the view itself
            return ""
        settings, others = chosen(asked.where)
        known = {each.name for each in overview.filters}
        others += [
            f"{name}{operator}{value}"
            for (name, operator), value in settings.items()
            if name not in known
        ]
        return render("filters.html", filters=overview.filters, settings=settings, others=others)
