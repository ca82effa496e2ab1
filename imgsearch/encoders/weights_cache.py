"""Files of weights under `IMGSEARCH_HOME/weights`, named `SHA256.pth` after their content.

A file gets its name only when it is complete and checked. The digest of the content of a URL is
recorded in a file of its own, so that it is downloaded only once.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from imgsearch import config
from imgsearch.errors import WeightsError
from imgsearch.events import Listener
from imgsearch.system.atomic import publish, write_text
from imgsearch.system.locking import locked

_CHUNK = 1 << 20
# The first bytes of torch.save's files: a zip archive, or a pickle of old versions.
_SIGNATURES = (b"PK\x03\x04", b"\x80")


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """Weights on this machine, with the SHA-256 of the file in hexadecimal.

    `source` is the path or URL that messages show.
    """

    path: Path
    sha256: str
    source: str


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal. Raises WeightsError if it cannot be read."""
    sha256 = hashlib.sha256()
    for chunk in read(path):
        sha256.update(chunk)
    return sha256.hexdigest()


def read(path: Path) -> Iterator[bytes]:
    """Yield the content of a file in chunks. Raises WeightsError."""
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error


def find(digest: str, source: str | None = None) -> WeightsFile | None:
    """Return the stored file of a digest, with a `source` for messages."""
    path = config.weights_dir() / f"{digest}.pth"
    # os.path, because it treats an unreadable folder as empty.
    return WeightsFile(path, digest, source or str(path)) if os.path.isfile(path) else None


def _url_note(url: str) -> Path:
    """Return the path of the file that records the digest of a URL's content."""
    return config.weights_dir() / f"url-{hashlib.sha256(url.encode()).hexdigest()[:16]}.json"


def find_by_url(url: str) -> WeightsFile | None:
    """Return the stored file that was downloaded from a URL."""
    try:
        return find(json.loads(_url_note(url).read_text())["sha256"], url)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def record_url(url: str, sha256: str) -> None:
    """Record the digest of the content of a URL."""
    with contextlib.suppress(OSError):  # at worst, it is downloaded again
        write_text(_url_note(url), json.dumps({"url": url, "sha256": sha256}))


@contextlib.contextmanager
def writing(listener: Listener) -> Generator[Path]:
    """Lock the folder of stored weights, and yield it. Raises WeightsError."""
    folder = config.weights_dir()
    try:
        with locked(folder, "downloading weights", listener):
            yield folder
    except OSError as error:
        raise WeightsError(
            f"weights cannot be stored in {folder}: {error.strerror or error}"
        ) from error


def store(
    folder: Path, chunks: Iterable[bytes], source: str, wanted: str | None = None
) -> WeightsFile:
    """Store a file in a folder that `writing` has locked; leave nothing behind on failure.

    Raises WeightsError if its digest does not begin with `wanted`, or if it is not a file of
    PyTorch weights.
    """
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
            raise WeightsError(f"{source}: not a file of PyTorch weights; it {beginning}")
        target = folder / f"{digest}.pth"
        publish(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return WeightsFile(target, digest, source)
