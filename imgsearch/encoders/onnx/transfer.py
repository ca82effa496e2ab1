"""Take an exported or calibrated model to another machine."""

import contextlib
import hashlib
from dataclasses import dataclass

from imgsearch.encoders.onnx.model_files import MODEL, SPEC, find, folder_of, incoming, place
from imgsearch.encoders.onnx.verification import VECTOR
from imgsearch.errors import EncoderError, UnreadableModelError
from imgsearch.events import Listener, ignore
from imgsearch.system.locking import locked
from imgsearch.types import Stamp


@dataclass(frozen=True, slots=True)
class PackedModel:
    """The files of a model by name, and the SHA-256 of their contents in this order."""

    files: dict[str, bytes]
    sha256: str


def pack(stamp: Stamp) -> PackedModel | None:
    """Return the files of a stamp's model, or None if this machine does not have it."""
    known = find(stamp)
    if known is None:
        return None
    files = {SPEC: known.path.with_name(SPEC).read_bytes(), MODEL: known.path.read_bytes()}
    with contextlib.suppress(FileNotFoundError):
        files[VECTOR] = known.path.with_name(VECTOR).read_bytes()
    return PackedModel(files, _digest(files))


def is_here(stamp: Stamp) -> bool:
    """Return whether this machine has the model of a stamp."""
    return find(stamp) is not None


def unpack(stamp: Stamp, packed: PackedModel, listener: Listener = ignore) -> None:
    """Put a model where a machine looks for that of a stamp, unless it is there.

    Raises UnreadableModelError for damaged files, and EncoderError if they cannot be written.
    """
    if _digest(packed.files) != packed.sha256:
        raise UnreadableModelError(f"{stamp.model} was damaged on its way to this node")
    folder = folder_of(stamp)
    try:
        with locked(folder.parent, f"receiving {stamp.model}", listener):
            if find(stamp):
                return
            with incoming() as part:
                for name, content in packed.files.items():
                    (part / name).write_bytes(content)
                place(part, stamp)
    except OSError as error:
        raise EncoderError(f"{folder} cannot be written: {error.strerror or error}") from error


def _digest(files: dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, content in files.items():
        digest.update(f"{name} {len(content)} ".encode() + content)
    return digest.hexdigest()
