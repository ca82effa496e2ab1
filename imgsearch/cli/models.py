"""`imgsearch models`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from imgsearch.cli import options
from imgsearch.cli.console import Display, print_json, print_line, stdout
from imgsearch.errors import ExportError
from imgsearch.events import Event, Note

if TYPE_CHECKING:
    from imgsearch.encoders.catalog import ModelSpec


def models(
    as_json: options.Json = False,
    everything: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Also list every classification model of torchvision, and the devices. Slower.",
        ),
    ] = False,
    prepare: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Prepare this model for the CPU before listing: download its weights and export "
            "it, as its first use would; repeatable.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """List models, and show which are ready to use and which must be downloaded first."""
    from imgsearch.encoders.catalog import AUTO_CHOICES, SPECS

    with Display(quiet=as_json) as display:
        for name in prepare or ():
            _prepare(name, display)

    specs, devices = list(SPECS.values()), None
    if everything:
        from imgsearch.encoders.devices import require_torch

        require_torch("for --all")
        from imgsearch.encoders.torch import encoder as torch_encoder
        from imgsearch.encoders.torch import torchvision_models

        others = sorted(set(torchvision_models.names()) - set(SPECS))
        specs += [torchvision_models.describe(name) for name in others]
        devices = torch_encoder.available_devices()
    rows = [_row(spec) for spec in specs]
    if as_json:
        print_json({"models": rows, "auto": AUTO_CHOICES, "devices": devices})
    else:
        _print_table(rows)
        _print_notes(rows, devices)


def _prepare(name: str, display: Display) -> None:
    from imgsearch.encoders.factory import open_encoder
    from imgsearch.encoders.request import EncoderRequest

    notes: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Note):
            notes.append(event.text)
        display(event)

    request = EncoderRequest(name, device="cpu", checked=True)
    encoder = open_encoder(request, listener=listen)
    if encoder.runtime != "onnxruntime":
        raise ExportError(f"{name} cannot be prepared for the CPU; {notes[-1]}")


def _row(spec: "ModelSpec") -> dict[str, Any]:
    from imgsearch.encoders.onnx.model_files import find_own
    from imgsearch.encoders.weights import find_local

    exported = find_own(spec.name)
    file = exported or find_local(spec)
    if exported:
        status = "exported"
    elif file:
        status = "installed" if spec.package else "cached"
    else:
        status = "package missing" if spec.package else "to download"
    return {
        "name": spec.name,
        "dimension": spec.dimension,
        "input": spec.preprocessing.size,
        "status": status,
        "ready": file is not None,
        "megabytes": spec.megabytes,
        "weights": str(file.path) if file else spec.url,
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("model", "status"):
        table.add_column(column)
    for column in ("dimensions", "input", "MB"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            row["name"],
            row["status"],
            str(row["dimension"]),
            f"{row['input']} px",
            f"{row['megabytes']:.0f}",
        )
    stdout().print(table)


def _print_notes(rows: list[dict[str, Any]], devices: list[str] | None) -> None:
    from imgsearch.encoders.catalog import AUTO_CHOICES

    best, fallback = AUTO_CHOICES
    if any(row["ready"] for row in rows if row["name"] == best):
        notes = [f"auto uses {best}."]
    else:
        notes = [f"auto downloads {best} if possible, and otherwise uses {fallback}."]
    if devices is None:
        notes.append(
            "Any other classification model of torchvision works by its name; --all lists them."
        )
    else:
        notes.append(f"Devices: {', '.join(devices)}.")
    for note in notes:
        print_line(note)
