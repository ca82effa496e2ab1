"""`bench` measures each stage, names the bottleneck, and leaves nothing behind."""

import itertools
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from imgsearch.analysis.bench import run, stages
from imgsearch.analysis.bench.options import BenchOptions
from imgsearch.analysis.bench.report import BenchReport, Estimate, Rate
from imgsearch.analysis.bench.run import bench
from imgsearch.encoders import weights
from imgsearch.encoders.base import Vectors
from imgsearch.encoders.request import EncoderRequest
from imgsearch.errors import (
    DeviceMemoryError,
    ExportError,
    NothingFoundError,
    Remedy,
    StoreError,
    UnknownModelError,
    UsageError,
)
from imgsearch.events import Event, Stage
from imgsearch.images import Pixels
from imgsearch.ingest.sample import ImageSample
from imgsearch.sources import resolve, scan
from imgsearch.stores import open_store
from imgsearch.stores.scratch import scratch_collection
from imgsearch.types import Stamp
from tests.conftest import Cli, Painter
from tests.fakes import ColorEncoder

STAGES = ["scan", "read", "decode", "decode", "encode", "write"]


@pytest.fixture(autouse=True)
def _one_second_per_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Advance the clock by a second with every reading, so that `seconds` counts steps."""
    ticks = itertools.count()
    clock = SimpleNamespace(perf_counter=lambda: float(next(ticks)))
    monkeypatch.setattr(stages, "time", clock)


def options(**others: Any) -> BenchOptions:
    settings: dict[str, Any] = {"models": ("colors",), "seconds": 12, "workers": 2, **others}
    return BenchOptions(**settings)


def measured(folder: Path, **others: Any) -> BenchReport:
    return bench([str(folder)], options(**others), encoder_opener=ColorEncoder().open)


@pytest.fixture
def shop(paint: Painter) -> Path:
    """A folder of six images."""
    return [paint(f"shop/{number}.png", number) for number in range(6)][-1].parent


def all_below(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


class TestStages:
    def test_each_stage_is_measured(self, shop: Path) -> None:
        report = measured(shop)
        assert [rate.stage for rate in report.rates] == STAGES
        assert [rate.images for rate in report.rates] == [6, 6, 12, 12, 12 * 32, 12 * 512]
        assert (report.found, report.complete, report.sample) == (6, True, 6)
        assert [estimate.name for estimate in report.estimates] == ["colors on none in fp32"]
        assert set(report.estimates[0].costs) == set(STAGES)
        assert report.not_measured == report.unusable == {}
        assert not report.interrupted

    def test_each_precision_is_measured_with_a_sample_of_the_images(self, shop: Path) -> None:
        requests: list[EncoderRequest] = []

        def opener(request: EncoderRequest, *_: object) -> ColorEncoder:
            requests.append(request)
            return ColorEncoder()

        both = options(device="cpu", precisions=("fp32", "int8"))
        report = bench([str(shop)], both, encoder_opener=opener)
        assert [each.precision for each in requests] == ["fp32", "int8"]
        assert len(report.estimates) == 2
        sample = requests[1].sample
        assert sample
        assert len(sample(ColorEncoder().preprocessing, 4)) == 4

    def test_int8_on_a_gpu_is_an_error(self, shop: Path) -> None:
        with pytest.raises(UsageError, match="runs on the CPU"):
            measured(shop, device="cuda", precisions=("int8",))

    def test_stages_that_models_share_are_measured_once(self, shop: Path) -> None:
        report = measured(shop, models=("colors", "the same"))
        assert [rate.stage for rate in report.rates] == [*STAGES[:4], "encode", "write", "encode"]
        assert len(report.estimates) == 2

    def test_a_long_scan_is_cut_short(self, shop: Path) -> None:
        report = measured(shop, seconds=4)
        assert (report.found, report.complete, report.sample) == (4, False, 4)

    def test_the_sample_is_spread_evenly(self, shop: Path) -> None:
        for bad in (1, 2, 4, 5):
            (shop / f"{bad}.png").write_text("not an image")
        report = measured(shop, limit=2)
        assert report.sample == 2
        assert report.unusable == {}

    def test_unusable_images_are_reported_and_skipped(self, shop: Path) -> None:
        (shop / "2.png").write_text("not an image")
        (shop / "4.png").write_bytes(b"")
        report = measured(shop)
        assert {Path(path).name for path in report.unusable} == {"2.png", "4.png"}
        assert report.unusable[str(shop / "4.png")] == "the file is empty"
        assert report.estimates

    def test_no_usable_image_is_an_error(self, tmp_path: Path, shop: Path) -> None:
        for image in shop.iterdir():
            image.write_text("not an image")
        with pytest.raises(NothingFoundError, match=r"none of the 6 images .* not an image"):
            measured(shop)
        (tmp_path / "empty").mkdir()
        with pytest.raises(NothingFoundError, match="no image found"):
            measured(tmp_path / "empty")

    def test_batches_have_the_requested_size_even_with_few_images(self, shop: Path) -> None:
        encoder = ColorEncoder()
        bench([str(shop)], options(batch_size=20), encoder_opener=encoder.open)
        assert set(encoder.batches) == {20}


class Concurrent(ColorEncoder):
    """Makes each batch but the first wait for a concurrent one."""

    concurrency = 2

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._meeting = threading.Barrier(2)

    def encode(self, pixels: Pixels) -> Vectors:
        if self.batches and not self.most:
            self._meeting.wait(60)
            self.most = 2
        return super().encode(pixels)


class TestModels:
    def test_batches_in_flight_match_the_concurrency_of_the_encoder(self, shop: Path) -> None:
        encoder = Concurrent()
        report = bench([str(shop)], options(), encoder_opener=encoder.open)
        assert report.estimates
        assert encoder.most == 2

    def test_only_local_models_are_measured_by_default(
        self, shop: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(weights, "download", lambda *_: pytest.fail("a download"))
        asked: list[EncoderRequest] = []

        def opening(request: EncoderRequest, *_: Any) -> ColorEncoder:
            asked.append(request)
            return ColorEncoder()

        report = bench([str(shop)], options(models=(), device="cpu"), encoder_opener=opening)
        assert asked == [EncoderRequest("efficientnet-lite0", None, "cpu", "fp32")]
        reason = report.not_measured["resnet50"]
        assert "not on this machine, and are downloaded only for a model that is named" in reason

    def test_the_failure_of_a_default_model_is_reported(
        self, shop: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def failing(*_: Any) -> ColorEncoder:
            raise ExportError("no way")

        monkeypatch.setattr(run, "_devices", lambda _: ["cpu"])
        report = bench([str(shop)], options(models=()), encoder_opener=failing)
        assert report.not_measured["efficientnet-lite0 on cpu in fp32"] == "no way"
        assert not report.estimates
        assert not report.advice()

    def test_the_failure_of_a_named_model_is_an_error(self, shop: Path) -> None:
        def unknown(*_: Any) -> ColorEncoder:
            raise UnknownModelError("nonsense")

        with pytest.raises(UnknownModelError):
            bench([str(shop)], options(models=("nonsense",)), encoder_opener=unknown)
        small = ColorEncoder(fits=4)
        with pytest.raises(DeviceMemoryError):
            bench([str(shop)], options(), encoder_opener=small.open)

    def test_weights_need_the_name_of_one_model(self, shop: Path) -> None:
        with pytest.raises(
            UsageError,
            match="weights need",
            check=lambda error: error.remedies == (Remedy.NAME_ONE_MODEL,),
        ):
            measured(shop, models=(), weights="mine.pth")

    def test_each_kind_of_device_is_measured_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from imgsearch.encoders import devices
        from imgsearch.encoders.torch import encoder as torch_encoder

        monkeypatch.setattr(devices, "may_have_gpu", lambda: True)
        there = ["cuda:0", "cuda:1", "cpu"]
        monkeypatch.setattr(torch_encoder, "available_devices", lambda: there)
        sample = ImageSample(resolve([]))
        asked = run._requests(options(), sample, BenchReport("a CPU", 2))
        assert {request.device for request in asked} == {"cuda:0", "cpu"}


class TestCleanup:
    def test_an_embedded_store_is_left_unchanged(self, shop: Path, tmp_path: Path) -> None:
        (tmp_path / "store").mkdir()
        before = all_below(tmp_path)
        report = measured(shop, store=str(tmp_path / "store"))
        measured(shop, store=str(tmp_path / "not" / "there"))
        assert all_below(tmp_path) == before
        assert report.rates[-1].how == "embedded store, vectors of 48"

    def test_the_data_directory_is_left_unchanged(self, shop: Path) -> None:
        home = Path(os.environ["IMGSEARCH_HOME"])
        before = all_below(home)
        measured(shop)
        assert all_below(home) == before

    def test_a_failure_leaves_nothing_behind(self, tmp_path: Path) -> None:
        stamp = Stamp("colors", "0" * 64, "none", 2)

        def failing() -> None:
            with scratch_collection(stamp, str(tmp_path)) as collection:
                assert list(tmp_path.iterdir())
                assert collection.count() == 0
                raise StoreError("full")

        with pytest.raises(StoreError, match="full"):
            failing()
        assert not list(tmp_path.iterdir())

    @pytest.mark.weaviate
    def test_a_server_is_left_unchanged(self, shop: Path, one_node: str) -> None:
        report = measured(shop, store=one_node, seconds=2)
        assert [rate.how for rate in report.rates[-2:]] == [
            "embedded store, vectors of 48",
            f"{one_node}, vectors of 48",
        ]
        assert report.estimates[0].costs["write"] == report.rates[-1].cost
        with open_store(one_node) as store:
            assert not [name for name in store.names() if name.startswith("scratch-")]


class TestInterruption:
    @pytest.mark.parametrize("stage", ["scan", "decode", "encode", "write"])
    def test_earlier_measurements_are_reported(self, shop: Path, stage: str) -> None:
        stop = threading.Event()

        def listen(event: Event) -> None:
            if isinstance(event, Stage) and event.text.startswith(stage):
                stop.set()

        opener = ColorEncoder().open
        report = bench([str(shop)], options(), listener=listen, stop=stop, encoder_opener=opener)
        assert report.interrupted
        assert [rate.stage for rate in report.rates][:-1] == STAGES[: STAGES.index(stage)]
        assert report.estimates == []

    def test_ctrl_c_ends_with_its_exit_code(
        self, cli: Cli, shop: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(*arguments: Any) -> Iterator[Any]:
            os.kill(os.getpid(), signal.SIGINT)
            yield from scan(*arguments)

        monkeypatch.setattr("imgsearch.analysis.bench.stages.scan", interrupted)
        result = cli("bench", shop)
        assert result.code == 130
        assert result.out.startswith("interrupted: ")


def estimate(device: str = "cpu", **costs: float) -> Estimate:
    stages: Any = {"scan": 0.0, "read": 0.001, "decode": 0.004, "encode": 0.02, "write": 0.0}
    return Estimate("resnet50", "fp32", device, "a runtime", stages | costs)


class TestEstimate:
    def test_times_add_up_on_the_cpu(self) -> None:
        assert estimate().cost == pytest.approx(0.025)
        assert estimate().bottleneck == "encode"

    def test_a_gpu_works_in_parallel_with_the_cpu(self) -> None:
        assert estimate("cuda:0").cost == pytest.approx(0.02)
        fast = estimate("cuda:0", encode=0.0005)
        assert fast.cost == pytest.approx(0.005)
        assert fast.bottleneck == "decode"

    def test_advice_names_the_bottleneck_and_a_remedy(self) -> None:
        gpu = estimate("cuda:0", encode=0.0005)
        report = BenchReport("a CPU", 2, estimates=[estimate(), gpu])
        assert report.advice() == [
            "resnet50 on cpu in fp32: the model is the limit, 80% of the work: a faster device or "
            "a lighter model would help; resnet50 on cuda:0 in fp32 would be 5.0 times as fast.",
            "resnet50 on cuda:0 in fp32: decode is the limit, 73% of the work: more cores would "
            "help, or smaller images.",
        ]

    def test_a_rate_has_a_speed_and_a_cost(self) -> None:
        rate = Rate("decode", "one thread", 50, 2.0)
        assert (rate.per_second, rate.cost) == (25.0, 0.04)


class TestCommand:
    def test_it_measures_a_real_model(self, cli: Cli, shop: Path) -> None:
        words = ("bench", shop, "--seconds", "2", "--device", "cpu")
        report = cli(*words, "--json").json
        assert [stage["stage"] for stage in report["stages"]] == STAGES
        assert (report["found"], report["complete"], report["sample"]) == (2, False, 2)
        assert report["choices"][0]["model"] == "efficientnet-lite0"
        assert report["choices"][0]["images_per_second"] > 0
        assert set(report["choices"][0]["milliseconds"]) == set(STAGES)
        assert list(report["not_measured"]) == ["resnet50"]
        (shop / "0.png").write_text("not an image")
        shown = cli(*words, "--workers", "2")
        assert shown.code == 0
        assert shown.out.startswith("at least 2 images, 2 read; ")
        assert "unusable" in shown.out
        assert "efficientnet-lite0 on cpu in fp32" in shown.out
        assert "not measured: resnet50" in shown.out
        assert "decode, 2 threads" in shown.err

    def test_it_needs_images(self, cli: Cli, tmp_path: Path) -> None:
        assert cli("bench").code == 2
        assert cli("bench", tmp_path / "nowhere").code == 1
