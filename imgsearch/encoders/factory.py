"""`open_encoder` selects the model, weights, device and runtime, and returns an encoder."""

from dataclasses import replace
from typing import TYPE_CHECKING

from imgsearch.encoders import devices
from imgsearch.encoders.base import Encoder
from imgsearch.encoders.catalog import AUTO, AUTO_CHOICES, SPECS, ModelSpec
from imgsearch.encoders.onnx import model_files, prepare, verification
from imgsearch.encoders.request import EncoderRequest, check_device, check_request
from imgsearch.errors import (
    CollectionMismatchError,
    DeviceMemoryError,
    EncoderError,
    ExportError,
    MissingEncoderError,
    Remedy,
    UsageError,
    WeightsError,
)
from imgsearch.events import Listener, Note, ignore
from imgsearch.types import Stamp

if TYPE_CHECKING:
    from imgsearch.encoders.weights_cache import WeightsFile


def open_encoder(
    request: EncoderRequest, stamp: Stamp | None = None, listener: Listener = ignore
) -> Encoder:
    """Return the encoder for a request; with a stamp, the encoder that made the collection.

    On the CPU, ONNX Runtime runs the model from a file that torch exports at first use; torch is
    not loaded after that. On other devices torch runs the model. int8 runs on the CPU only, from a
    file that is calibrated on the request's sample. If the calibrated file of a collection is not
    on this machine, the fp32 encoder is returned instead, with its own stamp: its vectors are
    suitable for queries.

    Raises UsageError, UnknownModelError, WeightsError, DeviceError, ExportError, MissingTorchError,
    CollectionMismatchError if the request does not match the stamp, or MissingEncoderError if
    another program made the collection's vectors.
    """
    if stamp and stamp.made_elsewhere:
        raise MissingEncoderError(
            f"the vectors of this collection were made elsewhere, by {stamp.model}, and imgsearch "
            "does not have this encoder: it cannot encode an image for them",
            Remedy.SEARCH_BY_RECORD,
            Remedy.SEARCH_BY_VECTOR,
        )
    devices.let_cpu_help_mps()
    precision = stamp.dtype if stamp else request.precision
    check_device(request)
    device = "cpu" if precision == "int8" and request.device == "auto" else request.device
    device = devices.pick(device)
    if device != "cpu":
        devices.require_torch(f"for device {device}")
    if stamp is not None:
        check_request(request, stamp)
        known = model_files.find(stamp) if device == "cpu" else None
        if known and (request.weights is None or precision == "int8"):
            _check_stamp(SPECS.get(stamp.model, known.spec), stamp)
            _check_weights(known.spec, request, stamp, listener)
            if encoder := _verified(known, request, listener):
                return encoder
        if precision == "int8":
            return _in_fp32_instead(request, stamp, listener)
        from imgsearch.encoders import weights

        spec = _spec(stamp.model).as_stamped(stamp)
        _check_stamp(spec, stamp)
        file = weights.get(spec, request.weights, stamp.weights, listener)
    else:
        exported = _exported(request) if device == "cpu" else None
        if exported and (encoder := _verified(exported, request, listener)):
            return _calibrated(request, exported, listener) if precision == "int8" else encoder
        spec, file = _choose(request, listener)
    if precision == "int8":
        base = prepare.get_model(spec, file, listener, request.sample)
        return _calibrated(request, base, listener)
    if device == "cpu":
        try:
            exported = prepare.get_model(spec, file, listener, request.sample)
            return _by_onnx_runtime(exported)
        except ExportError as error:
            listener(Note(f"using torch, which is slower on the CPU: {error}"))

    devices.require_torch(f"to run {spec.name}")
    from imgsearch.encoders.torch.encoder import open_torch_encoder

    return open_torch_encoder(spec, file, device, listener)


def _check_weights(
    spec: ModelSpec, request: EncoderRequest, stamp: Stamp, listener: Listener
) -> None:
    if request.weights is not None:
        from imgsearch.encoders import weights

        weights.get(spec, request.weights, stamp.weights, listener)


def _calibrated(request: EncoderRequest, base: model_files.OnnxFile, listener: Listener) -> Encoder:
    """Return the int8 encoder; there is no fallback to fp32, as int8 was requested."""
    if request.sample is None:
        raise UsageError("int8 is calibrated on images, and only an ingest has them")
    from imgsearch.encoders.int8 import calibration

    if encoder := _verified(calibration.get(base, request.sample, listener), request, listener):
        return encoder
    return _by_onnx_runtime(calibration.get(base, request.sample, listener))


