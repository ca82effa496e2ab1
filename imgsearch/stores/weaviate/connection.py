"""Connect to a Weaviate, and repeat requests while it is away or overloaded."""

import contextlib
import re
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, TypeVar

import grpc
import httpx

from imgsearch.errors import StoreError
from imgsearch.events import Listener
from imgsearch.sites import own_site
from imgsearch.stores.weaviate import failures
from imgsearch.stores.weaviate.address import ENV_KEY, Address
from imgsearch.stores.weaviate.backoff import Backoff, Outage
from imgsearch.stores.weaviate.client import exceptions, init, weaviate, weaviate_pb2_grpc

T = TypeVar("T")

# Earlier patches of 1.37 and 1.38 can write half an object when they repair one on reading.
_OLDEST = {(1, 37): 14, (1, 38): 7}
_OLDEST_TEXT = "1.37.14 or newer, 1.38.7 or newer, 1.39 or newer"

_CONNECT_SECONDS = 5.0
_REQUEST_SECONDS = 30.0
# Requests under way at once. Two keep a small server busy; a cluster takes some more.
PUSHERS = 4
_MESSAGE_BYTES = 104_858_000  # what a server takes unless it says otherwise
_CHANNEL_OPTIONS = (
    # gRPC itself would wait up to two minutes before it tries a server again that was away.
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.max_reconnect_backoff_ms", 2000),
)


class Server:
    """A connection that many threads share. `timeout` is how long it waits, in seconds."""

    def __init__(self, address: Address, timeout: float, listener: Listener) -> None:
        """Connect. Raises StoreError within seconds, with the cause and what to do."""
        self.address = address
        self.version = _check_http(address)
        _check_version(address, self.version)
        self._channel = _grpc_channel(address)
        try:
            _check_grpc(address, self._channel)
            self.client = _client(address)
        except BaseException:
            self._channel.close()
            raise
        self.stub = weaviate_pb2_grpc.WeaviateStub(self._channel)  # type: ignore[no-untyped-call]
        self.pushers = ThreadPoolExecutor(PUSHERS, "imgsearch-push")
        self._outage = Outage(address.url, timeout, listener)

    @cached_property
    def site(self) -> str:
        """The name of this machine's site. Raises UsageError for an invalid name."""
        return own_site()

    @property
    def timeout(self) -> float:
        return self._outage.timeout

    @property
    def metadata(self) -> list[tuple[str, str]]:
        """The headers of a gRPC request made without the client."""
        return [("authorization", f"Bearer {self.address.key}")] if self.address.key else []

    def read_object(self, class_name: str, record_id: str) -> dict[str, Any] | None:
        """Return an object with its `properties` and `vectors`, without using an index.

        Raises an error of httpx.
        """
        level = self.address.consistency
        answer = httpx.get(
            f"{self.address.http}/v1/objects/{class_name}/{record_id}",
            params={"include": "vector"} | ({"consistency_level": level} if level else {}),
            headers=dict(self.metadata),
            timeout=_REQUEST_SECONDS,
            trust_env=False,
            verify=self.address.secure,
        )
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        found: dict[str, Any] = answer.raise_for_status().json()
        return found

    def http(self) -> httpx.Client:
        """Return an HTTP client for REST requests; its methods take paths. Close it."""
        return httpx.Client(
            base_url=self.address.http,
            headers=dict(self.metadata),
            timeout=_REQUEST_SECONDS,
            trust_env=False,
            verify=self.address.secure,
        )

    def close(self) -> None:
        self.pushers.shutdown(cancel_futures=True)
        self.client.close()
        self._channel.close()

    def call(self, action: str, request: Callable[[], T]) -> T:
        """Return what `request` returns. Repeats it while the server is away or busy.

        Raises StoreError, beginning with `action`, for any other failure, or once the server has
        been away for longer than the timeout.
        """
        with self.backoff(action) as backoff:
            while True:
                try:
                    return request()
                except (exceptions.WeaviateBaseError, grpc.RpcError, httpx.HTTPError) as error:
                    backoff.wait(failures.classify_error(error), error)

    @contextlib.contextmanager
    def backoff(self, action: str) -> Iterator[Backoff]:
        """Yield the backoff of a request that may be repeated; a normal exit ends the outage."""
        backoff = Backoff(self._outage, action)
        yield backoff
        backoff.succeed()


