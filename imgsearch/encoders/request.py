"""Requests for an encoder, and their checks against the stamp of a collection."""

from dataclasses import dataclass, field
from typing import Literal, cast, get_args

from imgsearch import config
from imgsearch.encoders.base import Sample
from imgsearch.encoders.catalog import AUTO
from imgsearch.errors import CollectionMismatchError, Remedy, UsageError
from imgsearch.types import Stamp

Precision = Literal["fp32", "int8"]


@dataclass(frozen=True, slots=True)
class EncoderRequest:
    """The model, weights, device and precision that the user asked for.

    `weights` is a file or a URL; None selects the model's own. A `precision` of None selects that
    of the collection, or fp32 for a new one. `sample` returns images of the ingest, on which int8
    is calibrated and an exported model is checked. Set `checked` if the vectors are to be stored:
    a damaged model file is then replaced or rejected.
    """

    model: str = AUTO
    weights: str | None = None
    device: str = config.DEFAULT_DEVICE
    precision: Precision | None = None
    sample: Sample | None = field(default=None, compare=False)
    checked: bool = False


def precision_setting(given: Precision | None) -> Precision | None:
    """Return the precision given, else that of the environment, else None. Raises UsageError."""
    value = config.setting(given, config.ENV_PRECISION, "")
    if value not in ("", *get_args(Precision)):
        raise UsageError(
            f"{config.ENV_PRECISION}={value}: must be {' or '.join(get_args(Precision))}"
        )
    return cast(Precision, value) if value else None


def check_request(request: EncoderRequest, stamp: Stamp) -> None:
    """Raise CollectionMismatchError if the model or precision is not the collection's.

    Nothing is loaded for this check.
    """
    if request.model not in (AUTO, stamp.model):
        raise CollectionMismatchError(
            f"the collection was made with {stamp.model}, not with {request.model}; their vectors "
            "cannot be compared",
            Remedy.LEAVE_OUT_MODEL,
            Remedy.USE_OTHER_COLLECTION,
        )
    if request.precision not in (None, stamp.dtype):
        raise CollectionMismatchError(
            f"the collection was made in {stamp.dtype}, not in {request.precision}; their "
            "vectors are not mixed",
            Remedy.LEAVE_OUT_PRECISION,
            Remedy.USE_OTHER_COLLECTION,
            Remedy.REPLACE,
        )


def check_device(request: EncoderRequest) -> None:
    """Raise UsageError if int8 is requested for a device other than the CPU."""
    if request.precision == "int8" and request.device not in ("auto", "cpu"):
        raise UsageError(
            f"int8 runs on the CPU, not on {request.device}",
            Remedy.LEAVE_OUT_PRECISION,
            Remedy.LEAVE_OUT_DEVICE,
        )
