"""Weights: lookup, download, check by digest, and storage under `IMGSEARCH_HOME/weights`.

A stored file is named `SHA256.pth` after its content. It gets that name only when it is complete
and checked.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import queue
import re
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.parse import unquote, urlsplit

from imgsearch import config
from imgsearch._version import __version__
from imgsearch.encoders.catalog import ModelSpec
from imgsearch.errors import CollectionMismatchError, Remedy, WeightsError
from imgsearch.events import Listener, Transfer, ignore
from imgsearch.system.atomic import publish, write_text
from imgsearch.system.locking import locked

# Seconds until a server must begin to respond, including name resolution and redirects. Socket
# timeouts alone do not limit that.
CONNECT_TIMEOUT = 8.0
# Seconds without a byte after which a download fails.
READ_TIMEOUT = 30.0
_CHUNK = 1 << 20
# The first bytes of torch.save's files: a zip archive, or a pickle from old versions.
_SIGNATURES = (b"PK\x03\x04", b"\x80")


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """Weights on this machine, with the SHA-256 of the file in hexadecimal.

    `source` is the path or URL that messages show.
    """

    path: Path
    sha256: str
    source: str


def is_url(text: str) -> bool:
    return text.lower().startswith(("http://", "https://"))


def find_local(spec: ModelSpec) -> WeightsFile | None:
    """Return a model's own weights if a package or cache on this machine has them."""
    if spec.package and spec.package_file:
        return _in_package(spec.package, spec.package_file)
    if spec.url is None:
        return None
    return _stored_from_url(spec.url) or _in_torch_hub(spec.weights_name)


def get(
    spec: ModelSpec,
    given: str | None = None,
    digest: str | None = None,
    listener: Listener = ignore,
) -> WeightsFile:
    """Return the weights for a model: `given` as a file or URL, else its own.

    With `digest`, the SHA-256 in a collection's stamp, only weights of this digest are returned;
    stored weights are found by it. Raises WeightsError, or CollectionMismatchError if `given` has
    another digest.
    """
    if given is None:
        return _own(spec, listener) if digest is None else _by_digest(spec, digest, listener)
    found = _given(given, listener)
    if digest and found.sha256 != digest:
        raise CollectionMismatchError(
            f"the collection was made with the weights {digest[:12]}, and {given} is "
            f"{found.sha256[:12]}; their vectors cannot be compared",
            Remedy.LEAVE_OUT_WEIGHTS,
            Remedy.USE_OTHER_COLLECTION,
        )
    return found


def _own(spec: ModelSpec, listener: Listener) -> WeightsFile:
    if local := find_local(spec):
        return local
    if spec.url is None:
        raise WeightsError(
            f"{spec.name}: its weights belong to the package {spec.package}, which is not "
            "installed; install imgsearch-cli again"
        )
    try:
        return download(spec.url, listener)
    except WeightsError as error:
        raise WeightsError(str(error), Remedy.GIVE_WEIGHTS, Remedy.USE_BUNDLED_MODEL) from error


def _by_digest(spec: ModelSpec, digest: str, listener: Listener) -> WeightsFile:
    if stored := _stored(digest):
        return stored
    own = _digest_in_name(spec.weights_name) or ""
    if digest.startswith(own):  # else a download would be useless
        found = _own(spec, listener)
        if found.sha256 == digest:
            return found
        own = found.sha256
    raise WeightsError(
        f"the collection was made with other weights of {spec.name}, {digest[:12]}, than its own, "
        f"{own[:12]}, and they are no longer on this machine",
        Remedy.GIVE_WEIGHTS,
    )


def _given(given: str, listener: Listener) -> WeightsFile:
    if is_url(given):
        return _stored_from_url(given) or download(given, listener)
    path = Path(os.path.expanduser(given))
    if "://" in given and not path.exists():
        raise WeightsError(f"weights {given}: neither a file nor an http or https address")
    # Stored, so that queries need neither the argument nor the original file.
    if stored := _stored(file_sha256(path), given):
        return stored
    with _writing(listener) as folder:
        return _store(folder, _read(path), given)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal. Raises WeightsError if it cannot be read."""
    sha256 = hashlib.sha256()
    for chunk in _read(path):
        sha256.update(chunk)
    return sha256.hexdigest()


def _read(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error


def _in_package(module: str, file: str) -> WeightsFile | None:
    found = importlib.util.find_spec(module)
    for folder in (found.submodule_search_locations if found else None) or ():
        path = Path(folder) / file
        if path.is_file():
            return WeightsFile(path, file_sha256(path), str(path))
    return None


def _in_torch_hub(name: str) -> WeightsFile | None:
    """Return weights that torchvision has downloaded before, if their digest is right."""
    # As torch.hub.get_dir(), without importing torch.
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    path = Path(os.path.expanduser(home)) / "hub" / "checkpoints" / name
    wanted = _digest_in_name(name)
    if wanted is None or not os.path.isfile(path):
        return None
    try:
        digest = file_sha256(path)
    except WeightsError:
        return None
    return WeightsFile(path, digest, str(path)) if digest.startswith(wanted) else None


def _stored(digest: str, source: str | None = None) -> WeightsFile | None:
    path = config.weights_dir() / f"{digest}.pth"
    # os.path, because it treats an unreadable folder as empty.
    return WeightsFile(path, digest, source or str(path)) if os.path.isfile(path) else None


def _without_fragment(url: str) -> str:
    return url.partition("#")[0]


def _url_note(url: str) -> Path:
    """Return the path of the file that records the digest of a URL's content."""
    return config.weights_dir() / f"url-{hashlib.sha256(url.encode()).hexdigest()[:16]}.json"


