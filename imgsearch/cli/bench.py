"""`imgsearch bench`."""

import sys
import threading
from typing import TYPE_CHECKING, Annotated

import typer

from imgsearch import config
from imgsearch.cli import options
from imgsearch.cli.console import Display, print_json, print_line, stdout
from imgsearch.cli.interrupt import INTERRUPTED, stop_on_signal

if TYPE_CHECKING:
    from imgsearch.analysis.bench.report import BenchReport


def bench(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Images to measure with: folders, files, quoted globs, or - for a list of paths "
            "on stdin.",
            show_default=False,
        ),
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Measure this model, downloading its weights if needed; repeatable. Default: all "
            "whose weights are on this machine.",
            show_default=False,
        ),
    ] = None,
    weights: options.Weights = None,
    device: Annotated[
        str,
        typer.Option(
            metavar="DEV",
            envvar=config.ENV_DEVICE,
            help="Where the models run: cpu, cuda, cuda:1, mps, or auto for each available kind.",
        ),
    ] = config.DEFAULT_DEVICE,
    precision: Annotated[
        options.PrecisionName,
        typer.Option(
            help="int8 measures int8 on the CPU besides fp32. Each model is calibrated for it "
            "first, which can take minutes."
        ),
    ] = "fp32",
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Measure writing there: on the disk of this folder, or on this server too, into a "
            "collection of its own that is removed again. By default on the default store's disk.",
            show_default=False,
        ),
    ] = None,
    seconds: Annotated[
        float,
        typer.Option(
            metavar="N",
            min=0.01,
            callback=options.finite,
            help="Time limit for each measurement.",
        ),
    ] = 2.0,
    limit: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="Maximum number of images to read, sampled evenly."),
    ] = 500,
    batch_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=4096,
            help="Images per batch of the model. Default: depends on the device.",
            show_default=False,
        ),
    ] = None,
    workers: options.Workers = None,
    max_pixels: options.MaxPixels = config.DEFAULT_MAX_PIXELS,
    store_timeout: options.StoreTimeout = config.READER_STORE_TIMEOUT,
    as_json: options.Json = False,
) -> None:
    """Measure how fast this machine ingests these images, stage by stage.

    Scanning, reading, decoding, each model on each device, and writing are measured one at a time,
    for a few seconds each. Weights are downloaded only with --model. Nothing is left behind except
    models prepared for this CPU, which an ingest would prepare too.
    """
    from imgsearch.analysis.bench.options import BenchOptions
    from imgsearch.analysis.bench.run import bench as run
    from imgsearch.sources import read_list

    stop = threading.Event()
    with Display(quiet=as_json) as display, stop_on_signal(stop, display):
        report = run(
            sources,
            BenchOptions(
                models=model or (),
                weights=weights,
                device=device,
                precisions=("fp32", "int8") if precision == "int8" else ("fp32",),
                store=store,
                seconds=seconds,
                limit=limit,
                batch_size=batch_size,
                workers=workers or config.default_workers(),
                max_pixels=max_pixels,
                store_timeout=store_timeout,
            ),
            stdin=read_list(sys.stdin.buffer) if "-" in sources else (),
            listener=display,
            stop=stop,
        )
    if as_json:
        print_json(report.to_dict())
    else:
        _print(report)
    if report.interrupted or stop.is_set():
        raise typer.Exit(INTERRUPTED)
    if not report.estimates:  # the reasons are printed above
        raise typer.Exit(1)


def _print(report: "BenchReport") -> None:
    print_line(
        f"{'interrupted: ' if report.interrupted else ''}{_found(report)}, {report.sample:,} "
        f"read; {report.cpu}, {report.cores} cores"
    )
    _print_stages(report)
    if report.estimates:
        _print_estimates(report)
    for sentence in report.advice():
        print_line(sentence)
    for name, reason in report.not_measured.items():
        print_line(f"not measured: {name}: {reason}", style="yellow")
    for path, reason in list(report.unusable.items())[:_SHOWN]:
        print_line(f"unusable {path}: {reason}", style="yellow")
    if (more := len(report.unusable) - _SHOWN) > 0:
        print_line(f"and {more:,} more unusable: --json lists them", style="yellow")


_SHOWN = 5


def _found(report: "BenchReport") -> str:
    return f"{'' if report.complete else 'at least '}{report.found:,} images"


def _print_stages(report: "BenchReport") -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("stage alone")
    table.add_column("by")
    table.add_column("images/s", justify="right")
    table.add_column("ms each", justify="right")
    for rate in report.rates:
        table.add_row(rate.stage, rate.how, f"{rate.per_second:,.0f}", f"{1000 * rate.cost:,.2f}")
    stdout().print(table)


def _print_estimates(report: "BenchReport") -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("an ingest with")
    table.add_column("limit")
    columns = ("images/s", f"{report.found:,} images", "1,000,000 images")
    for column in columns:
        table.add_column(column, justify="right")
    for estimate in report.estimates:
        times = (_duration(number * estimate.cost) for number in (report.found, 1_000_000))
        table.add_row(estimate.name, estimate.bottleneck, f"{1 / estimate.cost:,.0f}", *times)
    stdout().print(table)


def _duration(seconds: float) -> str:
    """Round to two significant digits, as precise as a forecast can be."""
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            number = seconds / length
            return f"{number:.0f} {unit}" if number >= 10 else f"{number:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
