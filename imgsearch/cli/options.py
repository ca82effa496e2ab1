"""Options that several commands share."""

import math
from typing import Annotated, Literal

import typer

from imgsearch import config


def finite(value: float | None) -> float | None:
    """Reject NaN and infinity, which click's bounds let pass."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


Store = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        envvar=config.ENV_STORE,
        help="Where collections are stored: a folder, s3://BUCKET/PATH (or gs://, az://), or "
        "weaviate://HOST[:PORT]. Default: a folder "
        "in IMGSEARCH_HOME.",
        show_default=False,
    ),
]
Collection = Annotated[
    str,
    typer.Option(metavar="NAME", envvar=config.ENV_COLLECTION, help="Name of the collection."),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        metavar="'FIELD OP VALUE'",
        help="Only images whose metadata matches; = != < <= > >=, for example 'year>=2012'. "
        "Repeatable: all conditions must hold.",
        show_default=False,
    ),
]
StoreTimeout = Annotated[
    float,
    typer.Option(
        metavar="SECONDS",
        min=0,
        callback=finite,
        help="How long to wait for a store that is unreachable, overloaded, or locked by another "
        "writer.",
    ),
]
Model = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        envvar=config.ENV_MODEL,
        help="Model for a new collection (see `imgsearch models`). auto uses resnet50 if its "
        "weights are stored or can be downloaded, else efficientnet-lite0.",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="DEV",
        envvar=config.ENV_DEVICE,
        help="Where the model runs: auto, cpu, cuda, cuda:1, mps; several separated by commas, or "
        "cuda:all. Fails if the device is unavailable; there is no silent fallback.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Threads that read and decode. Default: one per core, at most 16.",
        show_default=False,
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|URL",
        help="Weights to use instead of the model's own; a copy is stored in IMGSEARCH_HOME.",
        show_default=False,
    ),
]
PrecisionName = Literal["fp32", "int8"]
Precision = Annotated[
    PrecisionName | None,
    typer.Option(
        envvar=config.ENV_PRECISION,
        help="Precision of a new collection's model: fp32, or int8, which is faster on the CPU and "
        "is calibrated on the images of this run. Default: fp32, or the collection's own.",
        show_default=False,
    ),
]
VectorDtypeName = Literal["float32", "float16"]
VectorDtype = Annotated[
    VectorDtypeName | None,
    typer.Option(
        help="How a new collection of the embedded store keeps its vectors: float32, or float16, "
        "which takes half the space. Default: float32, or the collection's own.",
        show_default=False,
    ),
]
MaxPixels = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=1,
        help="Reject images with more pixels than this: a few kilobytes can decode to gigabytes.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
