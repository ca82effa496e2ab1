"""Networks of a few layers, for tests with torch; tests import this module lazily."""

from collections.abc import Callable

import torch
from torch import nn

from imgsearch.encoders.base import Vectors
from imgsearch.encoders.catalog import ModelSpec
from imgsearch.encoders.torch.encoder import ReferenceModel
from imgsearch.encoders.torch.streams import Direct, Model
from imgsearch.images import Pixels, Preprocessing

SPEC = ModelSpec(
    name="tiny",
    family="torchvision",
    dimension=16,
    preprocessing=Preprocessing(
        size=16, resize=16, interpolation="bilinear", mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)
    ),
    weights_name="tiny.pth",
    megabytes=0.1,
)
CPU = torch.device("cpu")


class TinyModel(ReferenceModel):
    """Replace real networks with a few layers."""

    def __init__(self, *last: nn.Module) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.network = nn.Sequential(
                *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(4)),
                *(nn.Flatten(), nn.Linear(128, 16), *last),
            ).eval()
        self.spec, self.stamp = SPEC, SPEC.stamp("0" * 64)


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return batch * self.factor


class Disturbed(Direct):
    """A device that computes wrong values."""

    def __init__(self, disturb: Callable[[Vectors], Vectors], times: int = 10**9) -> None:
        super().__init__(CPU)
        self.disturb = disturb
        self.times = times

    def run(self, model: Model, pixels: Pixels) -> Vectors:
        features = super().run(model, pixels)
        self.times -= 1
        return self.disturb(features) if self.times >= 0 else features


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
