"""Encoders by name: `open_encoder` is the one door."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from imgsearch import config
from imgsearch.encoders import devices, onnx_files
from imgsearch.encoders.base import Encoder
from imgsearch.encoders.catalog import AUTO, AUTO_CHOICES, SPECS, ModelSpec
from imgsearch.errors import (
    CollectionMismatchError,
    EncoderError,
    ExportError,
    UsageError,
    WeightsError,
)
from imgsearch.events import Listener, Note, ignore
from imgsearch.records import Stamp

if TYPE_CHECKING:
    from imgsearch.encoders.weights import WeightsFile

__all__ = ["Encoder", "EncoderRequest", "check_request", "last_used_encoder", "open_encoder"]


@dataclass(frozen=True, slots=True)
class EncoderRequest:
    """What the user asked for. `weights` is a file or a URL; None means the model's own."""

    model: str = AUTO
    weights: str | None = None
    device: str = config.DEFAULT_DEVICE


def check_request(request: EncoderRequest, stamp: Stamp) -> None:
    """Refuse early, before anything is loaded, a model that is not the collection's.

    Raises CollectionMismatchError with both sides named.
    """
    if request.model not in (AUTO, stamp.model):
        raise CollectionMismatchError(
            f"the collection was made with {stamp.model}, not with {request.model}; their vectors "
            "cannot be compared: leave --model out, or use another --collection"
        )


def open_encoder(
    request: EncoderRequest, stamp: Stamp | None = None, listener: Listener = ignore
) -> Encoder:
    """The encoder for a request; with a stamp, the very one that made the collection.

    On the CPU it is run by ONNX Runtime, from a file that torch exports the first time; once
    that is there, torch is not loaded. On other devices torch runs it. Raises UsageError,
    UnknownModelError, WeightsError, DeviceError, or CollectionMismatchError if the stamp is
    another's.
    """
    devices.let_cpu_help_mps()
    device = devices.pick(request.device)
    if stamp is not None:
        check_request(request, stamp)
        if device == "cpu" and request.weights is None and (known := onnx_files.find(stamp)):
            _check_stamp(SPECS.get(stamp.model, known.spec), stamp)
            return _by_onnx_runtime(known)
        from imgsearch.encoders import weights

        spec = _spec(stamp.model)
        _check_stamp(spec, stamp)
        file = weights.get(spec, request.weights, stamp.weights, listener)
    else:
        spec, file = _choose(request, listener)
    if device == "cpu":
        try:
            return _by_onnx_runtime(onnx_files.get(spec, file, listener))
        except ExportError as error:
            listener(Note(f"using torch, which is slower on the CPU: {error}"))

    from imgsearch.encoders.torch_runtime import open_torch_encoder

    return open_torch_encoder(spec, file, device, listener)


def last_used_encoder() -> Encoder | None:
    """The encoder that ran last on this machine's CPU, loaded, to encode a single picture.

    A guess at what a query needs, so that it can be loaded while the collection is opened; whoever
    takes it compares its stamp with the collection's.
    """
    file = onnx_files.last_used()
    if file is None or not file.path.is_file():
        return None
    from imgsearch.encoders.onnx_runtime import OnnxEncoder

    encoder = OnnxEncoder(file)
    try:
        encoder.load()
    except EncoderError:
        return None
    return encoder


def _by_onnx_runtime(file: onnx_files.OnnxFile) -> Encoder:
    from imgsearch.encoders.onnx_runtime import OnnxEncoder

    onnx_files.mark_used(file)
    return OnnxEncoder(file)


def _spec(name: str) -> ModelSpec:
    if spec := SPECS.get(name):
        return spec
    from imgsearch.encoders.torchvision_models import describe

    return describe(name)


def _check_stamp(spec: ModelSpec, stamp: Stamp) -> None:
    """Whether this version would do everything, weights aside, as the collection's maker did."""
    if differences := stamp.differences(spec.stamp(stamp.weights)):
        raise CollectionMismatchError(
            "the collection was made otherwise than this version of imgsearch would: "
            f"{'; '.join(differences)}; ingest the pictures anew into another --collection"
        )


def _choose(request: EncoderRequest, listener: Listener) -> tuple[ModelSpec, "WeightsFile"]:
    """The spec and weights for a new collection."""
    from imgsearch.encoders import weights

    if request.model != AUTO:
        spec = _spec(request.model)
        return spec, weights.get(spec, request.weights, listener=listener)
    if request.weights is not None:
        raise UsageError("--weights needs --model: say which model the weights are for")
    best, fallback = (SPECS[name] for name in AUTO_CHOICES)
    try:
        return best, weights.get(best, listener=listener)
    except WeightsError as error:
        listener(
            Note(
                f"using {fallback.name}, which comes with its weights, because those of "
                f"{best.name} ({best.megabytes:.0f} MB) are not on this machine: "
                f"{error.__cause__ or error}"
            )
        )
    return fallback, weights.get(fallback)
