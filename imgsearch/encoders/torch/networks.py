"""Networks from pixels to vectors, with their weights."""

import copy
from typing import Any, cast

import torch
from torch import fx, nn
from torch.nn.utils import fuse_conv_bn_eval

from imgsearch.encoders.catalog import ModelSpec
from imgsearch.encoders.torch.weight_files import classifier_of, fill, read_state
from imgsearch.encoders.weights_cache import WeightsFile
from imgsearch.errors import WeightsError
from imgsearch.images import Preprocessing


def load_model(spec: ModelSpec, weights: WeightsFile) -> nn.Module:
    """Return the network without its classifier, (n, 3, size, size) to (n, dimension).

    Raises WeightsError if the weights do not fit.
    """
    network = _build(spec)
    classifier = classifier_of(network)
    network.set_submodule(classifier, nn.Identity())
    if problems := fill(network, read_state(weights), classifier):
        more = f" (and {len(problems) - 1:,} more misfits)" if len(problems) > 1 else ""
        raise WeightsError(
            f"{weights.source}: these are not weights of {spec.name}: {problems[0]}{more}"
        )
    return (_EfficientNetLite(network) if spec.family == "efficientnet-lite" else network).eval()


def _build(spec: ModelSpec) -> nn.Module:
    if spec.family == "efficientnet-lite":
        from efficientnet_lite_pytorch import EfficientNet

        return cast(nn.Module, EfficientNet.from_name(spec.name))
    from imgsearch.encoders.torch.torchvision_models import build

    return build(spec.name)


class _EfficientNetLite(nn.Module):
    """The features of the PyTorch port, averaged over the image."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self._network = network

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self._network.extract_features(batch)
        return features.mean((2, 3))


class FromPixels(nn.Module):
    """A network with its normalization: uint8 (n, size, size, 3) to float32 (n, dimension).

    The network computes in `dtype`. Its input is uint8 because that is a quarter of the bytes to
    transfer to a device, and because an exported graph normalizes a chunk while it is in the cache.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self._network = network.to(dtype)
        self._dtype = dtype
        for name in ("mean", "std"):
            # Pixel values are 0 to 255.
            values = torch.tensor(getattr(preprocessing, name), dtype=torch.float64) * 255.0
            self.register_buffer(name, values.to(torch.float32).view(1, 3, 1, 1))
        self.eval()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        batch = pixels.permute(0, 3, 1, 2).to(torch.float32)
        features: torch.Tensor = self._network(((batch - self.mean) / self.std).to(self._dtype))
        return features.to(torch.float32)


def fused(network: nn.Module) -> nn.Module:
    """Return a copy with each batch normalization folded into the convolution before it.

    A network that cannot be traced is returned unchanged: folding only affects speed.
    """
    network = copy.deepcopy(network)
    try:
        steps = _Tracer().trace(network).nodes
    except Exception:  # the tracer raises exceptions of all kinds
        return network
    layers = dict(network.named_modules())
    calls = [str(step.target) for step in steps if step.op == "call_module"]
    for step in steps:
        if step.op != "call_module":
            continue
        before = next(iter(step.args), None)
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        names = str(before.target), str(step.target)
        convolution, normalization = (layers[name] for name in names)
        if (
            isinstance(convolution, nn.Conv2d)
            and isinstance(normalization, nn.BatchNorm2d)
            and normalization.running_mean is not None
            and all(calls.count(name) == 1 for name in names)
        ):
            network.set_submodule(names[0], fuse_conv_bn_eval(convolution, normalization))
            network.set_submodule(names[1], nn.Identity())
    return network


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # Also subclasses in other packages, which torch's own tracer would trace into.
        if isinstance(m, nn.Conv2d | nn.BatchNorm2d):
            return True
        return super().is_leaf_module(m, module_qualified_name)
