"""Loading of PyTorch weight files into networks."""

import pickle
import re
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from imgsearch.encoders.weights_cache import WeightsFile
from imgsearch.errors import WeightsError, first_line

# Heads of GoogLeNet and Inception that are used in training only.
_AUXILIARY = ("aux", "AuxLogits")
# Keys under which training scripts save the weights next to other data.
_WRAPPERS = ("state_dict", "model")
# Prefixes of names from data parallel training and from torch.compile.
_PREFIXES = ("module.", "_orig_mod.")
# torchvision's file for DenseNet is older than its code: norm.1 there is norm1 here.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


def read_state(weights: WeightsFile) -> dict[str, torch.Tensor]:
    """Return the state dict in a file, with current names. Raises WeightsError."""
    try:
        # weights_only: a pickle could run any code.
        loaded = torch.load(weights.path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"{weights.source}: cannot be read: {error.strerror}") from error
    except MemoryError as error:
        raise WeightsError(f"{weights.source}: cannot be loaded: too little memory") from error
    except Exception as error:  # unpickling damaged input raises exceptions of all kinds
        if isinstance(error, pickle.UnpicklingError) and "unsupported global" in str(error).lower():
            raise WeightsError(
                f"{weights.source}: holds more than weights, which could run any code, and is not "
                "loaded; save only model.state_dict() into it"
            ) from error
        raise WeightsError(
            f"{weights.source}: no file of PyTorch weights, or a damaged one: {first_line(error)}"
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in loaded.items()
    ):
        raise WeightsError(f"{weights.source}: holds no table of weights")
    # In place, to retain the versions of the layers, an attribute of the state dict.
    for prefix in _PREFIXES:
        consume_prefix_in_state_dict_if_present(loaded, prefix)
    for name in [name for name in loaded if _OLD_DENSENET.search(name)]:
        loaded[_OLD_DENSENET.sub(r"\1\2", name)] = loaded.pop(name)
    return loaded


def fill(network: nn.Module, state: dict[str, torch.Tensor], classifier: str) -> list[str]:
    """Load weights into a network without its classifier, and return a list of problems.

    The classifier and the heads for training are skipped, so weights for other classes fit too.
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
        # The network's own method, because some networks map names of older files.
        missing, unknown = network.load_state_dict(state, strict=False)
    except (RuntimeError, ValueError) as error:
        return [first_line(error)]
    # Old files lack this counter, which is used in training only.
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
    """Return the name of the classifier, the last layer with weights."""
    layers = [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and not name.startswith(_AUXILIARY)
    ]
    return str(layers[-1])
