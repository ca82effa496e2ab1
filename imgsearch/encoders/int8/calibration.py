"""int8 models: exported models, quantized and calibrated on a sample of images.

A calibrated model is identified by the SHA-256 of its file, which is part of the stamp of its
vectors. Another ingest of the same images finds it and does not calibrate again.
"""

import hashlib
import json
import time
from dataclasses import asdict, replace
from pathlib import Path

from imgsearch import config
from imgsearch.encoders import devices
from imgsearch.encoders.base import Sample
from imgsearch.encoders.onnx import model_files, verification
from imgsearch.encoders.onnx.model_files import OnnxFile
from imgsearch.errors import ExportError, Remedy
from imgsearch.events import Listener, Note, ignore
from imgsearch.images import Pixels
from imgsearch.system.locking import locked

# To be raised by each change of the quantized graph.
_VERSION = 3
# Images for calibration, and other images for the check. Fewer than _LEAST would leave the ranges
# to chance.
CALIBRATION_IMAGES = 64
CHECK_IMAGES = 32
_LEAST = 30
# Mean cosine with fp32's vectors over images that were not used for calibration. With
# efficientnet-lite0 and 800 images, overlap@10 with fp32 was 0.95 at a cosine of 0.9988, and 0.92
# at 0.994, which is what rounding to the nearest gives.
LEAST_COSINE = 0.995


def get(base: OnnxFile, sample: Sample, listener: Listener = ignore) -> OnnxFile:
    """Return the int8 form of an exported model; calibrate it first if necessary.

    Raises ExportError if there are too few images, if int8 would not make the model faster, or if
    its vectors differ too much from those of fp32.
    """
    pixels = sample(base.spec.preprocessing, CALIBRATION_IMAGES + CHECK_IMAGES)
    if len(pixels) < _LEAST:
        raise ExportError(
            f"int8 is calibrated on the images of a collection's first ingest and needs {_LEAST} "
            f"different ones that can be used, but found {len(pixels)}: ingest more images in one "
            "run, or use fp32, which also reports what is wrong with each file",
            Remedy.USE_FP32,
        )
    calibration = _digest(base, pixels)
    if known := _find(base, calibration):
        return known
    folder = config.models_dir()
    try:
        with locked(folder, f"calibrating {base.spec.name}", listener):
            if known := _find(base, calibration):  # by the process that this one has waited for
                return known
            return _make(base, pixels, calibration, listener)
    except OSError as error:
        raise ExportError(f"{folder} cannot be written: {error.strerror or error}") from error


def _digest(base: OnnxFile, pixels: Pixels) -> str:
    """Return a hash of everything that a calibrated model depends on."""
    sha256 = hashlib.sha256(f"{_VERSION} {model_files.graph_stamp(base.stamp).to_json()}".encode())
    sha256.update(pixels.tobytes())
    return sha256.hexdigest()


def _find(base: OnnxFile, calibration: str) -> OnnxFile | None:
    for file in config.models_dir().glob(f"{base.stamp.model}-*/{model_files.SPEC}"):
        try:
            known = json.loads(file.read_text()).get("calibration") == calibration
        except (OSError, ValueError, AttributeError):
            continue
        if known and (found := model_files.read(file)) and found.path.is_file():
            return found
    return None


def _make(base: OnnxFile, pixels: Pixels, calibration: str, listener: Listener) -> OnnxFile:
    name = base.spec.name
    devices.require_torch(f"to calibrate {name} for int8", Remedy.USE_FP32)
    held_out = len(pixels) * CHECK_IMAGES // (CALIBRATION_IMAGES + CHECK_IMAGES)
    listener(Note(f"calibrating {name} for int8 on {len(pixels) - held_out} images, once"))
    started = time.monotonic()
    from imgsearch.encoders.int8.quantize import quantize

    with model_files.incoming() as part:
        model = part / model_files.MODEL
        quantize(base.path, model, pixels[held_out:], name)
        cosine = _mean_cosine(base.path, model, pixels[:held_out])
        _check(name, cosine)
        verification.record_vector(model, base.spec.preprocessing.size)
        digest = verification.sha256_of(model)
        stamp = replace(base.stamp, variant=f"int8 {digest[:12]}")
        description = {
            "spec": asdict(base.spec),
            "weights": stamp.weights,
            "precision": stamp.variant,
            "calibration": calibration,
        }
        (part / model_files.SPEC).write_text(json.dumps(description))
        folder = model_files.place(part, stamp)
    seconds = time.monotonic() - started
    listener(
        Note(
            f"{name} in int8 is ready, after {seconds:.0f} s; on {held_out} other images the "
            f"mean cosine with fp32 is {cosine:.4f}"
        )
    )
    return OnnxFile(folder / model_files.MODEL, base.spec, stamp)


def _mean_cosine(fp32: Path, int8: Path, pixels: Pixels) -> float:
    from imgsearch.encoders.onnx.sessions import vectors_of

    threads = config.cpu_cores()
    one, other = vectors_of(fp32, pixels, threads), vectors_of(int8, pixels, threads)
    return float((one * other).sum(axis=1).mean())


def _check(name: str, cosine: float) -> None:
    if not cosine >= LEAST_COSINE:
        raise ExportError(
            f"{name} loses too much by int8 on these images: the mean cosine with fp32 is "
            f"{cosine:.4f}, less than {LEAST_COSINE}",
            Remedy.USE_FP32,
        )
