"""Who may call: checks of the host name, the origin and the API key."""

import base64
import binascii
import hmac
import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from imgsearch.server.errors import ApiError, error_response
from imgsearch.server.settings import Settings

# Without a key: these reveal nothing about images, and orchestrators probe health without one.
_PUBLIC = frozenset({"/", "/healthz", "/readyz", "/docs", "/openapi.json"})
_PUBLIC_FOLDER = "/docs/"
# Probes use any name that their orchestrator has for the service.
_HEALTH = frozenset({"/healthz", "/readyz"})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_KEY_REQUIRED = (
    "an API key is required, as X-API-Key or as Authorization: Bearer; browsers send it as the "
    "password of any user"
)
# In this order: a browser that knows only the first challenge asks its user for the password.
_CHALLENGES = ('Basic realm="imgsearch", charset="UTF-8"', 'Bearer realm="imgsearch"')


class AccessMiddleware:
    """Rejects calls without the key, under an unknown host name, or from foreign pages.

    A page of another origin can send forms to any address that its visitor's browser reaches,
    127.0.0.1 included (cross-site request forgery). It can also resolve a name of its own to this
    service (DNS rebinding), and then has the same origin: so host names must be known (see
    `allowed_hosts`), unless a key is required. An IP address is no such name.

    Libraries do less: Starlette's TrustedHostMiddleware answers with a text/plain 400, and knows
    neither IP addresses nor probes (`TestOrigins`); `fastapi.security` checks a key only after the
    whole body has arrived, and on known routes only (`TestKey`).
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._key = settings.api_key.encode() if settings.api_key else None
        self._hosts = settings.hosts
        self._cors = frozenset(settings.cors_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = self._check(scope) if scope["type"] == "http" else None
        await (_response(error) if error else self._app)(scope, receive, send)

    def _check(self, scope: Scope) -> ApiError | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if scope["path"] not in _HEALTH and not self._is_known(host):
            detail = f"this service is not known as {host[:100]!r}; --allow-host adds a name"
            return ApiError(421, "unknown-host", detail)
        if scope["method"] not in _SAFE_METHODS and self._is_foreign(headers.get("origin"), host):
            detail = "pages of other origins may not call this service; --cors-origin allows one"
            return ApiError(403, "foreign-origin", detail)
        if self._key and not _is_public(scope["path"]) and not self._has_key(headers, self._key):
            return ApiError(401, "unauthorized", _KEY_REQUIRED)
        return None

    def _is_known(self, host: str) -> bool:
        """Return whether a Host header names this service, or is an IP address."""
        if self._hosts is None:
            return True
        name = _hostname(host)
        return name in self._hosts or _is_ip_address(name)

    def _is_foreign(self, origin: str | None, host: str) -> bool:
        if origin is None or origin in self._cors or "*" in self._cors:
            return False
        try:
            return urlsplit(origin).netloc != host
        except ValueError:
            return True

    def _has_key(self, headers: Headers, key: bytes) -> bool:
        # Headers are bytes, which Starlette decodes as Latin-1.
        direct = headers.get("x-api-key", "").encode("latin-1")
        given = direct or _key_in(headers.get("authorization", "").encode("latin-1"))
        # In constant time, so that the time does not reveal how much of a guess was right.
        return hmac.compare_digest(given, key)


def _response(error: ApiError) -> Response:
    response = error_response(error)
    if error.status == 401:
        for challenge in _CHALLENGES:
            response.headers.append("WWW-Authenticate", challenge)
    return response


def _is_public(path: str) -> bool:
    return path in _PUBLIC or path.startswith(_PUBLIC_FOLDER)


def _hostname(host: str) -> str:
    """Return the name in a Host header, without the port and a trailing dot."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".") if "@" not in host else ""
    except ValueError:
        return ""


def _is_ip_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _key_in(authorization: bytes) -> bytes:
    """Return a Bearer token, or the password of Basic, which browsers ask their users for."""
    scheme, _, value = authorization.partition(b" ")
    if scheme.lower() == b"bearer":
        return value.strip()
    if scheme.lower() != b"basic":
        return b""
    try:
        return base64.b64decode(value).partition(b":")[2]
    except binascii.Error:
        return b""
