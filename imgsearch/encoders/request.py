"""Requests for an encoder, and their checks against the stamp of a collection."""

from dataclasses import dataclass, field
from typing import Literal

from imgsearch import config
from imgsearch.encoders.base import Sample
from imgsearch.encoders.catalog import AUTO
from imgsearch.errors import CollectionMismatchError, Remedy, UsageError
from imgsearch.types import Stamp

Precision = Literal["fp32", "int8"]


@dataclass(frozen=True, slots=True)
class EncoderRequest:
    """What the user asked for. `weights` is a file or a URL; None means the model's own.

    `precision` None is the collection's, or fp32 for a new one. A `sample` of the pictures to come
    is what int8 is calibrated on, and what an exported model is checked with. `checked` is for
    who keeps the vectors: a file of the model that is damaged is then replaced, or refused.
    """

    model: str = AUTO
    weights: str | None = None
    device: str = config.DEFAULT_DEVICE
    precision: Precision | None = None
    sample: Sample | None = field(default=None, compare=False)
    checked: bool = False


def check_request(request: EncoderRequest, stamp: Stamp) -> None:
    """Refuse early, before anything is loaded, a model or precision that is not the collection's.

    Raises CollectionMismatchError with both sides named.
    """
    if request.model not in (AUTO, stamp.model):
        raise CollectionMismatchError(
            f"the collection was made with {stamp.model}, not with {request.model}; their vectors "
            "cannot be compared",
            Remedy.LEAVE_OUT_MODEL,
            Remedy.USE_OTHER_COLLECTION,
        )
    if request.precision not in (None, stamp.number_format):
        raise CollectionMismatchError(
            f"the collection was made in {stamp.number_format}, not in {request.precision}; their "
            "vectors are not mixed",
            Remedy.LEAVE_OUT_PRECISION,
            Remedy.USE_OTHER_COLLECTION,
            Remedy.REPLACE,
        )


def check_device(request: EncoderRequest) -> None:
    """Raises UsageError where int8 is asked of a device that cannot run it."""
    if request.precision == "int8" and request.device not in ("auto", "cpu"):
        raise UsageError(
            f"int8 runs on the CPU, not on {request.device}",
            Remedy.LEAVE_OUT_PRECISION,
            Remedy.LEAVE_OUT_DEVICE,
        )
