"""The page's endpoint for programs: a Gradio client, or "Use via API"."""

import asyncio
import html
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import gradio as gr

from imgsearch.errors import ImgsearchError
from imgsearch.search import SearchRequest
from imgsearch.server.api.models import SearchAnswer
from imgsearch.server.service import Service
from imgsearch.server.ui.state import SearchState
from imgsearch.server.ui.views import take


def search_endpoint(service: Service) -> Callable[..., Awaitable[dict[str, Any]]]:
    """Return the function of `/search`."""

    async def search(
        image: gr.FileData | None = None,
        record: str = "",
        text: str = "",
        where: list[str] | None = None,
        region: str = "",
        k: int = 10,
        min_score: float | None = None,
        confident: bool = False,
    ) -> dict[str, Any]:
        """Find images by an example image, by a record's id, by text, or by several of them.

        `where` are conditions such as "year>=2012", which must all hold. `region` is the part of
        the image to search with: LEFT,TOP,RIGHT,BOTTOM in fractions. `confident` returns only
        hits that are hardly there by chance. Returns the same as the HTTP API's search.
        """
        file: Any = image  # Gradio passes a dict
        try:
            request = SearchRequest(
                images=[await asyncio.to_thread(take, Path(file["path"]))] if image else (),
                records=[record] if record else (),
                text=text,
                region=SearchState(region=region).area,
                k=k,
                where=where or (),
                min_score=min_score,
                confident=confident,
            )
            result = await service.searches.find(request)
        except ImgsearchError as error:
            # Gradio's page would show it as HTML.
            raise gr.Error(html.escape(service.redact(error)), print_exception=False) from None
        answer = SearchAnswer.from_result(result, show_path=service.settings.show_paths)
        return answer.model_dump(mode="json")

    return search
