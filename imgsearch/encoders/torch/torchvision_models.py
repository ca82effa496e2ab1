"""torchvision's classification models, by name."""

import difflib
import warnings
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torchvision import models
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from imgsearch.encoders.catalog import ModelSpec
from imgsearch.encoders.torch.weight_files import classifier_of
from imgsearch.errors import Remedy, UnknownModelError
from imgsearch.images import Preprocessing

_INTERPOLATIONS: dict[InterpolationMode, Any] = {
    InterpolationMode.BILINEAR: "bilinear",
    InterpolationMode.BICUBIC: "bicubic",
}
_NO_INITIALISATION = frozenset({"googlenet", "inception_v3"})


def names() -> list[str]:
    """Return the names of the classification models, without quantized ones."""
    return list(models.list_models(module=models))


def describe(name: str) -> ModelSpec:
    """Return a model's spec, from torchvision's description of its default weights.

    Raises UnknownModelError.
    """
    weights = _default_weights(name)
    preset = weights.transforms()
    if not isinstance(preset, ImageClassification) or preset.interpolation not in _INTERPOLATIONS:
        raise UnknownModelError(f"{name}: imgsearch does not support its preprocessing")
    (size,), (resize,) = preset.crop_size, preset.resize_size
    return ModelSpec(
        name=name,
        family="torchvision",
        dimension=_dimension(name),
        preprocessing=Preprocessing(
            size=size,
            resize=resize,
            interpolation=_INTERPOLATIONS[preset.interpolation],
            mean=cast(tuple[float, float, float], tuple(preset.mean)),
            std=cast(tuple[float, float, float], tuple(preset.std)),
        ),
        weights_name=weights.url.rpartition("/")[2],
        megabytes=round(weights.meta["_file_size"] * 2**20 / 1e6, 1),
        url=weights.url,
    )


class _WithoutWeights(TorchFunctionMode):
    """Creates parameters on the meta device, without memory or time.

    Unlike under `torch.device("meta")`, other tensors are real: regnets compute their shape from
    them.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = dict(kwargs or {})
        if func is torch.empty:
            options["device"] = "meta"
        return func(*args, **options)


def _dimension(name: str) -> int:
    """Return the number of inputs of the classifier."""
    with _WithoutWeights():
        network = build(name)
    layer = network.get_submodule(classifier_of(network))
    return int(getattr(layer, "in_features", None) or layer.in_channels)  # type: ignore[arg-type]


def _default_weights(name: str) -> Any:
    if name not in names():
        close = difflib.get_close_matches(name.lower(), names(), n=1)
        hint = f": did you mean {close[0]}?" if close else ""
        raise UnknownModelError(f"no model is called {name}{hint}", Remedy.LIST_MODELS)
    return models.get_model_weights(name).DEFAULT


def build(name: str) -> nn.Module:
    """Return the network with its classifier and uninitialized weights."""
    options: dict[str, Any] = {}
    if name in _NO_INITIALISATION:
        options |= {"init_weights": False, "transform_input": True}
    if name.startswith("vit_"):
        options["image_size"] = _default_weights(name).meta["min_size"][0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cast(nn.Module, models.get_model(name, weights=None, **options))
