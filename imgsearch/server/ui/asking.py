"""The page's questions, checked before Gradio answers them."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field, StrictInt, StrictStr, ValidationError
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imgsearch.server.errors import problem


class _Question(BaseModel):
    """What the page sends. Gradio's own errors repeat the question, or are tracebacks."""

    data: list[StrictStr | float] = Field(max_length=10)
    fn_index: StrictInt
    session_hash: StrictStr | None = Field(None, max_length=100)


class Asking:
    """Lets questions through to Gradio that name one of its functions."""

    def __init__(self, app: ASGIApp, functions: Mapping[int, int]) -> None:
        """`functions` has the number of inputs of each."""
        self._app = app
        self._functions = functions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await Request(scope, receive).body()
        try:
            question = _Question.model_validate_json(body)
            is_known = self._functions.get(question.fn_index) == len(question.data)
        except ValidationError:
            is_known = False
        if not is_known:
            refusal = problem(422, "invalid-request", "this is no question of the page's")
            await refusal(scope, receive, send)
            return
        replayed: list[Any] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_again() -> Message:
            return replayed.pop() if replayed else await receive()

        await self._app(scope, receive_again, send)
