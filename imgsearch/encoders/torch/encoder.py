"""Encoders run by torch, on CUDA, MPS or the CPU."""

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import nn

from imgsearch import config
from imgsearch.encoders.base import Encoder, Vectors, normalised
from imgsearch.encoders.catalog import ModelSpec
from imgsearch.encoders.comparison import least_cosine, representative
from imgsearch.encoders.pool import EncoderPool
from imgsearch.encoders.torch.networks import FromPixels, fused, load_model
from imgsearch.encoders.torch.streams import Direct, Runner, Streamed
from imgsearch.encoders.weights import WeightsFile
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
# Of a device's vectors to those in fp32 on the CPU: nearer than any two different pictures' are.
LEAST_COSINE = 0.999
# It must last longer than it takes to queue the next one.
_GPU_BATCH = 128


def open_torch_encoder(
    spec: ModelSpec, weights: WeightsFile, device: str = "auto", listener: Listener = ignore
) -> Encoder:
    """The model on the device of this name, or on several as one.

    Raises DeviceError if a device is not there or computes something else, WeightsError if the
    weights do not fit.
    """
    devices = pick_devices(device)
    reference = ReferenceModel(spec, weights)
    encoders = [TorchEncoder(reference, each, listener) for each in devices]
    return encoders[0] if len(encoders) == 1 else EncoderPool(encoders)


class ReferenceModel:
    """A model in fp32 on the CPU, to which other devices and formats are held.

    Raises WeightsError if the weights do not fit.
    """

    def __init__(self, spec: ModelSpec, weights: WeightsFile) -> None:
        self.spec = spec
        self.stamp = spec.stamp(weights.sha256)
        self.network = load_model(spec, weights)

    def features(self, pixels: Pixels) -> Vectors:
        """The model's own output, not normalised, float32 of shape (n, dimension)."""
        model = FromPixels(self.network, self.spec.preprocessing)
        return Direct(torch.device("cpu")).run(model, pixels)

    @cached_property
    def expected(self) -> tuple[Pixels, Vectors]:
        """Pictures and their vectors. Raises EncoderError if these are not finite."""
        pixels = representative(self.spec.preprocessing.size)
        return pixels, normalised(self.features(pixels))


class TorchEncoder:
    """A model without its classifier, on one device.

    It computes in the first of `formats` that gives the reference's vectors; by default those
    that the device is fast at. fp16 comes before bf16, which is as fast and rounds eight times
    coarser, but overflows far later. TF32 is left off: fp32 is for where precision is wanted.

    Raises DeviceError if the device does not work, or gives other vectors in every format.
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
        refused: list[str] = []
        for name in formats:
            self._model, self._format = self._placed(reference.network, name), name
            # For what overflows; fp32 needs none.
            self._reference = reference if name != "fp32" else None
            if self._device.type == "cpu" and name == "fp32":  # as the reference
                break
            if (cosine := self._cosine(*reference.expected)) >= LEAST_COSINE:
                break
            refused.append(f"{name} {cosine:.4f}")
        else:
            raise DeviceError(
                f"{self._device} gives other vectors of {self._stamp.model} than the CPU (cosine "
                f"in {', '.join(refused)}; {LEAST_COSINE} is needed)",
                Remedy.USE_CPU,
            )
        if refused and self._format == "fp32":
            listener(
                Note(
                    f"{self._stamp.model} runs in fp32 on {self._device}, which is slower: in "
                    f"fewer bits its vectors are others (cosine in {', '.join(refused)})"
                )
            )

    def _placed(self, network: nn.Module, name: Format) -> FromPixels:
        model = FromPixels(fused(network), self._preprocessing, _DTYPES[name])
        if self._device.type != "mps":
            # NHWC is how the pixels come, and the faster layout for convolutions; on MPS it
            # has been a source of wrong results.
            model = model.to(memory_format=torch.channels_last)
        return model.to(self._device)

    def _cosine(self, pixels: Pixels, expected: Vectors) -> float:
        """The least one to the reference's vectors; 0 where a format overflows or is unknown."""
        try:
            made = normalised(self._runner.run(self._model, pixels))
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
            return normalised(self._without_overflow(features, pixels))
        except (RuntimeError, MemoryError) as error:
            if _is_out_of_memory(error):
                raise self._too_large(pixels) from error
            raise EncoderError(
                f"{self._stamp.model} failed on {self.device}: {first_line(error)}"
            ) from error

    def _without_overflow(self, features: Vectors, pixels: Pixels) -> Vectors:
        """A picture whose values are beyond the format's range is done again by the reference."""
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
    """Those that a device is fast at, the best first, and fp32."""
    if device.type == "cuda":
        # Older GPUs have no tensor cores; the first with bf16 in them are of 8.0.
        capability = torch.cuda.get_device_capability(device)
        if capability >= (7, 0):
            return ("fp16", "bf16", "fp32") if capability >= (8, 0) else ("fp16", "fp32")
    return ("fp16", "fp32") if device.type == "mps" else ("fp32",)


def _configure_cudnn() -> None:
    torch.backends.cudnn.benchmark = True  # batches come in few shapes
    torch.backends.cudnn.allow_tf32 = False


def _is_out_of_memory(error: Exception) -> bool:
    """CUDA and numpy tell by the error's type, torch on the CPU and Apple's only in words."""
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
    """`auto` is the first available device, `cuda:all` every one of CUDA's.

    Any other name, or several with commas between, is taken at its word. Raises DeviceError.
    """
    available = available_devices()
    if name == "auto":
        wanted = available[:1]
    elif name == "cuda:all":
        wanted = [each for each in available if each.startswith("cuda:")]
    else:
        wanted = ["cuda:0" if each == "cuda" else each for each in name.split(",")]
    if not wanted or not set(wanted) <= set(available):
        raise DeviceError(f"device {name} is not available here; there is {', '.join(available)}")
    return [torch.device(each) for each in wanted]
