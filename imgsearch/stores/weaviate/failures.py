"""Classify failures: temporary, for the user to fix, or about a single object."""

import re
from dataclasses import dataclass
from typing import Literal

import grpc
import httpx

from imgsearch.stores.weaviate.client import exceptions

Kind = Literal["away", "busy", "read-only", "gone", "denied", "rejected"]

_TEMPORARY: tuple[Kind, ...] = ("away", "busy")

# Weaviate describes most failures by text alone. The first pattern that fits decides.
_TEXTS: tuple[tuple[Kind, str], ...] = (
    ("read-only", r"read-?\s?only"),
    ("busy", r"too many requests|rate.?limit|resource.?exhausted|queue (is )?full|overloaded"),
    ("busy", r"not enough memory|out of memory|memory pressure|memory mappings"),
    ("gone", r"could not find class|class .{0,80}not found|collection .{0,80}not found"),
    ("denied", r"unauthorized|unauthenticated|forbidden|permission denied|invalid api key"),
    ("away", r"connection (refused|reset|closed|error)|broken pipe|\beof\b|socket closed"),
    ("away", r"rst_stream|goaway"),
    ("away", r"context (canceled|deadline exceeded)|i/o timeout|timed? ?out|no such host"),
    ("away", r"replicas?\b|consistency level|broadcast|leader|shut(ting)? ?down|maintenance"),
    ("away", r"failed to connect|transport|unavailable|not ready|is loading|still loading"),
    # A node of a cluster that does not know a new collection yet.
    ("away", r"non-existing index"),
    ("away", r"node .{0,80}(not found|not alive|unreachable)|connect:|dial tcp"),
)
_CODES: dict[grpc.StatusCode, Kind] = {
    grpc.StatusCode.UNAVAILABLE: "away",
    grpc.StatusCode.DEADLINE_EXCEEDED: "away",
    grpc.StatusCode.CANCELLED: "away",
    grpc.StatusCode.ABORTED: "away",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "busy",
    grpc.StatusCode.PERMISSION_DENIED: "denied",
    grpc.StatusCode.UNAUTHENTICATED: "denied",
}
_STATUSES: dict[int, Kind] = {
    401: "denied",
    403: "denied",
    429: "busy",
    502: "away",
    503: "away",
    504: "away",
}

_CONNECTION_ERRORS = (
    httpx.TransportError,
    exceptions.WeaviateConnectionError,
    exceptions.WeaviateTimeoutError,
)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request failed. `text` is the server's own, on one line."""

    kind: Kind
    text: str

    @property
    def is_temporary(self) -> bool:
        return self.kind in _TEMPORARY


def classify_text(text: str) -> Failure:
    """Classify a message of the server; `rejected` if no pattern matches."""
    line = " ".join(text.split())
    for kind, pattern in _TEXTS:
        if re.search(pattern, line, re.I):
            return Failure(kind, line[:300])
    return Failure("rejected", line[:300])


def classify_error(error: BaseException) -> Failure:
    """Classify an exception of weaviate-client, gRPC or httpx."""
    for each in _chain(error):
        if isinstance(each, grpc.RpcError) and isinstance(each, grpc.Call):
            return _classify_status(_CODES.get(each.code()), each.details() or str(each.code()))
        if isinstance(each, exceptions.UnexpectedStatusCodeError):
            return _classify_status(_STATUSES.get(each.status_code), str(each))
        if isinstance(each, _CONNECTION_ERRORS):
            return Failure("away", " ".join(str(each).split())[:300] or type(each).__name__)
    return classify_text(str(error))


def _classify_status(kind: Kind | None, text: str) -> Failure:
    """Prefer the text where it says more: a read-only shard comes as an internal error."""
    found = classify_text(text)
    return found if kind is None or found.kind == "read-only" else Failure(kind, found.text)


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error and its causes, innermost first: the client hides status codes there."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.insert(0, current)
        current = current.__cause__ or current.__context__
    return chain
