"""Exported models, stored under `IMGSEARCH_HOME/models`.

Each model has its own folder, whose name is a hash of everything that its vectors depend on. A
folder appears only when it is complete. Models that are part of the installation, which may have
no torch, are found as if they were in the same place.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from imgsearch import config
from imgsearch.encoders.catalog import SPECS, ModelSpec
from imgsearch.encoders.onnx.verification import VECTOR
from imgsearch.errors import EncoderError, ScratchError
from imgsearch.images import DECODING, DECODINGS, Preprocessing
from imgsearch.system import scratch
from imgsearch.system.atomic import publish
from imgsearch.types import Stamp

# To be raised by each change of the exported graph.
_VERSION = 1
MODEL = "model.onnx"
SPEC = "spec.json"
# The version of decoding that the model was last used with, if it is not this version's own.
_DECODING = "decoding"
SHA256 = "sha256"
# `glob` for models does not look this deep.
_DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """An exported model. `path` takes uint8 (n, size, size, 3) and gives float32 (n, dimension)."""

    path: Path
    spec: ModelSpec
    stamp: Stamp


def find(stamp: Stamp) -> OnnxFile | None:
    """Return the exported model for a stamp, or None if it is not on this machine."""
    path = folder_of(stamp) / MODEL
    if not path.is_file():
        path = _from_installation(path)
    known = read(path.with_name(SPEC)) if path.is_file() else None
    return OnnxFile(path, known.spec.as_stamped(stamp), stamp) if known else None


def find_own(name: str) -> OnnxFile | None:
    """Return a model that was exported from its own weights, or None.

    The weights need not be on this machine.
    """
    for models in (config.models_dir(), config.installed_models_dir()):
        for path in sorted(models.glob(f"*/{SPEC}")):
            known = read(path)
            if (
                known
                and known.spec.name == name
                and _is_own(known)
                and (found := find(known.stamp))
            ):
                return found
    return None


def _is_own(file: OnnxFile) -> bool:
    """Return whether this version would export the same model from its own weights."""
    spec = file.spec
    return (
        spec == SPECS.get(spec.name, spec)
        and file.stamp == spec.stamp(file.stamp.weights)  # no calibrated form of it
        and file.stamp.weights.startswith(spec.weights_digest)
    )


def _from_installation(path: Path) -> Path:
    """Link the model of the installation, if there is one, to `path`, and return `path`.

    Files derived from the model are stored next to the link. Where the link cannot be made, the
    path in the installation is returned.
    """
    installed = config.installed_models_dir() / path.parent.name / MODEL
    if not installed.is_file():
        return path
    try:
        path.parent.parent.mkdir(parents=True, exist_ok=True)
        with scratch.folder([path.parent.parent]) as part:
            linked = part / "linked"
            linked.mkdir()
            shutil.copyfile(installed.with_name(SPEC), linked / SPEC)
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(installed.with_name(VECTOR), linked / VECTOR)
            (linked / MODEL).symlink_to(installed)
            linked.rename(path.parent)
    except (ScratchError, OSError):  # it cannot be written there, or another process has
        pass
    return path if path.is_file() else installed


def last_used() -> OnnxFile | None:
    """Return the exported model that was opened last on this machine, or None."""
    try:
        latest = max(config.models_dir().glob(f"*/{SPEC}"), key=lambda path: path.stat().st_mtime)
    except (OSError, ValueError):  # no model
        return None
    known = read(latest)
    if known is None:
        return None
    with contextlib.suppress(OSError, ValueError):
        decoding = int(latest.with_name(_DECODING).read_text())
        if decoding in DECODINGS:
            spec = known.spec.with_decoding(decoding)
            stamp = spec.stamp(known.stamp.weights, known.stamp.variant)
            return OnnxFile(known.path, spec, stamp)
    return known


def mark_used(file: OnnxFile) -> None:
    """Record a model as the one that `last_used` returns."""
    note = file.path.with_name(_DECODING)
    decoding = file.spec.preprocessing.decoding
    with contextlib.suppress(OSError):  # `last_used` is only a guess
        os.utime(file.path.with_name(SPEC))
        if decoding != DECODING:
            note.write_text(str(decoding))
        elif note.exists():
            note.unlink()


@contextlib.contextmanager
def incoming() -> Iterator[Path]:
    """Yield an empty folder to make a model in, and remove it at the end.

    The caller holds the lock of the models' folder.
    """
    # A fixed name, so that the remains of a killed process are replaced.
    part = config.models_dir() / "incoming.part"
    _remove(part)
    part.mkdir()
    try:
        yield part
    finally:
        _remove(part)


def place(part: Path, stamp: Stamp) -> Path:
    """Move a complete model from `part` to where `find` looks for it, and return its folder."""
    folder = folder_of(stamp)
    if (folder / MODEL).exists():  # `find` ignored it, because its spec was unreadable
        _move_aside(folder)
    _remove(folder)
    publish(part, folder)
    return folder


def set_aside(file: OnnxFile) -> Path:
    """Move a damaged model to where no lookup finds it, and return its new folder.

    It is not deleted, because an int8 model may be the only one that can add images to its
    collection. Raises EncoderError if it cannot be moved.
    """
    if file.path.is_symlink() or file.path.parent.parent != config.models_dir():
        raise EncoderError(f"{file.path} is damaged and cannot be replaced: install it again")
    try:
        return _move_aside(file.path.parent)
    except OSError as error:
        raise EncoderError(
            f"{file.path} is damaged, and its folder cannot be moved: {error.strerror or error}"
        ) from error


def _move_aside(folder: Path) -> Path:
    damaged = config.models_dir() / _DAMAGED
    damaged.mkdir(exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=damaged)) / folder.name
    folder.rename(place)
    return place


def recorded_digest(file: OnnxFile) -> str:
    """Return the first digits of the SHA-256 that a model's file had when it was made.

    Returns "" if it was not recorded.
    """
    if file.stamp.dtype == "int8":
        return file.stamp.variant.rpartition(" ")[2]
    try:
        return str(json.loads(file.path.with_name(SPEC).read_text()).get(SHA256, ""))
    except (OSError, ValueError, AttributeError):
        return ""


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def graph_stamp(stamp: Stamp) -> Stamp:
    """Return the stamp of the graph alone, which does not depend on how images are decoded."""
    preprocessing = re.sub(r"decode \d+$", "decode 1", stamp.preprocessing)
    return replace(stamp, preprocessing=preprocessing)


def folder_of(stamp: Stamp) -> Path:
    stamp = graph_stamp(stamp)
    key = hashlib.sha256(f"{_VERSION} {stamp.to_json()}".encode()).hexdigest()[:16]
    return config.models_dir() / f"{stamp.model}-{key}"


def read(path: Path) -> OnnxFile | None:
    """Return the model next to a `spec.json`, with the stamp that this version gives it."""
    try:
        stored: dict[str, Any] = json.loads(path.read_text())
        preprocessing = stored["spec"].pop("preprocessing")
        for name in ("mean", "std"):
            preprocessing[name] = tuple(preprocessing[name])
        preprocessing["decoding"] = DECODING
        spec = ModelSpec(**stored["spec"], preprocessing=Preprocessing(**preprocessing))
        stamp = spec.stamp(stored["weights"], stored.get("precision", "fp32"))
        return OnnxFile(path.with_name(MODEL), spec, stamp)
    except (OSError, ValueError, TypeError, KeyError):
        return None  # of another version of imgsearch's