def _check_http(address: Address) -> str:
    """Return the server's version. Raises StoreError if HTTP fails or a key is missing."""
    headers = {"authorization": f"Bearer {address.key}"} if address.key else {}
    try:
        answer = httpx.get(
            f"{address.http}/v1/meta",
            headers=headers,
            timeout=_CONNECT_SECONDS,
            trust_env=False,
            verify=address.secure,  # loading certificates takes most of a plain request's time
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise StoreError(_http_problem(address, error)) from error
    if answer.status_code in (401, 403):
        problem = "rejects the key in" if address.key else "wants an API key: set"
        raise StoreError(f"{address.url}: {address.http} {problem} {ENV_KEY} ({_body(answer)})")
    if "HTTPS server" in answer.text:
        raise StoreError(f"{address.url}: {address.http} wants TLS: write weaviates:// for it")
    try:
        return str(answer.raise_for_status().json()["version"])
    except (httpx.HTTPStatusError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{address.url}: {address.http} answers, but not as a Weaviate that is ready does "
            f"(HTTP {answer.status_code}: {_body(answer)}): check host and port, and its log"
        ) from error


def _body(answer: httpx.Response) -> str:
    return " ".join(answer.text.split())[:120] or "no text"


def _http_problem(address: Address, error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return (
            f"{address.url}: the TLS certificate of {address.http} cannot be trusted ({text}): "
            "check the host's name, or add its authority by SSL_CERT_FILE"
        )
    if "SSL" in text or "TLS" in text:
        return (
            f"{address.url}: no TLS with {address.http} ({text}): use weaviate:// instead of "
            "weaviates:// if the server has no TLS"
        )
    if isinstance(error, httpx.RemoteProtocolError):
        return (
            f"{address.url}: what answers at {address.http} is no HTTP ({text}): check the port, "
            "or write weaviates:// if it wants TLS"
        )
    return (
        f"{address.url}: no HTTP connection to {address.http} ({text}): is the server running, and "
        "are host and port right?"
    )


def _check_version(address: Address, version: str) -> None:
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    major, minor, patch = map(int, match.groups()) if match else (0, 0, 0)
    if (major, minor) < (1, 37) or patch < _OLDEST.get((major, minor), 0):
        raise StoreError(
            f"{address.url}: it runs Weaviate {version}, and imgsearch needs {_OLDEST_TEXT}: "
            "update the server"
        )


def _grpc_channel(address: Address) -> grpc.Channel:
    options: list[tuple[str, Any]] = [
        ("grpc.max_send_message_length", _MESSAGE_BYTES),
        ("grpc.max_receive_message_length", _MESSAGE_BYTES),
        *_CHANNEL_OPTIONS,
    ]
    if address.secure:
        return grpc.secure_channel(address.grpc, grpc.ssl_channel_credentials(), options)
    return grpc.insecure_channel(address.grpc, options)


def _check_grpc(address: Address, channel: grpc.Channel) -> None:
    """Raise StoreError if gRPC fails: firewalls and proxies often let only HTTP through."""
    where = f"{address.url}: HTTP works, but gRPC at {address.grpc}"
    advice = "name the right one with ?grpc=PORT or ?grpc_host=HOST, or open it in the firewall"
    try:
        socket.create_connection((address.grpc_host, address.grpc_port), _CONNECT_SECONDS).close()
    except OSError as error:
        reason = "does not answer" if isinstance(error, TimeoutError) else f"fails ({error})"
        raise StoreError(f"{where} {reason}: {advice}") from error
    try:
        grpc.channel_ready_future(channel).result(_CONNECT_SECONDS)
    except grpc.FutureTimeoutError as error:
        tls = "TLS" if address.secure else "plain text"
        raise StoreError(
            f"{where} does not speak gRPC in {tls}: the port is another service's, or a proxy "
            f"between cannot do HTTP/2; {advice}"
        ) from error


def _client(address: Address) -> "weaviate.WeaviateClient":
    client = weaviate.WeaviateClient(
        connection_params=weaviate.connect.ConnectionParams.from_params(
            address.host,
            address.port,
            address.secure,
            address.grpc_host,
            address.grpc_port,
            address.secure,
        ),
        auth_client_secret=init.Auth.api_key(address.key) if address.key else None,
        additional_config=init.AdditionalConfig(
            timeout=init.Timeout(
                init=_CONNECT_SECONDS, query=_REQUEST_SECONDS, insert=_REQUEST_SECONDS
            ),
            grpc_config=init.GrpcConfig(channel_options=list(_CHANNEL_OPTIONS)),
        ),
        # Its checks would ask PyPI for a newer client each time; ours say more.
        skip_init_checks=True,
    )
    try:
        client.connect()
    except BaseException as error:
        client.close()  # a failed connect leaves its HTTP connection open
        if isinstance(error, exceptions.WeaviateBaseError | httpx.HTTPError):
            raise StoreError(f"{address.url}: {failures.classify_error(error).text}") from error
        raise
    return client
