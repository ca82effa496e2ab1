"""From torch's model to a file that ONNX Runtime runs, checked against torch."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from imgsearch.encoders.base import normalised
from imgsearch.encoders.catalog import ModelSpec
from imgsearch.encoders.networks import load_model
from imgsearch.encoders.onnx_runtime import INPUT, OUTPUT, open_session, run_session
from imgsearch.encoders.weights import WeightsFile
from imgsearch.errors import EncoderError, ExportError, first_line
from imgsearch.images import Pixels, Preprocessing

# Rounding alone leaves 0.999999 and more.
LEAST_COSINE = 0.9999
_CHECKED = 8


def export(spec: ModelSpec, weights: WeightsFile, path: Path) -> None:
    """Write the model, its normalisation included, for batches of any length.

    Raises ExportError if it cannot be exported, or if its vectors are not those of torch, and
    WeightsError if the weights do not fit.
    """
    model = _FromPixels(load_model(spec, weights), spec.preprocessing).eval()
    pixels = representative(spec.preprocessing.size)
    try:
        _write(model, pixels[:2], path)
        made = normalised(run_session(open_session(path, threads=1), pixels))
        with torch.inference_mode():
            expected = normalised(model(torch.from_numpy(pixels)).numpy())
    except EncoderError:
        raise
    except Exception as error:  # whatever the tracer, the translator and the runtime stumble over
        raise ExportError(f"{spec.name} cannot be exported: {first_line(error)[:200]}") from error
    check(spec.name, float((made * expected).sum(axis=1).min()))


def check(name: str, cosine: float) -> None:
    """Raises ExportError where the least cosine between the two runtimes' vectors is too low."""
    if not cosine >= LEAST_COSINE:
        raise ExportError(
            f"{name}: its vectors by ONNX Runtime are not those of torch (cosine {cosine:.6f}, "
            f"less than {LEAST_COSINE})"
        )


def _write(model: nn.Module, pixels: Pixels, path: Path) -> None:
    with _quiet():
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
    """The exporter tells its progress to whoever listens, and warns of its own insides."""
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


class _FromPixels(nn.Module):
    """A model with its normalisation: uint8 (n, size, size, 3) to float32 (n, dimension).

    In the graph it is done by the runtime's threads, on a chunk that is in the cache.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, model: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self._model = model
        for name in ("mean", "std"):
            values = torch.tensor(getattr(preprocessing, name), dtype=torch.float64) * 255.0
            self.register_buffer(name, values.to(torch.float32).view(1, 3, 1, 1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        batch = pixels.permute(0, 3, 1, 2).to(torch.float32)
        features: torch.Tensor = self._model((batch - self.mean) / self.std)
        return features


def representative(size: int) -> Pixels:
    """Pictures to check with, of every kind between smooth and noisy, and one of each extreme.

    uint8 of shape (8, size, size, 3). Made, not shipped: how a graph rounds does not depend on
    what is to be seen.
    """
    random = np.random.default_rng(0)
    pictures = [np.full((size, size, 3), value, dtype=np.uint8) for value in (0, 255)]
    for side in np.linspace(3, size, _CHECKED - len(pictures)).astype(int):
        coarse = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
        pictures.append(np.asarray(image))
    return np.stack(pictures)
