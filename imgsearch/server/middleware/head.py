"""HEAD, for caches and load balancers, wherever there is GET."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Head:
    """Answers HEAD as GET is answered, without the body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        # Range is defined for GET alone.
        headers = [each for each in scope["headers"] if each[0] not in (b"range", b"if-range")]
        got = {**scope, "method": "GET", "headers": headers}
        try:
            await self._app(got, receive, without_body)
        finally:
            scope["route"] = got.get("route")
