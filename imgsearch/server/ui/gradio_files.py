"""The gate before Gradio's app: visitors share no files, and name none of this machine.

Gradio's own routes, mounted in another app, do not keep files apart. They copy any file that a
client names as the path of an input into a cache, serve the cache to everyone, hand the results of
a session to whoever knows its name, and allow pages of every origin to read all of it. So:

- An upload is stored by this module under an unguessable token, for one visitor and for a while.
- A file in a call must be an upload or a result of the same visitor; Gradio gets nothing else of
  what the client says about it, no URL above all, which it would fetch.
- Files in results leave as tokens of the visitor who gets them. No path of this machine leaves.
- Sessions and events belong to the visitor who began them.
- A route that is not listed here is a 404.

A visitor is a cookie, which the page and `/config` set; browsers and `gradio_client` send it on.
Clients without cookies, such as curl, are one visitor together: between them, only the unguessable
tokens and event ids keep files and results apart.
"""

import asyncio
import hashlib
import hmac
import json
import mimetypes
import os
import re
import secrets
import shutil
import time
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from starlette._utils import get_route_path
from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from imgsearch.errors import ImgsearchError
from imgsearch.server.errors import ApiError, bad_request, error_response, not_found
from imgsearch.server.ui.calls import Functions, check_arguments
from imgsearch.server.ui.messages import Rewritten, Sent, replay, with_json, with_path, without
from imgsearch.server.ui.visitor_files import FileLimits, VisitorFiles

if TYPE_CHECKING:
    import gradio as gr

COOKIE = "imgsearch_visitor"
_VISITOR = re.compile(r"[A-Za-z0-9_-]{43}")
_SESSION = re.compile(r"[A-Za-z0-9_-]{1,100}")

_API = "/gradio_api"
_UPLOAD = f"{_API}/upload"
_UPLOAD_PROGRESS = f"{_API}/upload_progress"
_FILE = f"{_API}/file="
_JOIN = f"{_API}/queue/join"
_DATA = f"{_API}/queue/data"
_OF_EVENTS = frozenset({f"{_API}/cancel", f"{_API}/reset"})
_HEARTBEAT = re.compile(rf"{_API}/heartbeat/({_SESSION.pattern})")
_NAMED = re.compile(rf"{_API}/(run|call|call/v2)/([^/]+)")
_EVENT = re.compile(rf"{_API}/call/(?:v2/)?[^/]+/([0-9a-f]{{32}})")
# These read files of Gradio's package, or describe the page: the same for every visitor.
_PUBLIC = frozenset(
    {
        "/",
        "/config",
        "/theme.css",
        "/favicon.ico",
        "/manifest.json",
        "/robots.txt",
        f"{_API}/info",  # "Use via API", and gradio_client
        f"{_API}/app_id",  # by which the page notices a restart
        f"{_API}/startup-events",
    }
)
_PUBLIC_FOLDERS = ("/assets/", "/static/")
_PAGE = frozenset({"/", "/config"})

# The rest of what Gradio would accept in a call is for its own use.
_CALL_KEYS = frozenset({"data", "event_data", "fn_index", "trigger_id", "session_hash"})
_FILES_PER_UPLOAD = 1000
_INTERNAL = "the server has ended this request"
_UPLOADS, _RESULTS = "uploads", "results"
# Events whose visitor is remembered; results of an older one cannot be fetched any more.
_MAX_EVENTS = 10_000
# What browsers show and cannot run scripts in; anything else is only downloaded.
_SHOWN = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", "image/avif"})
_FILE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "private, no-store",
}


