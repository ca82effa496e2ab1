"""HTTP downloads that report progress, fail on incomplete content, and never hang."""

import contextlib
import queue
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Generator
from http.client import HTTPException, HTTPResponse
from urllib.parse import urlsplit

from imgsearch._version import __version__
from imgsearch.errors import WeightsError
from imgsearch.events import Listener, Transfer

# Seconds until a server must begin to respond, including name resolution and redirects, which
# socket timeouts do not limit.
CONNECT_TIMEOUT = 8.0
# Seconds without a byte after which a download fails.
READ_TIMEOUT = 30.0
_CHUNK = 1 << 20


def is_url(text: str) -> bool:
    return text.lower().startswith(("http://", "https://"))


def fetch(url: str, name: str, listener: Listener) -> Generator[bytes]:
    """Yield the content at a URL in chunks. `name` identifies it in events.

    Raises WeightsError if the content is shorter than announced, and within `CONNECT_TIMEOUT`
    seconds if the server cannot be reached.
    """
    with _network_errors(url), _connect(url) as response:
        length = response.headers.get("Content-Length") or ""
        total = int(length) if length.isdigit() else None
        done = 0
        listener(Transfer(name, done, total))
        while chunk := response.read1(_CHUNK):
            yield chunk
            done += len(chunk)
            listener(Transfer(name, done, total))
        if total is None:
            listener(Transfer(name, done, done))
        elif done != total:
            raise OSError(f"the connection ended after {done:,} of {total:,} bytes")


@contextlib.contextmanager
def _network_errors(url: str) -> Generator[None]:
    try:
        yield
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        reason = f"{_reason(error, url)}{_by_proxy(url)}"
        raise WeightsError(f"{url} cannot be downloaded: {reason}") from error


def _by_proxy(url: str) -> str:
    """Return a note about the proxy in use, without its address, which may hold a password."""
    try:
        parts = urlsplit(url)
    except ValueError:  # not a valid URL
        return ""
    if parts.scheme not in urllib.request.getproxies():
        return ""
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return ""
    return f" (through the proxy that {parts.scheme}_proxy or the system names)"


def _reason(error: Exception, url: str) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server responded with {error.code} {error.reason}".rstrip()
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
        error = error.reason
    if isinstance(error, socket.gaierror):
        return f"the name {urlsplit(url).hostname} cannot be resolved (no network?)"
    if isinstance(error, _NoResponseError):
        return f"no response within {CONNECT_TIMEOUT:g} seconds"
    if isinstance(error, TimeoutError):
        return f"no data for {READ_TIMEOUT:g} seconds"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text[0].lower() + text[1:] if text[1:2].islower() else text


class _NoResponseError(TimeoutError):
    pass


def _connect(url: str) -> HTTPResponse:
    """Return the response to a GET. Raises _NoResponseError after `CONNECT_TIMEOUT` seconds."""
    responses: queue.SimpleQueue[HTTPResponse | Exception] = queue.SimpleQueue()

    def request_url() -> None:
        try:
            request = urllib.request.Request(  # noqa: S310 - http or https, see is_url
                url, headers={"User-Agent": f"imgsearch/{__version__}"}
            )
            responses.put(urllib.request.urlopen(request, timeout=READ_TIMEOUT))  # noqa: S310
        except Exception as error:
            responses.put(error)

    # In its own thread, because name resolution cannot be interrupted.
    threading.Thread(target=request_url, name="connect", daemon=True).start()
    try:
        response = responses.get(timeout=CONNECT_TIMEOUT)
    except queue.Empty:
        raise _NoResponseError from None
    if isinstance(response, Exception):
        raise response
    return response
