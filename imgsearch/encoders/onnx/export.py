"""Export of a torch model to an ONNX file, whose vectors are checked against torch's."""

import contextlib
import gc
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from imgsearch.encoders.base import normalized
from imgsearch.encoders.catalog import ModelSpec
from imgsearch.encoders.comparison import least_cosine, representative
from imgsearch.encoders.onnx.sessions import INPUT, OUTPUT, open_session, run_session
from imgsearch.encoders.torch.networks import FromPixels, fused, load_model
from imgsearch.encoders.weights_cache import WeightsFile
from imgsearch.errors import EncoderError, ExportError, first_line
from imgsearch.images import Pixels

# Rounding alone leaves 0.999999 and more.
LEAST_COSINE = 0.9999


def export(spec: ModelSpec, weights: WeightsFile, path: Path, images: Pixels | None = None) -> None:
    """Write the model with its normalization, for batches of any length.

    It is checked with generated images and with `images`, uint8 (n, size, size, 3). Raises
    ExportError if it cannot be exported or its vectors differ from torch's, and WeightsError if the
    weights do not fit.
    """
    network = load_model(spec, weights)
    model = FromPixels(network, spec.preprocessing)
    pixels = representative(spec.preprocessing.size)
    if images is not None:
        pixels = np.concatenate([pixels, images])
    try:
        # Folded batch normalizations save the exporter a third of its time.
        _write(FromPixels(fused(network), spec.preprocessing), pixels[:2], path)
        made = normalized(run_session(open_session(path, threads=1), pixels))
        with torch.inference_mode():
            expected = normalized(model(torch.from_numpy(pixels)).numpy())
    except (EncoderError, OSError, MemoryError):
        raise
    except Exception as error:  # the tracer, the translator and the runtime raise all kinds
        raise ExportError(f"{spec.name} cannot be exported: {first_line(error)[:200]}") from error
    check(spec.name, least_cosine(made, expected))


def check(name: str, cosine: float) -> None:
    """Raise ExportError if the lowest cosine between the two runtimes' vectors is too low."""
    if not cosine >= LEAST_COSINE:
        raise ExportError(
            f"{name}: its vectors by ONNX Runtime are not those of torch (cosine {cosine:.6f}, "
            f"less than {LEAST_COSINE})"
        )


def _write(model: nn.Module, pixels: Pixels, path: Path) -> None:
    with _quiet(), _no_garbage_collection():
        torch.onnx.export(
            model,
            (torch.from_numpy(pixels),),
            path,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("n")},),
            external_data=False,
            verbose=False,
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's output, log records and warnings, deprecations included."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Suspend garbage collection, which takes a seventh of the export's time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
