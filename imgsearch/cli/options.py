"""Options that several commands share."""

import math
from typing import Annotated, Literal

import typer

from imgsearch import config


def finite(value: float | None) -> float | None:
    """Click lets a bound pass what is not a number."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no finite number")
    return value


Store = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        envvar=config.ENV_STORE,
        help="Where the collections are: a folder, or weaviate://HOST[:PORT]. By default a folder "
        "in IMGSEARCH_HOME.",
        show_default=False,
    ),
]
Collection = Annotated[
    str,
    typer.Option(metavar="NAME", envvar=config.ENV_COLLECTION, help="Which collection."),
]
StoreTimeout = Annotated[
    float,
    typer.Option(
        metavar="SECONDS",
        min=0,
        callback=finite,
        help="How long to wait for a store that goes away, is overloaded, or is being written to "
        "by another process.",
    ),
]
Model = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        envvar=config.ENV_MODEL,
        help="The model for a new collection (see `imgsearch models`). auto takes resnet50 if "
        "its weights are here or can be fetched, else efficientnet-lite0.",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="DEV",
        envvar=config.ENV_DEVICE,
        help="Where the model runs: auto, cpu, cuda, cuda:1, mps; several with commas between, or "
        "cuda:all. One that is not there is an error, never replaced.",
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|URL",
        help="Weights to use instead of the model's own; they are kept in IMGSEARCH_HOME.",
        show_default=False,
    ),
]
PrecisionName = Literal["fp32", "int8"]
Precision = Annotated[
    PrecisionName | None,
    typer.Option(
        envvar=config.ENV_PRECISION,
        help="Of a new collection's model: fp32, or int8, which is faster on the CPU "
        "and is calibrated on the pictures at hand. By default fp32, or the collection's own.",
        show_default=False,
    ),
]
MaxPixels = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=1,
        help="Reject pictures of more pixels than this: a few kilobytes can claim gigabytes.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
