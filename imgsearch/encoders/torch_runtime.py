"""Encoders run by torch, on CUDA, MPS or the CPU."""

import numpy as np
import torch

from imgsearch.encoders.base import Vectors, normalised
from imgsearch.encoders.catalog import ModelSpec
from imgsearch.encoders.networks import load_model
from imgsearch.encoders.weights import WeightsFile
from imgsearch.errors import DeviceError, DeviceMemoryError, EncoderError, first_line
from imgsearch.images import Pixels, Preprocessing
from imgsearch.records import Stamp

# On the CPU a batch goes through in parts of this size: with efficientnet-lite0 on two cores, 32 at
# once took half as much memory again and a quarter more time, most of it in the kernel for pages.
_CPU_BATCH = 8


class TorchEncoder:
    """A model without its classifier, in float32.

    Raises DeviceError if the device is not there, WeightsError if the weights do not fit.
    """

    runtime = "torch"

    def __init__(self, spec: ModelSpec, weights: WeightsFile, device: str) -> None:
        self._device = pick_device(device)
        self._preprocessing = spec.preprocessing
        self._stamp = spec.stamp(weights.sha256)
        # NHWC is how the pixels come, and the faster layout for convolutions.
        model = load_model(spec, weights).to(memory_format=torch.channels_last)
        try:
            self._model = model.to(self._device)
            # Values come as 0 to 255.
            self._mean = self._constant(spec.preprocessing.mean)
            self._std = self._constant(spec.preprocessing.std)
        except RuntimeError as error:
            if _is_out_of_memory(error):
                raise DeviceMemoryError(f"{spec.name} does not fit on {self._device}") from error
            raise DeviceError(f"{self._device} does not work: {first_line(error)}") from error

    def _constant(self, values: tuple[float, float, float]) -> torch.Tensor:
        scaled = torch.tensor(values, dtype=torch.float64) * 255.0
        return scaled.to(torch.float32).view(1, 3, 1, 1).to(self._device)

    @property
    def stamp(self) -> Stamp:
        return self._stamp

    @property
    def preprocessing(self) -> Preprocessing:
        return self._preprocessing

    @property
    def device(self) -> str:
        return str(self._device)

    def encode(self, pixels: Pixels) -> Vectors:
        if len(pixels) == 0:
            return np.empty((0, self._stamp.dimension), dtype=np.float32)
        size = _CPU_BATCH if self._device.type == "cpu" else len(pixels)
        try:
            with torch.inference_mode():
                parts = [
                    self._features(pixels[start : start + size])
                    for start in range(0, len(pixels), size)
                ]
        except (RuntimeError, MemoryError) as error:
            if _is_out_of_memory(error):
                raise self._too_large(pixels) from error
            raise EncoderError(
                f"{self._stamp.model} failed on {self.device}: {first_line(error)}"
            ) from error
        return normalised(np.concatenate(parts))

    def _features(self, pixels: Pixels) -> Vectors:
        # Moved as bytes, a quarter of what floats would be.
        batch = torch.from_numpy(np.require(pixels, requirements=("C", "W")))
        batch = batch.to(self._device).permute(0, 3, 1, 2).to(torch.float32)
        features: torch.Tensor = self._model((batch - self._mean) / self._std)
        return features.to("cpu", torch.float32).numpy()

    def _too_large(self, pixels: Pixels) -> DeviceMemoryError:
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return DeviceMemoryError(
            f"a batch of {len(pixels)} does not fit into {self.device}'s memory"
        )


def _is_out_of_memory(error: Exception) -> bool:
    """CUDA and numpy tell by the error's type, torch on the CPU and Apple's only in words."""
    words = ("out of memory", "can't allocate memory", "ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        each in str(error) for each in words
    )


def available_devices() -> list[str]:
    """The devices that `--device` can name here."""
    # is_available: a driver too old for this torch still counts its devices.
    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    devices = [f"cuda:{index}" for index in range(cuda)]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return [*devices, "cpu"]


def pick_device(name: str) -> torch.device:
    """`auto` is the first available device; any other is taken at its word. Raises DeviceError."""
    available = available_devices()
    if name == "auto":
        return torch.device(available[0])
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in available:
        raise DeviceError(f"--device {name} is not available here; there is {', '.join(available)}")
    return torch.device(wanted)
