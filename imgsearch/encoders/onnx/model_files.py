"""Models in the form that ONNX Runtime runs, kept under `IMGSEARCH_HOME/models`.

A model is exported by torch once, the first time that it is needed; from then on neither torch
nor the file of weights is. Each lies in a folder of its own, named after all that its vectors
depend on, which appears only whole. What could not be exported is remembered too. Models that
came with the installation, which may have no torch, are used as if they were there.
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
    """The exported model that makes vectors of this stamp, if it is on this machine."""
    path = folder_of(stamp) / MODEL
    if not path.is_file():
        path = _from_installation(path)
    known = read(path.with_name(SPEC)) if path.is_file() else None
    return OnnxFile(path, known.spec.as_stamped(stamp), stamp) if known else None


def find_own(name: str) -> OnnxFile | None:
    """A model as exported from its own weights, which then need not be on this machine."""
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
    """Whether this version would export the same, from the model's own weights."""
    spec = file.spec
    return (
        spec == SPECS.get(spec.name, spec)
        and file.stamp == spec.stamp(file.stamp.weights)  # no calibrated form of it
        and file.stamp.weights.startswith(spec.weights_digest)
    )


def _from_installation(path: Path) -> Path:
    """The model that should be at `path`, if it came with the installation; else just `path`.

    It is linked from there, so that what is made of it can be kept beside it.
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
    """The exported model that was opened last on this machine."""
    try:
        latest = max(config.models_dir().glob(f"*/{SPEC}"), key=lambda path: path.stat().st_mtime)
    except (OSError, ValueError):  # there is none
        return None
    known = read(latest)
    if known is None:
        return None
    with contextlib.suppress(OSError, ValueError):
        decoding = int(latest.with_name(_DECODING).read_text())
        if decoding in DECODINGS:
            spec = known.spec.with_decoding(decoding)
            stamp = spec.stamp(known.stamp.weights, known.stamp.precision)
            return OnnxFile(known.path, spec, stamp)
    return known


def mark_used(file: OnnxFile) -> None:
    """For `last_used`."""
    note = file.path.with_name(_DECODING)
    decoding = file.spec.preprocessing.decoding
    with contextlib.suppress(OSError):  # only a guess will be worse
        os.utime(file.path.with_name(SPEC))
        if decoding != DECODING:
            note.write_text(str(decoding))
        elif note.exists():
            note.unlink()


@contextlib.contextmanager
def incoming() -> Iterator[Path]:
    """An empty folder to make a model in, for who holds the lock; nothing of it stays."""
    # Always this name, so that what a killed run left is written over.
    part = config.models_dir() / "incoming.part"
    _remove(part)
    part.mkdir()
    try:
        yield part
    finally:
        _remove(part)


def place(part: Path, stamp: Stamp) -> Path:
    """Let what was made in `part` appear where `find` looks for it."""
    folder = folder_of(stamp)
    if (folder / MODEL).exists():  # it was not found, because what belongs to it was not readable
        _move_aside(folder)
    _remove(folder)
    publish(part, folder)
    return folder


def set_aside(file: OnnxFile) -> Path:
    """Move a damaged model where no search looks, and return the place.

    It is not deleted: an int8 model may be the only one that a collection's images can be encoded
    with. Raises EncoderError for one that cannot be moved.
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
    """How the SHA-256 of a model's file began when it was made; "" where it was not recorded."""
    if file.stamp.number_format == "int8":
        return file.stamp.precision.rpartition(" ")[2]
    try:
        return str(json.loads(file.path.with_name(SPEC).read_text()).get(SHA256, ""))
    except (OSError, ValueError, AttributeError):
        return ""


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def graph_stamp(stamp: Stamp) -> Stamp:
    """The same for all stamps of one graph, which takes pixels, however they were decoded."""
    preprocessing = re.sub(r"decode \d+$", "decode 1", stamp.preprocessing)
    return replace(stamp, preprocessing=preprocessing)


def folder_of(stamp: Stamp) -> Path:
    stamp = graph_stamp(stamp)
    key = hashlib.sha256(f"{_VERSION} {stamp.to_json()}".encode()).hexdigest()[:16]
    return config.models_dir() / f"{stamp.model}-{key}"


def read(path: Path) -> OnnxFile | None:
    """What lies beside a `spec.json`; its stamp is the one that this version would give it."""
    try:
        kept: dict[str, Any] = json.loads(path.read_text())
        preprocessing = kept["spec"].pop("preprocessing")
        for name in ("mean", "std"):
            preprocessing[name] = tuple(preprocessing[name])
        preprocessing["decoding"] = DECODING
        spec = ModelSpec(**kept["spec"], preprocessing=Preprocessing(**preprocessing))
        stamp = spec.stamp(kept["weights"], kept.get("precision", "fp32"))
        return OnnxFile(path.with_name(MODEL), spec, stamp)
    except (OSError, ValueError, TypeError, KeyError):
        return None  # of another version of imgsearch's
