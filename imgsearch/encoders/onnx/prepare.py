"""The preparation of a model for ONNX Runtime, which torch does once on a machine.

Models that torch fails to export are recorded, so that the same version does not try again.
"""

import json
import os
import re
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from imgsearch.encoders import devices
from imgsearch.encoders.base import Sample
from imgsearch.encoders.catalog import ModelSpec
from imgsearch.encoders.onnx import verification
from imgsearch.encoders.onnx.model_files import (
    MODEL,
    SHA256,
    SPEC,
    OnnxFile,
    find,
    folder_of,
    incoming,
    place,
)
from imgsearch.errors import DeviceMemoryError, ExportError
from imgsearch.events import Listener, Note, ignore
from imgsearch.system.atomic import write_text
from imgsearch.system.locking import locked
from imgsearch.types import Stamp

if TYPE_CHECKING:  # not imported for exported models, which need no weights
    from imgsearch.encoders.weights_cache import WeightsFile

_FAILURE = "refusal.json"
# torch reports these without an exception class of their own.
_RESOURCES = re.compile(r"allocate|out of memory|no space left|too many open files", re.IGNORECASE)
# Real images that an export is checked with, where the caller has a sample.
_CHECK_IMAGES = 8


def get_model(
    spec: ModelSpec,
    weights: "WeightsFile",
    listener: Listener = ignore,
    sample: Sample | None = None,
) -> OnnxFile:
    """Return the exported model; export it first if necessary, checked with images of the sample.

    Raises ExportError if torch cannot export it, or if its vectors are not those of torch;
    MissingTorchError if torch is not installed; WeightsError if the weights do not fit.
    """
    stamp = spec.stamp(weights.sha256)
    if known := find(stamp):
        return known
    folder = folder_of(stamp)
    _raise_recorded_failure(folder)
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
            export(
                spec, weights, part / MODEL, sample and sample(spec.preprocessing, _CHECK_IMAGES)
            )
        except ExportError as error:
            if not _is_transient(error):
                _record_failure(folder_of(stamp), str(error))
            raise
        verification.record_vector(part / MODEL, spec.preprocessing.size)
        digest = verification.sha256_of(part / MODEL)
        description = {"spec": asdict(spec), "weights": weights.sha256, SHA256: digest}
        (part / SPEC).write_text(json.dumps(description))
        folder = place(part, stamp)
    listener(Note(f"{spec.name} is ready, after {time.monotonic() - started:.0f} s"))
    return OnnxFile(folder / MODEL, spec, stamp)


def _torch_version() -> str:
    from importlib.metadata import version

    return version("torch")


def _is_transient(error: BaseException) -> bool:
    """Return whether lack of memory, disk space or file handles caused an error."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError | MemoryError | DeviceMemoryError):
            return True
        if _RESOURCES.search(str(cause)):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _record_failure(folder: Path, reason: str) -> None:
    folder.mkdir(exist_ok=True)
    failure = {"torch": _torch_version(), "reason": reason}
    write_text(folder / _FAILURE, json.dumps(failure))


def _raise_recorded_failure(folder: Path) -> None:
    """Raise ExportError if the installed version of torch failed to export this model before."""
    path = folder / _FAILURE
    if not os.path.isfile(path):
        return
    try:
        failure = json.loads(path.read_text())
        reason = str(failure["reason"]) if failure["torch"] == _torch_version() else None
    except (OSError, ValueError, TypeError, KeyError):
        return
    if reason is not None:
        raise ExportError(reason)