def _in_fp32_instead(request: EncoderRequest, stamp: Stamp, listener: Listener) -> Encoder:
    """Return the fp32 encoder for queries; benchmarks/int8.py measures that results are as good."""
    request = replace(request, precision=None)
    encoder = open_encoder(request, replace(stamp, variant="fp32"), listener)
    if (
        not request.checked
    ):  # else the caller rejects the encoder, so that its vectors are not stored
        listener(
            Note(
                f"searching in fp32: the collection's {stamp.variant} is not on this machine, or "
                "not for this device; its answers are as good"
            )
        )
    return encoder


def last_used_encoder() -> Encoder | None:
    """Return the encoder that ran last on this machine's CPU, loaded for single images.

    A query loads it while it opens the collection, and must compare its stamp with the
    collection's. Returns None if there is no such encoder.
    """
    file = model_files.last_used()
    if file is None or not file.path.is_file():
        return None
    from imgsearch.encoders.onnx.encoder import OnnxEncoder

    encoder = OnnxEncoder(file)
    try:
        encoder.load()
    except EncoderError:
        return None
    return encoder


def _verified(
    file: model_files.OnnxFile, request: EncoderRequest, listener: Listener
) -> Encoder | None:
    """Return the encoder, or None after moving a damaged file away.

    Raises EncoderError if the model cannot be checked; its file then stays in place.
    """
    encoder = _by_onnx_runtime(file)
    if not request.checked:
        return encoder
    try:
        if verification.matches_record(encoder, file.path):
            return encoder
    except DeviceMemoryError:
        raise
    except EncoderError:
        pass  # the file optimized for this CPU may be the reason
    from imgsearch.encoders.onnx.sessions import forget_optimized

    forget_optimized(file.path)
    encoder = _by_onnx_runtime(file)
    if not verification.is_damaged(encoder, file.path, model_files.recorded_digest(file)):
        return encoder
    aside = model_files.set_aside(file)
    what = f"{file.stamp.model} in {file.stamp.dtype}"
    listener(Note(f"{what}, as it was made for this machine, is damaged: moved to {aside}"))
    return None


def _by_onnx_runtime(file: model_files.OnnxFile) -> Encoder:
    from imgsearch.encoders.onnx.encoder import OnnxEncoder

    model_files.mark_used(file)
    return OnnxEncoder(file)


def _spec(name: str) -> ModelSpec:
    if spec := SPECS.get(name):
        return spec
    devices.require_torch(f"for the model {name}")
    from imgsearch.encoders.torch.torchvision_models import describe

    return describe(name)


def _check_stamp(spec: ModelSpec, stamp: Stamp) -> None:
    """Raise CollectionMismatchError if this version would make other vectors."""
    own = spec.as_stamped(stamp).stamp(stamp.weights, stamp.variant)
    if differences := stamp.differences(own):
        raise CollectionMismatchError(
            "the collection differs from what this version of imgsearch would make: "
            f"{'; '.join(differences)}; ingest the images again into another collection",
            Remedy.USE_OTHER_COLLECTION,
        )


def _exported(request: EncoderRequest) -> model_files.OnnxFile | None:
    """Return an exported model for a new collection; it needs neither torch nor the weights."""
    name = AUTO_CHOICES[0] if request.model == AUTO else request.model
    return model_files.find_own(name) if request.weights is None else None


def _choose(request: EncoderRequest, listener: Listener) -> tuple[ModelSpec, "WeightsFile"]:
    """Return the spec and weights for a new collection."""
    from imgsearch.encoders import weights

    if request.model != AUTO:
        spec = _spec(request.model)
        return spec, weights.get(spec, request.weights, listener=listener)
    if request.weights is not None:
        raise UsageError("weights need the name of their model", Remedy.NAME_ONE_MODEL)
    best, fallback = (SPECS[name] for name in AUTO_CHOICES)
    if missing := devices.missing_for_torch():
        listener(
            Note(f"using {fallback.name}: {', '.join(missing)}, for {best.name}, is not installed")
        )
        return fallback, weights.get(fallback)
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
