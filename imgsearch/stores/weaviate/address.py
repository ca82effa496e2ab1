"""Parse the URL of a Weaviate: its addresses, and options for new collections."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args
from urllib.parse import parse_qsl, urlsplit

from imgsearch.errors import UsageError

ENV_KEY = "WEAVIATE_API_KEY"

Compression = Literal["rq8", "rq1", "none"]
Consistency = Literal["ONE", "QUORUM", "ALL"]

_CLOUD = re.compile(r"([a-z0-9-]+\.)+weaviate\.(cloud|network)(:443)?", re.I)
_PLAIN, _TLS = "weaviate", "weaviates"
_HTTP_PORTS = {_PLAIN: 8080, _TLS: 443}
_GRPC_PORT = 50051


@dataclass(frozen=True, slots=True)
class Address:
    """One Weaviate and the options of its URL; options that are not given are None."""

    url: str
    host: str
    port: int
    grpc_host: str
    grpc_port: int
    secure: bool
    key: str | None = None
    compression: Compression | None = None
    replication: int | None = None
    shards: int | None = None
    consistency: Consistency | None = None

    @property
    def http(self) -> str:
        """The root of the REST interface."""
        return f"{'https' if self.secure else 'http'}://{bracketed(self.host)}:{self.port}"

    @property
    def grpc(self) -> str:
        return f"{bracketed(self.grpc_host)}:{self.grpc_port}"


def is_address(url: str) -> bool:
    """Return whether a store's URL means a Weaviate."""
    return url.startswith((f"{_PLAIN}:", f"{_TLS}:")) or _is_cloud(url)


def _is_cloud(url: str) -> bool:
    """Return whether this is an address as the console of Weaviate Cloud shows it."""
    text = url.removeprefix("https://").partition("?")[0].removesuffix("/")
    return _CLOUD.fullmatch(text) is not None


def parse(url: str) -> Address:
    """Parse a URL. Raises UsageError, with the expected form."""
    text = f"{_TLS}://{url.removeprefix('https://')}" if _is_cloud(url) else url
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise _bad(url, str(error)) from error
    if parts.username or parts.password:
        raise _bad(url, f"a URL must not contain a key, set {ENV_KEY} instead")
    if not parts.hostname:
        raise _bad(url, "it names no host")
    if parts.path not in ("", "/") or parts.fragment:
        raise _bad(url, "only options can follow the host")
    options = _options(url, parts.query)
    cloud = _CLOUD.fullmatch(parts.hostname) is not None
    grpc_host = options.pop("grpc_host", None) or (
        _cloud_grpc_host(parts.hostname) if cloud else parts.hostname
    )
    return Address(
        url=text.removesuffix("/"),
        host=parts.hostname,
        port=port or _HTTP_PORTS[parts.scheme],
        grpc_host=grpc_host,
        grpc_port=options.pop("grpc", None) or (443 if cloud else _GRPC_PORT),
        secure=parts.scheme == _TLS,
        key=os.environ.get(ENV_KEY) or None,
        **options,
    )


def names_of(url: str) -> tuple[str, ...]:
    """Return all texts by which errors name a server. Raises UsageError if it is no address."""
    address = parse(url)
    bare = address.url.partition("?")[0]
    return (
        address.url,
        bare,
        address.http,
        f"{bracketed(address.host)}:{address.port}",
        address.grpc,
    )


def _cloud_grpc_host(host: str) -> str:
    """Weaviate Cloud answers gRPC on a host of its own."""
    if host.endswith(".weaviate.network"):
        cluster, _, domain = host.partition(".")
        return f"{cluster}.grpc.{domain}"
    return f"grpc-{host}"


def _options(url: str, query: str) -> dict[str, Any]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError as error:
        raise _bad(url, str(error)) from error
    options: dict[str, Any] = {}
    for name, text in pairs:
        if name not in _READERS:
            raise _bad(url, f"there is no option {name!r}, only {', '.join(_READERS)}")
        try:
            options[name] = _READERS[name](text)
        except ValueError as error:
            raise _bad(url, f"{name}={text}: {error}") from error
    return options


def _number(highest: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text) <= highest:
            raise ValueError(f"must be a number from 1 to {highest}")
        return int(text)

    return read


def _one_of(words: tuple[str, ...]) -> Callable[[str], str]:
    def read(text: str) -> str:
        for word in words:
            if text.casefold() == word.casefold():
                return word
        raise ValueError(f"must be one of {', '.join(words)}")

    return read


def _host(text: str) -> str:
    if not re.fullmatch(r"[\w.:-]+", text):
        raise ValueError("must be a host name")
    return text


_READERS: dict[str, Callable[[str], Any]] = {
    "grpc": _number(65_535),
    "grpc_host": _host,
    "compression": _one_of(get_args(Compression)),
    "replication": _number(64),
    "shards": _number(1024),
    "consistency": _one_of(get_args(Consistency)),
}


def bracketed(host: str) -> str:
    """Return a host as written in a URL: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def _bad(url: str, reason: str) -> UsageError:
    # The part before an @ may be a password.
    return UsageError(
        f"{re.sub(r'//[^@/]*@', '//...@', url)}: {reason}; write it as "
        "weaviate://HOST[:PORT][?grpc=PORT], or weaviates://... for TLS"
    )
