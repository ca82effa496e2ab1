"""Reach a Weaviate, say what stands in the way, and wait for it where it goes away in between."""

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, TypeVar

import grpc
import httpx

from imgsearch.errors import Remedy, StaleCollectionError, StoreError, StoreFullError
from imgsearch.events import Listener, Note
from imgsearch.sites import own_site
from imgsearch.stores.weaviate import failures
from imgsearch.stores.weaviate.address import ENV_KEY, Address
from imgsearch.stores.weaviate.client import exceptions, init, weaviate, weaviate_pb2_grpc
from imgsearch.stores.weaviate.failures import Trouble

T = TypeVar("T")

# Earlier patches of 1.37 and 1.38 can write half an object when they repair one on reading.
_OLDEST = {(1, 37): 14, (1, 38): 7}
_OLDEST_TEXT = "1.37.14 or newer, 1.38.7 or newer, 1.39 or newer"

_CONNECT_SECONDS = 5.0
_REQUEST_SECONDS = 30.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0
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
        """Raises StoreError, within seconds, with what stands in the way and what to do."""
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
        self._outage = _Outage(address.url, timeout, listener)

    @cached_property
    def site(self) -> str:
        """This machine's. Raises UsageError for a name that cannot be one."""
        return own_site()

    @property
    def timeout(self) -> float:
        return self._outage.timeout

    @property
    def metadata(self) -> list[tuple[str, str]]:
        """The headers of a gRPC request of our own."""
        return [("authorization", f"Bearer {self.address.key}")] if self.address.key else []

    def read_object(self, class_name: str, record_id: str) -> dict[str, Any] | None:
        """An object with its `properties` and `vectors`, by means that need no index.

        Raises an error of httpx.
        """
        level = self.address.consistency
        answer = httpx.get(
            f"{self.address.http}/v1/objects/{class_name}/{record_id}",
            params={"include": "vector"} | ({"consistency_level": level} if level else {}),
            headers=dict(self.metadata),
            timeout=_REQUEST_SECONDS,
            trust_env=False,
        )
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        found: dict[str, Any] = answer.raise_for_status().json()
        return found

    def http(self) -> httpx.Client:
        """A client for REST requests of our own; its methods take paths. Close it."""
        return httpx.Client(
            base_url=self.address.http,
            headers=dict(self.metadata),
            timeout=_REQUEST_SECONDS,
            trust_env=False,
        )

    def close(self) -> None:
        self.pushers.shutdown(cancel_futures=True)
        self.client.close()
        self._channel.close()

    def call(self, action: str, request: Callable[[], T]) -> T:
        """What `request` returns. While the server is away or busy, it is made again and again.

        Raises StoreError, beginning with `action`, for any other failure, or once the server has
        been away for longer than the timeout.
        """
        with self.patience(action) as patience:
            while True:
                try:
                    return request()
                except (exceptions.WeaviateBaseError, grpc.RpcError, httpx.HTTPError) as error:
                    patience.bear(failures.of_error(error), error)

    @contextlib.contextmanager
    def patience(self, action: str) -> Iterator["Patience"]:
        """For requests that may fail and be made again; leaving it tells that they succeeded."""
        patience = Patience(self._outage, action)
        yield patience
        patience.rewarded()


class Patience:
    """How one request bears with the server's troubles."""

    def __init__(self, outage: "_Outage", action: str) -> None:
        self._outage = outage
        self._action = action
        self._pause = _FIRST_PAUSE
        self._waited = False

    def bear(self, trouble: Trouble, error: BaseException | None = None) -> None:
        """Wait a while. Raises StoreError if waiting does not help, or has not for too long."""
        if not trouble.worth_waiting:
            kinds = {"gone": StaleCollectionError, "read-only": StoreFullError}
            kind = kinds.get(trouble.kind, StoreError)
            raise kind(self._outage.message(self._action, trouble)) from error
        self._waited = True
        if self._outage.goes_on(trouble) > self._outage.timeout:
            raise StoreError(
                self._outage.message(self._action, trouble), Remedy.RAISE_STORE_TIMEOUT
            ) from error
        self.pause()

    def pause(self) -> None:
        """Wait, longer from time to time."""
        time.sleep(self._pause)
        self._pause = min(_LONGEST_PAUSE, 2 * self._pause)

    def rewarded(self) -> None:
        if self._waited:
            self._outage.over()