def _stored_from_url(url: str) -> WeightsFile | None:
    url = _without_fragment(url)
    try:
        return _stored(json.loads(_url_note(url).read_text())["sha256"], url)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _digest_in_name(name: str) -> str | None:
    """PyTorch's convention: `NAME-DIGITS.pth`, the first 8 or more digits of the SHA-256."""
    match = re.search(r"-([0-9a-f]{8,64})\.\w+$", name)
    # A date is not a digest: a user's file may be named mine-20260131.pth.
    return match[1] if match and not re.fullmatch(r"(19|20)\d{6}", match[1]) else None


@contextlib.contextmanager
def _writing(listener: Listener) -> Generator[Path]:
    """Lock the folder of stored weights, and yield it. Raises WeightsError."""
    folder = config.weights_dir()
    try:
        with locked(folder, "fetching weights", listener):
            yield folder
    except OSError as error:
        raise WeightsError(
            f"weights cannot be stored in {folder}: {error.strerror or error}"
        ) from error


def _store(
    folder: Path, chunks: Iterable[bytes], source: str, wanted: str | None = None
) -> WeightsFile:
    """Store a file under its digest if it is complete and valid; leave nothing behind otherwise."""
    # A fixed name, so that the remains of a killed process are overwritten.
    part = folder / "incoming.part"
    sha256 = hashlib.sha256()
    head = b""
    try:
        with part.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
                sha256.update(chunk)
                head = head or chunk[:64]
        digest = sha256.hexdigest()
        if wanted and not digest.startswith(wanted):
            raise WeightsError(
                f"{source}: damaged, or not the expected file: its SHA-256 begins with "
                f"{digest[: len(wanted)]}, not with {wanted}"
            )
        if not head.startswith(_SIGNATURES):
            beginning = f"begins with {head[:24]!r}" if head else "is empty"
            raise WeightsError(f"{source}: no file of PyTorch weights; it {beginning}")
        target = folder / f"{digest}.pth"
        publish(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return WeightsFile(target, digest, source)


def download(url: str, listener: Listener = ignore) -> WeightsFile:
    """Download weights, check them, and store them; a failure leaves nothing behind.

    The content must have the length that the server announced, and the digest in the file's name,
    if there is one. Raises WeightsError, within `CONNECT_TIMEOUT` seconds if the server cannot be
    reached.
    """
    url = _without_fragment(url)
    with _writing(listener) as folder:
        if stored := _stored_from_url(url):  # by the process that held the lock
            return stored
        name = unquote(url.partition("?")[0].rpartition("/")[2])
        with contextlib.closing(_fetch(url, name, listener)) as chunks:
            file = _store(folder, chunks, url, _digest_in_name(name))
        with contextlib.suppress(OSError):  # at worst, it is downloaded again
            write_text(_url_note(url), json.dumps({"url": url, "sha256": file.sha256}))
    return file


def _fetch(url: str, name: str, listener: Listener) -> Generator[bytes]:
    """Yield the body of the response. Raises WeightsError, also if it is incomplete."""
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
        reason = f"{_why(error, url)}{_by_proxy(url)}"
        raise WeightsError(f"{url} cannot be fetched: {reason}") from error


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


def _why(error: Exception, url: str) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}".rstrip()
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
        error = error.reason
    if isinstance(error, socket.gaierror):
        return f"the name {urlsplit(url).hostname} cannot be resolved (no network?)"
    if isinstance(error, _NoAnswerError):
        return f"no answer within {CONNECT_TIMEOUT:g} seconds"
    if isinstance(error, TimeoutError):
        return f"nothing came for {READ_TIMEOUT:g} seconds"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text[0].lower() + text[1:] if text[1:2].islower() else text


class _NoAnswerError(TimeoutError):
    pass


def _connect(url: str) -> HTTPResponse:
    """Return the response to a GET. Raises _NoAnswerError after `CONNECT_TIMEOUT` seconds."""
    answers: queue.SimpleQueue[HTTPResponse | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            request = urllib.request.Request(  # noqa: S310 - http or https, see is_url
                url, headers={"User-Agent": f"imgsearch/{__version__}"}
            )
            answers.put(urllib.request.urlopen(request, timeout=READ_TIMEOUT))  # noqa: S310
        except Exception as error:
            answers.put(error)

    # In its own thread, because name resolution cannot be interrupted.
    threading.Thread(target=ask, name="connect", daemon=True).start()
    try:
        answer = answers.get(timeout=CONNECT_TIMEOUT)
    except queue.Empty:
        raise _NoAnswerError from None
    if isinstance(answer, Exception):
        raise answer
    return answer
