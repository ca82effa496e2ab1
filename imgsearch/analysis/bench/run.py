"""`bench` measures each stage of an ingest, and estimates the whole for each model and device."""

import contextlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from imgsearch import config
from imgsearch.analysis.bench.options import BenchOptions
from imgsearch.analysis.bench.report import BenchReport, Estimate, StageName, cpu_name
from imgsearch.analysis.bench.stages import StageMeter
from imgsearch.encoders import devices, weights
from imgsearch.encoders.base import Encoder, Sample
from imgsearch.encoders.catalog import SPECS
from imgsearch.encoders.factory import open_encoder
from imgsearch.encoders.request import EncoderRequest, check_device
from imgsearch.errors import EncoderError, Remedy, UsageError
from imgsearch.events import Listener, Stage, ignore
from imgsearch.ingest.sample import ImageSample, StoppedError
from imgsearch.sources import resolve


def bench(
    names: Sequence[str],
    options: BenchOptions | None = None,
    *,
    stdin: Iterable[str] = (),
    listener: Listener = ignore,
    stop: threading.Event | None = None,
    encoder_opener: Callable[..., Encoder] = open_encoder,
) -> BenchReport:
    """Measure each stage of an ingest on the images in the sources `names`.

    Leaves nothing behind except models prepared for the CPU, which an ingest would prepare too.
    Setting `stop` ends the run early; the report has the measurements made until then. Raises
    SourceError (NothingFoundError if there is no usable image), UsageError, StoreError, or
    EncoderError for a model or device that was chosen explicitly.
    """
    options = options or BenchOptions()
    for precision in options.precisions:
        check_device(EncoderRequest(device=options.device, precision=precision))
    if options.weights is not None and len(options.models) != 1:
        raise UsageError("weights need the name of their model", Remedy.NAME_ONE_MODEL)
    sources = resolve(names)
    report = BenchReport(cpu_name(), config.cpu_cores())
    stop = stop or threading.Event()
    with ThreadPoolExecutor(options.workers, "imgsearch-bench") as pool:
        meter = StageMeter(options, report, pool, listener, stop)
        with contextlib.suppress(StoppedError):
            costs: dict[StageName, float] = {
                "scan": meter.scan(sources, stdin).cost,
                "read": meter.read().cost,
            }
            sample = ImageSample(
                resolve(meter.sample), max_pixels=options.max_pixels, stopped=stop.is_set
            )
            for request in _requests(options, sample, report):
                listener(Stage(f"opening {_describe(request)}"))
                try:
                    encoder = encoder_opener(request, None, listener)
                    report.estimates.append(_estimate(meter, encoder, costs))
                except EncoderError as error:
                    if options.models or options.device != config.DEFAULT_DEVICE:
                        raise
                    report.not_measured[_describe(request)] = str(error)
    report.interrupted = stop.is_set()
    return report


def _estimate(meter: StageMeter, encoder: Encoder, costs: Mapping[StageName, float]) -> Estimate:
    own: dict[StageName, float] = {
        "decode": meter.decode(encoder).cost,
        "encode": meter.encode(encoder).cost,
        "write": meter.write(encoder.stamp).cost,
    }
    return Estimate(
        encoder.stamp.model,
        encoder.compute_type,
        encoder.device,
        encoder.runtime,
        {**costs, **own},
    )


def _requests(options: BenchOptions, sample: Sample, report: BenchReport) -> list[EncoderRequest]:
    """Return the encoders to measure."""
    models = options.models or _local_models(report)
    return [
        EncoderRequest(model, options.weights, device, precision, sample)
        for model in dict.fromkeys(models)
        for device in _devices(options.device)
        for precision in dict.fromkeys(options.precisions)
        if device == "cpu" or precision == "fp32"
    ]


def _local_models(report: BenchReport) -> list[str]:
    """Return the models whose weights are on this machine, and report the others."""
    local = [name for name, spec in SPECS.items() if weights.find_local(spec)]
    for name, spec in SPECS.items():
        if name not in local:
            report.not_measured[name] = (
                f"its weights ({spec.megabytes:.0f} MB) are not on this machine, and are "
                "downloaded only for a model that is named"
            )
    return local


def _devices(wanted: str) -> list[str]:
    """Return the wanted device, or one of each available kind for `auto`."""
    if wanted != config.DEFAULT_DEVICE:
        return [wanted]
    if not devices.may_have_gpu():
        return ["cpu"]
    from imgsearch.encoders.torch.encoder import available_devices

    return list({name.partition(":")[0]: name for name in reversed(available_devices())}.values())


def _describe(request: EncoderRequest) -> str:
    return f"{request.model} on {request.device} in {request.precision}"
