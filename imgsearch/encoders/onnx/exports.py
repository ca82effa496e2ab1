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
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgsearch import config
from imgsearch.encoders import devices
from imgsearch.encoders.base import Sample
from imgsearch.encoders.catalog import SPECS, ModelSpec
from imgsearch.encoders.onnx import soundness
from imgsearch.encoders.onnx.soundness import VECTOR
from imgsearch.errors import DeviceMemoryError, EncoderError, ExportError, ScratchError
from imgsearch.events import Listener, Note, ignore
from imgsearch.images import DECODING, DECODINGS, Preprocessing
from imgsearch.system import scratch
from imgsearch.system.durability import fsync_files
from imgsearch.system.locking import locked
from imgsearch.types import Stamp

if TYPE_CHECKING:  # an exported model needs no weights, nor what downloads them
    from imgsearch.encoders.weights import WeightsFile

# Raised by whatever changes the exported graph.
_VERSION = 1
MODEL = "model.onnx"
SPEC = "spec.json"
_REFUSAL = "refusal.json"
# The version of decoding that the model was last used with, if it is not this version's own.
_DECODING = "decoding"
_SHA256 = "sha256"
# What torch says, in errors of no class of their own.
_RESOURCES = re.compile(r"allocate|out of memory|no space left|too many open files", re.IGNORECASE)
# Deeper than any search for models looks.
_DAMAGED = "damaged"
# Real pictures that an export is checked with, where some are at hand.
_CHECKED = 8


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """An exported model. `path` takes uint8 (n, size, size, 3) and gives float32 (n, dimension)."""

    path: Path
    spec: ModelSpec
    stamp: Stamp


def find(stamp: Stamp) -> OnnxFile | None:
    """The exported model that makes vectors of this stamp, if it is on this machine."""
    path = _folder(stamp) / MODEL
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


def get(
    spec: ModelSpec,
    weights: "WeightsFile",
    listener: Listener = ignore,
    sample: Sample | None = None,
) -> OnnxFile:
    """The exported model, made now if need be; it is checked with pictures of the sample too.

    Raises ExportError if torch cannot export it, or if its vectors are not those of torch;
    MissingTorchError if there is no torch to do it; WeightsError if the weights do not fit.
    """
    stamp = spec.stamp(weights.sha256)
    if known := find(stamp):
        return known
    folder = _folder(stamp)
    _raise_refusal(folder)
    try:
        with locked(folder.parent, f"preparing {spec.name}", listener):
            if known := find(stamp):  # by the process that this one has waited for
                return known
            return _make(spec, weights, stamp, listener, sample)
    except OSError as error:
        raise ExportError(f"{folder} cannot be written: {error.strerror or error}") from error
    except MemoryError as error:
        raise ExportError(f"{spec.name} cannot be exported: too little memory") from error


def _make(
    spec: ModelSpec,
    weights: "WeightsFile",
    stamp: Stamp,
    listener: Listener,
    sample: Sample | None,
) -> OnnxFile:
    devices.require_torch(f"to prepare {spec.name} for the CPU, once")
    listener(Note(f"preparing {spec.name} for this machine's CPU, once"))
    started = time.monotonic()
    from imgsearch.encoders.onnx.export import export

    with incoming() as part:
        try:
            export(spec, weights, part / MODEL, sample and sample(spec.preprocessing, _CHECKED))
        except ExportError as error:
            if not _is_transient(error):
                _remember_refusal(_folder(stamp), str(error))
            raise
        soundness.remember(part / MODEL, spec.preprocessing.size)
        digest = soundness.sha256_of(part / MODEL)
        kept = {"spec": asdict(spec), "weights": weights.sha256, _SHA256: digest}
        (part / SPEC).write_text(json.dumps(kept))
        folder = place(part, stamp)
    listener(Note(f"{spec.name} is ready, after {time.monotonic() - started:.0f} s"))
    return OnnxFile(folder / MODEL, spec, stamp)


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
    folder = _folder(stamp)
    fsync_files(part)
    if (folder / MODEL).exists():  # it was not found, because what belongs to it was not readable
        _move_aside(folder)
    _remove(folder)
    part.rename(folder)
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
        return str(json.loads(file.path.with_name(SPEC).read_text()).get(_SHA256, ""))
    except (OSError, ValueError, AttributeError):
        return ""


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def graph_stamp(stamp: Stamp) -> Stamp:
    """The same for all stamps of one graph, which takes pixels, however they were decoded."""
    preprocessing = re.sub(r"decode \d+$", "decode 1", stamp.preprocessing)
    return replace(stamp, preprocessing=preprocessing)


def _folder(stamp: Stamp) -> Path:
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


def _torch_version() -> str:
    from importlib.metadata import version

    return version("torch")


def _is_transient(error: BaseException) -> bool:
    """Whether it may go better another time: the memory or the disk was the reason."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError | MemoryError | DeviceMemoryError):
            return True
        if _RESOURCES.search(str(cause)):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _remember_refusal(folder: Path, reason: str) -> None:
    folder.mkdir(exist_ok=True)
    refusal = {"torch": _torch_version(), "reason": reason}
    (folder / _REFUSAL).write_text(json.dumps(refusal))


def _raise_refusal(folder: Path) -> None:
    """What this torch could not export it will not be able to the next time."""
    path = folder / _REFUSAL
    if not os.path.isfile(path):
        return
    try:
        refusal = json.loads(path.read_text())
        reason = str(refusal["reason"]) if refusal["torch"] == _torch_version() else None
    except (OSError, ValueError, TypeError, KeyError):
        return
    if reason is not None:
        raise ExportError(reason)
