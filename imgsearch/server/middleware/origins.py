"""Who may call: by the key, by the name they call us, and by the page that their browser shows."""

import base64
import binascii
import hmac
import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from imgsearch.server.error_responses import problem
from imgsearch.server.settings import Settings

# What tells nothing of the pictures. Orchestrators ask for health without a key.
_OPEN = frozenset({"/", "/healthz", "/readyz", "/docs", "/openapi.json"})
_OPEN_FOLDER = "/docs/"
# Probes call by whatever name their orchestrator has for the service.
_HEALTH = frozenset({"/healthz", "/readyz"})
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Origins:
    """Refuses calls without the key, calls by a foreign name, and calls from foreign pages.

    A page of another origin can send forms to any address that its reader's browser reaches,
    127.0.0.1 too (cross-site request forgery). It can also give this service a name of its own
    (DNS rebinding), and is then of the same origin: so names must be known (`names_of`), unless a
    key is needed. An address in digits is no such name.
    """

    def __init__(self, app: ASGIApp, settings: Settings, *, for_browsers: bool = False) -> None:
        """`for_browsers` lets nothing through without the key, and has browsers ask for it."""
        self._app = app
        self._for_browsers = for_browsers
        self._key = settings.api_key.encode() if settings.api_key else None
        self._hosts = settings.hosts
        self._cors = frozenset(settings.cors_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if scope["path"] not in _HEALTH and not self._is_known(host):
            return problem(
                421,
                "unknown-host",
                f"this service is not called {host[:100]!r}; --allow-host adds a name",
            )
        if scope["method"] not in _SAFE and self._is_foreign(headers.get("origin"), host):
            return problem(
                403, "foreign-origin", "pages of other origins may not call this; see --cors-origin"
            )
        is_open = not self._for_browsers and _is_open(scope["path"])
        if self._key and not is_open and not self._has_key(headers):
            return self._unauthorized()
        return None

    def _unauthorized(self) -> Response:
        """Browsers take the first challenge of a header, and know Basic alone."""
        basic = 'Basic realm="imgsearch", charset="UTF-8"'
        challenge = basic if self._for_browsers else f'Bearer realm="imgsearch", {basic}'
        return problem(
            401,
            "unauthorized",
            "an API key is needed, as X-API-Key or as Authorization: Bearer; browsers send it as "
            "the password of any user",
            {"WWW-Authenticate": challenge},
        )

    def _is_known(self, host: str) -> bool:
        """Whether a Host header names this service, or an address in digits."""
        if self._hosts is None:
            return True
        name = _name_in(host)
        return name in self._hosts or _is_address(name)

    def _is_foreign(self, origin: str | None, host: str) -> bool:
        if origin is None or origin in self._cors or "*" in self._cors:
            return False
        try:
            return urlsplit(origin).netloc != host
        except ValueError:
            return True

    def _has_key(self, headers: Headers) -> bool:
        assert self._key is not None
        # As it came: headers are bytes, which Starlette reads as Latin-1.
        direct = headers.get("x-api-key", "").encode("latin-1")
        given = direct or _key_in(headers.get("authorization", "").encode("latin-1"))
        # In constant time: how long it takes must not tell how much of a guess was right.
        return hmac.compare_digest(given, self._key)


def _is_open(path: str) -> bool:
    return path in _OPEN or path.startswith(_OPEN_FOLDER)


def _name_in(host: str) -> str:
    """A Host header without its port, and without the dot of a name that ends in the root."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".") if "@" not in host else ""
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _key_in(authorization: bytes) -> bytes:
    """A Bearer token, or the password of Basic, which browsers ask their users for."""
    scheme, _, value = authorization.partition(b" ")
    if scheme.lower() == b"bearer":
        return value.strip()
    if scheme.lower() != b"basic":
        return b""
    try:
        return base64.b64decode(value).partition(b":")[2]
    except binascii.Error:
        return b""
