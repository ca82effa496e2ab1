"""Encoders run by torch, on CUDA, MPS or the CPU. The only module that imports torch by itself."""

import pickle
import re
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from imgsearch.encoders.base import Vectors, normalised
from imgsearch.encoders.catalog import ModelSpec
from imgsearch.encoders.weights import WeightsFile
from imgsearch.errors import DeviceError, DeviceMemoryError, EncoderError, WeightsError
from imgsearch.images import Pixels, Preprocessing
from imgsearch.records import Stamp

# Heads of GoogLeNet and Inception that only training uses.
_AUXILIARY = ("aux", "AuxLogits")
# Under these, training scripts save the weights beside other things.
_WRAPPERS = ("state_dict", "model")
# Put before each name by data parallel training and by torch.compile.
_PREFIXES = ("module.", "_orig_mod.")
# torchvision's file for DenseNet is older than its code: norm.1 there is norm1 here.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")

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
            raise DeviceError(f"{self._device} does not work: {_first_line(error)}") from error

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
                f"{self._stamp.model} failed on {self.device}: {_first_line(error)}"
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


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


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


def load_model(spec: ModelSpec, weights: WeightsFile) -> nn.Module:
    """The network up to the vector, (n, 3, size, size) to (n, dimension), with real weights.

    Raises WeightsError if they do not fit.
    """
    network = _build(spec)
    classifier = classifier_of(network)
    network.set_submodule(classifier, nn.Identity())
    if problems := _fill(network, _read_state(weights), classifier):
        more = f" (and {len(problems) - 1:,} more misfits)" if len(problems) > 1 else ""
        raise WeightsError(
            f"{weights.source}: these are not weights of {spec.name}: {problems[0]}{more}"
        )
    return (_EfficientNetLite(network) if spec.family == "efficientnet-lite" else network).eval()


def _build(spec: ModelSpec) -> nn.Module:
    if spec.family == "efficientnet-lite":
        from efficientnet_lite_pytorch import EfficientNet

        return cast(nn.Module, EfficientNet.from_name(spec.name))
    from imgsearch.encoders.torchvision_models import build

    return build(spec.name)


class _EfficientNetLite(nn.Module):
    """The features of the PyTorch port, averaged over the picture."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self._network = network

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self._network.extract_features(batch)
        return features.mean((2, 3))


def _read_state(weights: WeightsFile) -> dict[str, torch.Tensor]:
    """The table of weights in a file, with today's names. Raises WeightsError."""
    try:
        # weights_only: a pickle could run any code.
        loaded = torch.load(weights.path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"{weights.source}: cannot be read: {error.strerror}") from error
    except Exception as error:  # unpickling raises nearly anything on damaged input
        if isinstance(error, pickle.UnpicklingError) and "unsupported global" in str(error).lower():
            raise WeightsError(
                f"{weights.source}: holds more than weights, which could run any code, and is not "
                "loaded; save only model.state_dict() into it"
            ) from error
        raise WeightsError(
            f"{weights.source}: no file of PyTorch weights, or a damaged one: {_first_line(error)}"
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in loaded.items()
    ):
        raise WeightsError(f"{weights.source}: holds no table of weights")
    # Changed in place: the versions of the layers travel with the table, as an attribute.
    for prefix in _PREFIXES:
        consume_prefix_in_state_dict_if_present(loaded, prefix)
    for name in [name for name in loaded if _OLD_DENSENET.search(name)]:
        loaded[_OLD_DENSENET.sub(r"\1\2", name)] = loaded.pop(name)
    return loaded


def _fill(network: nn.Module, state: dict[str, torch.Tensor], classifier: str) -> list[str]:
    """Load weights into a network without its classifier; returns what does not fit.

    The classifier and what only training uses are left out, so that weights that were trained on
    other classes fit too.
    """
    unused = (f"{classifier}.", *_AUXILIARY)
    for name in [name for name in state if name.startswith(unused)]:
        del state[name]
    problems = [
        f"{name} is {_shape(state[name])}, not {_shape(own)}"
        for name, own in network.state_dict().items()
        if name in state and state[name].shape != own.shape
    ]
    if problems:
        return problems
    try:
        # By the network's own means, as some know names of older files, and have all of them.
        missing, unknown = network.load_state_dict(state, strict=False)
    except (RuntimeError, ValueError) as error:
        return [_first_line(error)]
    # Files older than this counter of training steps lack it, and only training uses it.
    lacking = [
        name
        for name in missing
        if not (name.startswith(_AUXILIARY) or name.endswith("num_batches_tracked"))
    ]
    return [
        *(f"{name} is missing" for name in lacking),
        *(f"{name} has no place in it" for name in unknown),
    ]


def _shape(tensor: torch.Tensor) -> str:
    return " x ".join(str(length) for length in tensor.shape) or "a single number"


def classifier_of(model: nn.Module) -> str:
    """The name of the layer that turns the vector into classes: the last one with weights."""
    layers = [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and not name.startswith(_AUXILIARY)
    ]
    return str(layers[-1])
