"""Batch normalization is folded only where the output stays the same."""

import pytest
import torch
from torch import nn

from imgsearch.encoders import weights
from imgsearch.encoders.catalog import EFFICIENTNET_LITE0
from imgsearch.encoders.torch.networks import FromPixels, fused, load_model
from imgsearch.images import Preprocessing


def convolution() -> nn.Conv2d:
    return nn.Conv2d(3, 3, 3, padding=1, bias=False)


def normalization() -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(3)
    for values in (layer.weight.data, layer.bias.data, layer.running_mean, layer.running_var):
        assert values is not None
        values.uniform_(0.5, 2)
    return layer


class Blocks(nn.Module):
    """One layer of each kind, called by subclasses."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = convolution()
        self.normalization = normalization()
        self.eval()


class Plain(Blocks):
    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.normalization(self.convolution(batch))
        return result.relu()


class UsedTwice(Blocks):
    """The input of the normalization is used too."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        features = self.convolution(batch)
        result: torch.Tensor = self.normalization(features) + features
        return result


class CalledTwice(Blocks):
    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        first = self.normalization(self.convolution(batch))
        result: torch.Tensor = self.convolution(first)
        return result


class NormalizedFirst(Blocks):
    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.convolution(self.normalization(batch))
        return result


class Branching(Blocks):
    """Control flow depends on values, so it cannot be traced."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.normalization(self.convolution(batch))
        return result if result.sum() > 0 else -result


def noise(size: int) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def left(network: nn.Module) -> int:
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())


@pytest.mark.parametrize(
    ("kind", "remaining"),
    [(Plain, 0), (UsedTwice, 1), (CalledTwice, 1), (NormalizedFirst, 1), (Branching, 1)],
)
def test_only_eligible_layers_are_folded(kind: type[Blocks], remaining: int) -> None:
    network = kind()
    folded = fused(network)
    assert left(folded) == remaining
    assert left(network) == 1  # the original is unchanged
    batch = noise(8)
    with torch.inference_mode():
        torch.testing.assert_close(folded(batch), network(batch), rtol=1e-4, atol=1e-5)


def test_all_of_lite0_is_folded() -> None:
    found = weights.find_local(EFFICIENTNET_LITE0)
    assert found
    network = load_model(EFFICIENTNET_LITE0, found)
    folded = fused(network)
    assert left(network) == 49
    assert left(folded) == 0
    batch = noise(224)
    with torch.inference_mode():
        cosines = nn.functional.cosine_similarity(folded(batch), network(batch))
    assert cosines.min() > 0.99999


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_pixels_are_normalized_in_float32_and_converted_to_the_networks_format(
    dtype: torch.dtype,
) -> None:
    preprocessing = Preprocessing(
        size=2, resize=2, interpolation="bilinear", mean=(0.5, 0.25, 0), std=(0.5, 0.25, 1)
    )
    model = FromPixels(nn.Flatten(), preprocessing, dtype)
    pixels = torch.tensor([0, 51, 102, 153], dtype=torch.uint8).view(1, 2, 2, 1).expand(1, 2, 2, 3)
    channels = [[-1, -0.6, -0.2, 0.2], [-1, -0.2, 0.6, 1.4], [0, 0.2, 0.4, 0.6]]
    features = model(pixels)
    assert features.dtype == torch.float32
    expected = torch.tensor(channels).to(dtype).to(torch.float32).view(1, 12)
    torch.testing.assert_close(features, expected, rtol=1e-6, atol=1e-7)
