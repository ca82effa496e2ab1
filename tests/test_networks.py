"""Batch normalization is folded only where the output stays the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from imgsearch.encoders import weights
from imgsearch.encoders.catalog import EFFICIENTNET_LITE0
from imgsearch.images import Preprocessing
from tests.lazily import lazily

if TYPE_CHECKING:
    import torch
    from torch import nn

    from imgsearch.encoders.torch import networks
    from tests import tiny_networks
else:
    torch, nn = lazily("torch"), lazily("torch.nn")
    networks = lazily("imgsearch.encoders.torch.networks")
    tiny_networks = lazily("tests.tiny_networks")


def noise(size: int) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def left(network: nn.Module) -> int:
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())


@pytest.mark.parametrize(
    ("kind", "remaining"),
    [
        ("Plain", 0),
        ("UsedTwice", 1),
        ("CalledTwice", 1),
        ("NormalizedFirst", 1),
        ("Branching", 1),
    ],
)
def test_only_eligible_layers_are_folded(kind: str, remaining: int) -> None:
    network: tiny_networks.Blocks = getattr(tiny_networks, kind)()
    folded = networks.fused(network)
    assert left(folded) == remaining
    assert left(network) == 1  # the original is unchanged
    batch = noise(8)
    with torch.inference_mode():
        torch.testing.assert_close(folded(batch), network(batch), rtol=1e-4, atol=1e-5)


def test_all_of_lite0_is_folded() -> None:
    found = weights.find_local(EFFICIENTNET_LITE0)
    assert found
    network = networks.load_model(EFFICIENTNET_LITE0, found)
    folded = networks.fused(network)
    assert left(network) == 49
    assert left(folded) == 0
    batch = noise(224)
    with torch.inference_mode():
        cosines = nn.functional.cosine_similarity(folded(batch), network(batch))
    assert cosines.min() > 0.99999


@pytest.mark.parametrize("format_", ["float32", "float16", "bfloat16"])
def test_pixels_are_normalized_in_float32_and_converted_to_the_networks_format(
    format_: str,
) -> None:
    dtype: torch.dtype = getattr(torch, format_)
    preprocessing = Preprocessing(
        size=2, resize=2, interpolation="bilinear", mean=(0.5, 0.25, 0), std=(0.5, 0.25, 1)
    )
    model = networks.FromPixels(nn.Flatten(), preprocessing, dtype)
    pixels = torch.tensor([0, 51, 102, 153], dtype=torch.uint8).view(1, 2, 2, 1).expand(1, 2, 2, 3)
    channels = [[-1, -0.6, -0.2, 0.2], [-1, -0.2, 0.6, 1.4], [0, 0.2, 0.4, 0.6]]
    features = model(pixels)
    assert features.dtype == torch.float32
    expected = torch.tensor(channels).to(dtype).to(torch.float32).view(1, 12)
    torch.testing.assert_close(features, expected, rtol=1e-6, atol=1e-7)
