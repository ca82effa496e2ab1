"""ASGI requests and answers that are changed on their way to Gradio and back."""

import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Message, Receive, Scope, Send


class Sent:
    """Sends what Gradio answers, without its permissions for pages of other origins."""

    def __init__(self, send: Send, headers: Mapping[str, str] | None = None) -> None:
        """`headers` are further ones."""
        self._send = send
        self._headers = headers or {}

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name in [each for each in headers if each.startswith("access-control-")]:
                del headers[name]
            for name, value in self._headers.items():
                headers[name] = value
        await self._send(message)


class Rewritten:
    """Sends an answer with its JSON rewritten: as a whole, or event by event."""

    def __init__(self, send: Send, rewrite: Callable[[Any], Any]) -> None:
        self._send = Sent(send)
        self._rewrite = rewrite
        self._start: Message = {}
        self._is_stream = False
        self._received = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            kind = Headers(scope=message).get("content-type", "")
            self._is_stream = kind.startswith("text/event-stream")
            if self._is_stream:
                await self._send(message)
            return
        self._received += message.get("body", b"")
        more = message.get("more_body", False)
        if self._is_stream:
            *events, self._received = self._received.split(b"\n\n")
            body = b"".join(self._event(each) + b"\n\n" for each in events)
            await self._send({"type": "http.response.body", "body": body, "more_body": more})
        elif not more:
            body = self._json(self._received)
            MutableHeaders(scope=self._start)["Content-Length"] = str(len(body))
            await self._send(self._start)
            await self._send({"type": "http.response.body", "body": body})

    def _event(self, event: bytes) -> bytes:
        lines = event.split(b"\n")
        return b"\n".join(
            b"data: " + self._json(line[6:]) if line.startswith(b"data: ") else line
            for line in lines
        )

    def _json(self, text: bytes) -> bytes:
        try:
            return json.dumps(self._rewrite(json.loads(text))).encode()
        except ValueError:  # Gradio's plain texts
            return text


def without(scope: Scope, *names: bytes) -> Scope:
    """Return a copy of a scope without some headers."""
    return {**scope, "headers": [each for each in scope["headers"] if each[0] not in names]}


def with_json(scope: Scope, length: int) -> Scope:
    """Return the scope of a request with `length` bytes of JSON; its answer is not compressed."""
    names = (b"content-length", b"content-type", b"transfer-encoding", b"accept-encoding")
    scope = without(scope, *names)
    kind = (b"content-type", b"application/json")
    scope["headers"] += [kind, (b"content-length", str(length).encode())]
    return scope


def with_path(scope: Scope, old: str, new: str) -> Scope:
    """Return the scope of the same request for another path: `new` for `old` at its end."""
    raw = scope.get("raw_path") or scope["path"].encode()
    end = quote(old).encode()
    return {
        **scope,
        "path": scope["path"].removesuffix(old) + new,
        "raw_path": raw.removesuffix(end) + quote(new).encode(),
    }


def replay(content: bytes, receive: Receive) -> Receive:
    """Return a `receive` for a body that has been read already."""
    messages: list[Message] = [{"type": "http.request", "body": content, "more_body": False}]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again
