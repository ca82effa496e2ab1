"""Encoders that torch runs on CUDA, MPS or the CPU."""

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import nn

from imgsearch import config
from imgsearch.encoders.base import Encoder, Vectors, normalized
from imgsearch.encoders.catalog import ModelSpec
from imgsearch.encoders.comparison import least_cosine, representative
from imgsearch.encoders.pool import EncoderPool
from imgsearch.encoders.torch.networks import FromPixels, fused, load_model
from imgsearch.encoders.torch.streams import Direct, Runner, Streamed
from imgsearch.encoders.weights_cache import WeightsFile
from imgsearch.errors import DeviceError, DeviceMemoryError, EncoderError, Remedy, first_line
from imgsearch.events import Listener, Note, ignore
from imgsearch.images import Pixels, Preprocessing
from imgsearch.types import Stamp

Format = Literal["fp32", "fp16", "bf16"]
_DTYPES: dict[Format, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
# Between a device's vectors and fp32 on the CPU. Any two different images are farther apart.
LEAST_COSINE = 0.999
# Large enough that the next batch is queued before this one ends.
_GPU_BATCH = 128


def open_torch_encoder(
    spec: ModelSpec, weights: WeightsFile, device: str = "auto", listener: Listener = ignore
) -> Encoder:
    """Return an encoder on the named device, or a pool of encoders on several.

    Raises DeviceError if a device is unavailable or gives wrong vectors, and WeightsError if the
    weights do not fit.
    """
    devices = pick_devices(device)
    reference = ReferenceModel(spec, weights)
    encoders = [TorchEncoder(reference, each, listener) for each in devices]
    return encoders[0] if len(encoders) == 1 else EncoderPool(encoders)


class ReferenceModel:
    """A model in fp32 on the CPU, with which other devices and formats are compared.

    Raises WeightsError if the weights do not fit.
    """

    def __init__(self, spec: ModelSpec, weights: WeightsFile) -> None:
        self.spec = spec
        self.stamp = spec.stamp(weights.sha256)
        self.network = load_model(spec, weights)

    def features(self, pixels: Pixels) -> Vectors:
        """Return the model's output, not normalized, float32 of shape (n, dimension)."""
        model = FromPixels(self.network, self.spec.preprocessing)
        return Direct(torch.device("cpu")).run(model, pixels)

    @cached_property
    def expected(self) -> tuple[Pixels, Vectors]:
        """Generated images and their vectors. Raises EncoderError if these are not finite."""
        pixels = representative(self.spec.preprocessing.size)
        return pixels, normalized(self.features(pixels))


class TorchEncoder:
    """A model without its classifier, on one device.

    It computes in the first of `formats` that gives the reference's vectors; the default is the
    formats in which the device is fast. fp16 comes before bf16, which is as fast and overflows much
    later, but rounds eight times more coarsely. TF32 is off: fp32 is for full precision.

    Raises DeviceError if the device does not work, or gives wrong vectors in every format.
    """

    runtime = "torch"

    def __init__(
        self,
        reference: ReferenceModel,
        device: torch.device,
        listener: Listener = ignore,
        *,
        formats: Sequence[Format] | None = None,
        runner: Runner | None = None,
    ) -> None:
        self._device = device
        self._stamp = reference.stamp
        self._preprocessing = reference.spec.preprocessing
        try:
            if device.type == "cuda":
                _configure_cudnn()
            self._runner = runner or (Streamed if device.type == "cuda" else Direct)(device)
            self._choose_format(reference, formats or _formats(device), listener)
        except RuntimeError as error:
            if _is_out_of_memory(error):
                raise DeviceMemoryError(
                    f"{self._stamp.model} does not fit on {self._device}"
                ) from error
            raise DeviceError(f"{self._device} does not work: {first_line(error)}") from error

    def _choose_format(
        self, reference: ReferenceModel, formats: Sequence[Format], listener: Listener
    ) -> None:
        rejected: list[str] = []
        for name in formats:
            self._model, self._format = self._placed(reference.network, name), name
            # Encodes images whose values overflow; fp32 does not need it.
            self._reference = reference if name != "fp32" else None
            if self._device.type == "cpu" and name == "fp32":  # the reference itself
                break
            if (cosine := self._cosine(*reference.expected)) >= LEAST_COSINE:
                break
            rejected.append(f"{name} {cosine:.4f}")
        else:
            raise DeviceError(
                f"{self._device} gives other vectors of {self._stamp.model} than the CPU (cosine "
                f"in {', '.join(rejected)}; {LEAST_COSINE} is needed)",
                Remedy.USE_CPU,
            )
        if rejected and self._format == "fp32":
            listener(
                Note(
                    f"{self._stamp.model} runs in fp32 on {self._device}, which is slower: in "
                    f"fewer bits its vectors differ (cosine in {', '.join(rejected)})"
                )
            )

    def _placed(self, network: nn.Module, name: Format) -> FromPixels:
        model = FromPixels(fused(network), self._preprocessing, _DTYPES[name])
        if self._device.type != "mps":
            # NHWC is the layout of the pixels, and faster for convolutions; on MPS it has given
            # wrong results.
            model = model.to(memory_format=torch.channels_last)
        return model.to(self._device)

    def _cosine(self, pixels: Pixels, expected: Vectors) -> float:
        """Return the lowest cosine to the reference; 0 if the format overflows or is unknown."""
        try:
            made = normalized(self._runner.run(self._model, pixels))
        except (EncoderError, NotImplementedError):
            if self._format == "fp32":
                raise
            return 0.0
        return least_cosine(made, expected)

    @property
    def stamp(self) -> Stamp:
        return self._stamp

    @property
    def preprocessing(self) -> Preprocessing:
        return self._preprocessing

    @property
    def device(self) -> str:
        return str(self._device)

    @property
    def compute_type(self) -> str:
        return self._format

    @property
    def batch_size(self) -> int:
        return config.DEFAULT_BATCH_SIZE if self._device.type == "cpu" else _GPU_BATCH

    @property
    def concurrency(self) -> int:
        return self._runner.concurrency

    def encode(self, pixels: Pixels) -> Vectors:
        if len(pixels) == 0:
            return np.empty((0, self._stamp.dimension), dtype=np.float32)
        try:
            features = self._runner.run(self._model, pixels)
            return normalized(self._without_overflow(features, pixels))
        except (RuntimeError, MemoryError) as error:
            if _is_out_of_memory(error):
                raise self._too_large(pixels) from error
            raise EncoderError(
                f"{self._stamp.model} failed on {self.device}: {first_line(error)}"
            ) from error

    def _without_overflow(self, features: Vectors, pixels: Pixels) -> Vectors:
        """Encode images whose values exceed the format's range by the reference instead."""
        beyond = ~np.isfinite(features).all(axis=1)
        if self._reference and beyond.any():
            features[beyond] = self._reference.features(pixels[beyond])
        return features

    def _too_large(self, pixels: Pixels) -> DeviceMemoryError:
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return DeviceMemoryError(
            f"a batch of {len(pixels)} does not fit into {self.device}'s memory"
        )


def _formats(device: torch.device) -> Sequence[Format]:
    """Return the formats in which a device is fast, the best first, and fp32."""
    if device.type == "cuda":
        # Older GPUs have no tensor cores; those of 8.0 and later support bf16 in them.
        capability = torch.cuda.get_device_capability(device)
        if capability >= (7, 0):
            return ("fp16", "bf16", "fp32") if capability >= (8, 0) else ("fp16", "fp32")
    return ("fp16", "fp32") if device.type == "mps" else ("fp32",)


def _configure_cudnn() -> None:
    torch.backends.cudnn.benchmark = True  # batches come in few shapes
    torch.backends.cudnn.allow_tf32 = False


def _is_out_of_memory(error: Exception) -> bool:
    """CUDA and numpy have exception types for this; torch on the CPU and MPS have messages only."""
    words = ("out of memory", "can't allocate memory", "ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        each in str(error) for each in words
    )


def available_devices() -> list[str]:
    """Return the names of the devices of this machine, the best first."""
    # is_available: a driver too old for this torch still counts its devices.
    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    devices = [f"cuda:{index}" for index in range(cuda)]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return [*devices, "cpu"]


def pick_devices(name: str) -> list[torch.device]:
    """Return the devices of a name: `auto`, the best one, `cuda:all`, or a list with commas.

    Raises DeviceError if one is not available.
    """
    available = available_devices()
    if name == "auto":
        wanted = available[:1]
    elif name == "cuda:all":
        wanted = [each for each in available if each.startswith("cuda:")]
    else:
        wanted = ["cuda:0" if each == "cuda" else each for each in name.split(",")]
    if not wanted or not set(wanted) <= set(available):
        raise DeviceError(
            f"device {name} is not available; this machine has {', '.join(available)}"
        )
    return [torch.device(each) for each in wanted]