class GradioFiles:
    """An ASGI app that lets through to Gradio what is safe; see the module."""

    def __init__(self, app: ASGIApp, blocks: "gr.Blocks", folder: Path, limits: FileLimits) -> None:
        """`app` serves `blocks`. `folder` is an empty one for this object alone.

        Gradio's cache moves into the folder, for the whole process: its components look the
        folder up at any time.
        """
        self._app = app
        self._functions = Functions(blocks)
        self._folder = folder.resolve()
        self._seconds = limits.seconds
        os.environ["GRADIO_TEMP_DIR"] = str(self._folder)
        for block in blocks.blocks.values():
            block.GRADIO_CACHE = str(self._folder)
        self._uploads = VisitorFiles(self._folder / _UPLOADS, limits)
        # By themselves, so that many results never displace an upload.
        self._results = VisitorFiles(self._folder / _RESULTS, limits)
        self._sweeping: asyncio.TimerHandle | None = None
        self._key = secrets.token_bytes(32)
        self._events: OrderedDict[str, str] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["type"] != "http":
                raise _nothing()
            await self._route(scope, receive, send)
        except ImgsearchError as error:
            await error_response(error)(scope, receive, send)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = get_route_path(scope), scope["method"]
        visitor = _visitor(scope)
        if method == "POST":
            if path == _UPLOAD:
                await (await self._upload(scope, receive, visitor))(scope, receive, send)
            else:
                await self._post(scope, receive, send, visitor)
        elif method not in ("GET", "HEAD"):
            raise _nothing()
        elif path in _PUBLIC or path.startswith(_PUBLIC_FOLDERS):
            headers = _page_headers(scope, visitor) if path in _PAGE else {}
            await self._app(scope, receive, Sent(send, headers))
        elif path.startswith(_FILE):
            await self._file(visitor, path.removeprefix(_FILE))(scope, receive, send)
        elif path == _UPLOAD_PROGRESS:  # uploads are not followed
            done = Response('data: {"msg": "done"}\n\n', media_type="text/event-stream")
            await done(scope, receive, send)
        else:
            await self._stream(scope, receive, send, visitor)

    async def _upload(self, scope: Scope, receive: Receive, visitor: str) -> Response:
        request = Request(scope, receive)
        try:
            async with request.form(max_files=_FILES_PER_UPLOAD, max_fields=10) as form:
                files = [each for each in form.getlist("files") if isinstance(each, UploadFile)]
                stored = [
                    await asyncio.to_thread(
                        self._uploads.add, visitor, each.filename or "", each.file
                    )
                    for each in files
                ]
        except MultiPartException as error:
            raise bad_request(error.message) from error
        except HTTPException as error:  # the same, where there is an app around this one
            raise bad_request(str(error.detail)) from error
        if not stored:
            raise bad_request('the form has no file named "files"')
        self._sweep_later()
        return JSONResponse([each.token for each in stored])

    def _file(self, visitor: str, token: str) -> Response:
        file = self._uploads.get(visitor, token) or self._results.get(visitor, token)
        if file is None:
            raise not_found("unknown-file", "this visitor has no such file, or it has expired")
        kind = mimetypes.guess_type(file.path.name)[0]
        is_shown = kind in _SHOWN
        return FileResponse(
            file.path,
            media_type=kind if is_shown else "application/octet-stream",
            filename=file.name,
            content_disposition_type="inline" if is_shown else "attachment",
            headers=_FILE_HEADERS,
        )

    async def _post(self, scope: Scope, receive: Receive, send: Send, visitor: str) -> None:
        """Let a call through, with its files and its session replaced."""
        path = get_route_path(scope)
        named = _NAMED.fullmatch(path)
        if not (named or path == _JOIN or path in _OF_EVENTS):
            raise _nothing()
        try:
            body = _parse(await Request(scope, receive).body())
            if path in _OF_EVENTS:
                self._check_event(visitor, body.get("event_id"))
                self._bind(visitor, body)
            else:
                route, name = named.groups() if named else ("", None)
                if name and route == "call/v2":  # the arguments by name
                    body = {"data": self._functions.positional(name, body)}
                    scope = with_path(scope, f"v2/{name}", name)
                body = self._call(visitor, body, name, public=route.startswith("call"))
            content = json.dumps(body).encode()
        except RecursionError as error:
            raise bad_request("the body is nested too deeply") from error
        answer = Rewritten(send, partial(self._answer, visitor, scope.get("root_path", "")))
        await self._app(with_json(scope, len(content)), replay(content, receive), answer)

    def _call(
        self, visitor: str, body: Mapping[str, Any], name: str | None, *, public: bool
    ) -> dict[str, Any]:
        """Return the body of a call of a function by name, or by index unless `public`."""
        keys = _CALL_KEYS - {"fn_index"} if public else _CALL_KEYS
        call = {key: value for key, value in body.items() if key in keys}
        self._bind(visitor, call)
        function = self._functions.find(name, call.get("fn_index"), call.get("session_hash"))
        call["data"] = self._incoming(visitor, call.get("data"))
        call["event_data"] = self._incoming(visitor, call.get("event_data"), lenient=True)
        check_arguments(function, call["data"], public=public)
        return call

    async def _stream(self, scope: Scope, receive: Receive, send: Send, visitor: str) -> None:
        """Let the results of an own session or event through."""
        path = get_route_path(scope)
        if path == _DATA:
            sessions = parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [])
            query = f"session_hash={self._session(visitor, sessions[0] if sessions else None)}"
            scope = {**scope, "query_string": query.encode()}
        elif event := _EVENT.fullmatch(path):
            self._check_event(visitor, event[1])
        elif beat := _HEARTBEAT.fullmatch(path):
            scope = with_path(scope, beat[1], self._session(visitor, beat[1]))
        else:
            raise _nothing()
        rewritten = Rewritten(send, partial(self._message, visitor, scope.get("root_path", "")))
        try:
            await self._app(without(scope, b"accept-encoding"), receive, rewritten)
        except RuntimeError as error:
            if not isinstance(error.__cause__, HTTPException):
                raise
            # Raised after the message that there is no such session.
            await rewritten({"type": "http.response.body", "body": b"", "more_body": False})

    def _incoming(self, visitor: str, value: Any, *, lenient: bool = False) -> Any:
        """Replace files by what Gradio may read. If `lenient`, unknown ones become None."""
        if isinstance(value, list):
            return [self._incoming(visitor, each, lenient=lenient) for each in value]
        if not isinstance(value, dict):
            return value
        if "path" not in value:
            return {
                key: self._incoming(visitor, each, lenient=lenient) for key, each in value.items()
            }
        token = value["path"] if isinstance(value["path"], str) else ""
        file = self._uploads.get(visitor, token) or self._results.get(visitor, token)
        if file:
            return _file_data(str(file.path), file.name, file.size)
        if lenient:
            return None
        detail = (
            "a file of this call was not uploaded by this visitor, or has expired: send it again"
        )
        raise ApiError(422, "unknown-file", detail)

    def _message(self, visitor: str, prefix: str, message: Any) -> Any:
        """Return a message of a stream. Gradio's own errors name this machine's files."""
        if isinstance(message, str):
            return _INTERNAL
        if isinstance(message, dict) and message.get("msg") == "unexpected_error":
            return {**message, "message": _INTERNAL}
        return self._outgoing(visitor, prefix, message)

    def _outgoing(self, visitor: str, prefix: str, value: Any) -> Any:
        """Replace files by tokens of the visitor. `prefix` is where the page is mounted."""
        if isinstance(value, list):
            return [self._outgoing(visitor, prefix, each) for each in value]
        if not isinstance(value, dict):
            return value
        path = value.get("path")
        if isinstance(path, str) and os.path.isabs(path):
            return self._result(visitor, prefix, Path(path), value)
        return {key: self._outgoing(visitor, prefix, each) for key, each in value.items()}

    def _result(
        self, visitor: str, prefix: str, path: Path, value: Mapping[str, Any]
    ) -> dict[str, Any]:
        name = str(value.get("orig_name") or path.name)
        try:
            real = path.resolve(strict=True)
            if not real.is_relative_to(self._folder):
                raise OSError("outside the folder")
            file = self._uploads.find(visitor, real) or self._results.find(visitor, real)
            file = file or self._results.link(visitor, name, real)
        except OSError:  # a mistake of the page's, whose path stays here all the same
            return _file_data("", name, 0)
        self._sweep_later()
        root = str(value.get("url") or "").partition(_FILE)[0]
        if not root.endswith(prefix):  # Gradio knows its prefix from the queue's requests alone
            root += prefix
        return _file_data(file.token, file.name, file.size, f"{root}{_FILE}{file.token}")

    def _answer(self, visitor: str, prefix: str, answer: Any) -> Any:
        """Remember whose event has begun."""
        if isinstance(answer, dict) and isinstance(event := answer.get("event_id"), str):
            self._events[event] = visitor
            while len(self._events) > _MAX_EVENTS:
                self._events.popitem(last=False)
        return self._outgoing(visitor, prefix, answer)

    def _check_event(self, visitor: str, event: Any) -> None:
        if not isinstance(event, str) or self._events.get(event) != visitor:
            raise not_found("unknown-event", "this visitor has no such event")

    def _bind(self, visitor: str, body: dict[str, Any]) -> None:
        if body.get("session_hash") is not None:
            body["session_hash"] = self._session(visitor, body["session_hash"])

    def _session(self, visitor: str, session: Any) -> str:
        """Return Gradio's name for a visitor's session; no other visitor can get the same."""
        if not isinstance(session, str) or not _SESSION.fullmatch(session):
            raise bad_request("the session has no usable name")
        text = f"{visitor}/{session}".encode()
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()

    def _sweep_later(self) -> None:
        if self._sweeping is None:
            loop = asyncio.get_running_loop()
            self._sweeping = loop.call_later(self._seconds / 4, self._sweep)

    def _sweep(self) -> None:
        """Delete expired files, and what Gradio has left in its cache for as long."""
        self._sweeping = None
        left = self._uploads.sweep() + self._results.sweep()
        oldest = time.time() - self._seconds
        for entry in self._folder.iterdir():
            if entry.name in (_UPLOADS, _RESULTS):
                continue
            times = [each.lstat().st_mtime for each in (entry, *entry.rglob("*"))]
            if max(times) < oldest:
                shutil.rmtree(entry, ignore_errors=True)
            left += 1
        if left:
            self._sweep_later()