class _Outage:
    """The time that the server is away or busy, told once however many threads notice it."""

    def __init__(self, url: str, timeout: float, listener: Listener) -> None:
        self.timeout = timeout
        self._url = url
        self._listener = listener
        self._since: float | None = None
        self._lock = threading.Lock()

    def goes_on(self, trouble: Trouble) -> float:
        """For how many seconds it has."""
        with self._lock:
            if self._since is None:
                self._since = time.monotonic()
                told = f"{_what(self._url, trouble)}: waiting for it, up to {self.timeout:.0f} s"
                self._listener(Note(f"{told} ({trouble.text})"))
            return time.monotonic() - self._since

    def over(self) -> None:
        with self._lock:
            if self._since is not None:
                seconds = time.monotonic() - self._since
                self._since = None
                self._listener(Note(f"{self._url} is back after {seconds:.0f} s: going on"))

    def message(self, action: str, trouble: Trouble) -> str:
        what = _what(self._url, trouble)
        match trouble.kind:
            case "away" | "busy":
                return (
                    f"{action}: {what}, and was so for {self.timeout:.0f} s ({trouble.text}); all "
                    "that was written before is stored: try again when the server is back"
                )
            case "read-only":
                return (
                    f"{action}: {what} ({trouble.text}). Its disk or memory is fuller than it "
                    "allows (DISK_USE_READONLY_PERCENTAGE): make room, start the server again, "
                    "then try again; all that was written before is stored"
                )
            case "denied":
                return f"{action}: {what} ({trouble.text}): use a key that may do it, in {ENV_KEY}"
            case "gone":
                return f"{action}: {what} ({trouble.text}); it was removed or replaced: try again"
            case "refused":
                return f"{action}: {what}: {trouble.text}"


def _what(url: str, trouble: Trouble) -> str:
    return {
        "away": f"{url} does not answer",
        "busy": f"{url} is overloaded and takes nothing for now",
        "read-only": f"{url} has gone read-only",
        "denied": f"{url} does not allow it",
        "gone": f"{url} has the collection no more",
        "refused": f"{url} refused",
    }[trouble.kind]


def _check_http(address: Address) -> str:
    """The server's version. Raises StoreError if it is not reached by HTTP, or wants a key."""
    headers = {"authorization": f"Bearer {address.key}"} if address.key else {}
    try:
        answer = httpx.get(
            f"{address.http}/v1/meta", headers=headers, timeout=_CONNECT_SECONDS, trust_env=False
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise StoreError(_http_trouble(address, error)) from error
    if answer.status_code in (401, 403):
        refused = "refuses the key in" if address.key else "wants an API key: set"
        raise StoreError(f"{address.url}: {address.http} {refused} {ENV_KEY} ({_body(answer)})")
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


def _http_trouble(address: Address, error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return (
            f"{address.url}: the TLS certificate of {address.http} cannot be trusted ({text}): "
            "check the host's name, or add its authority by SSL_CERT_FILE"
        )
    if "SSL" in text or "TLS" in text:
        return (
            f"{address.url}: no TLS with {address.http} ({text}): is it without TLS, then write "
            "weaviate:// instead of weaviates://"
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
    """HTTP was reached; a firewall or a proxy between often lets nothing else through."""
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
    except (exceptions.WeaviateBaseError, httpx.HTTPError) as error:
        raise StoreError(f"{address.url}: {failures.of_error(error).text}") from error
    return client
