"""Networks up to the vector, with their weights; what runs them is elsewhere."""

from typing import Any, cast

import torch
from torch import nn

from imgsearch.encoders.catalog import ModelSpec
from imgsearch.encoders.torch_weights import classifier_of, fill, read_state
from imgsearch.encoders.weights import WeightsFile
from imgsearch.errors import WeightsError


def load_model(spec: ModelSpec, weights: WeightsFile) -> nn.Module:
    """The network up to the vector, (n, 3, size, size) to (n, dimension), with real weights.

    Raises WeightsError if they do not fit.
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