def _nothing() -> ApiError:
    return not_found("not-found", "there is nothing here")


def _visitor(scope: Scope) -> str:
    """Return the visitor of a request; "" for those without a cookie."""
    visitor = Request(scope).cookies.get(COOKIE, "")
    return visitor if _VISITOR.fullmatch(visitor) else ""


def _page_headers(scope: Scope, visitor: str) -> dict[str, str]:
    """Return the headers of the page itself, with a cookie for a new visitor.

    No proxy may keep it for others: it has the host that the request gave, if only as
    `X-Forwarded-Host`.
    """
    headers = {"Cache-Control": "private, no-cache"}
    if not visitor:
        forwarded = Headers(scope=scope).get("x-forwarded-proto", "")
        secure = "; Secure" if "https" in (scope["scheme"], forwarded) else ""
        token = secrets.token_urlsafe(32)
        headers["Set-Cookie"] = f"{COOKIE}={token}; Path=/; HttpOnly; SameSite=Lax{secure}"
    return headers


def _parse(body: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(body)
    except ValueError as error:
        raise bad_request("the body is no JSON that can be read") from error
    if not isinstance(parsed, dict):
        raise bad_request("the body is no JSON object")
    return parsed


def _file_data(path: str, name: str, size: int, url: str | None = None) -> dict[str, Any]:
    """Return a file as Gradio describes one."""
    return {
        "path": path,
        "url": url,
        "size": size,
        "orig_name": name,
        "mime_type": mimetypes.guess_type(name)[0],
        "is_stream": False,
        "meta": {"_type": "gradio.FileData"},
    }
