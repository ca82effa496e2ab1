"""int8 models are calibrated on images, identified by digest, and never mixed with fp32."""

import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from imgsearch import ImageIndex, config
from imgsearch.encoders.base import normalized
from imgsearch.encoders.catalog import SPECS
from imgsearch.encoders.factory import open_encoder
from imgsearch.encoders.int8 import calibration
from imgsearch.encoders.int8.equalize import equalize
from imgsearch.encoders.int8.graph import Graph, observed
from imgsearch.encoders.int8.quantize import quantize
from imgsearch.encoders.onnx import model_files
from imgsearch.encoders.onnx.encoder import OnnxEncoder
from imgsearch.encoders.onnx.model_files import OnnxFile
from imgsearch.encoders.onnx.sessions import INPUT, OUTPUT, open_session, run_graph, vectors_of
from imgsearch.encoders.request import EncoderRequest
from imgsearch.errors import CollectionMismatchError, ExportError, Remedy, UsageError
from imgsearch.events import Event, Note
from imgsearch.images import Pixels, Preprocessing
from imgsearch.ingest.sample import ImageSample
from imgsearch.types import Stamp
from tests import tiny_model
from tests.conftest import Cli, Painter, Result
from tests.encoder_contract import EncoderContract, cosines


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OnnxFile:
    """Return the exported tiny model, in its own data directory."""
    monkeypatch.setenv("IMGSEARCH_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(SPECS, "tiny", tiny_model.SPEC)
    return tiny_model.exported(tmp_path / "tiny.pth")


def sample(seed: int = 0, most: int = 96) -> Callable[[Preprocessing, int], Pixels]:
    return lambda _, count: tiny_model.blots(min(count, most), seed)


def request(tiny: OnnxFile, tmp_path: Path, seed: int = 0) -> EncoderRequest:
    weights = str(tmp_path / "tiny.pth")
    return EncoderRequest("tiny", weights, "cpu", "int8", sample(seed))


@pytest.fixture(scope="module")
def tiny_int8(tmp_path_factory: pytest.TempPathFactory) -> OnnxEncoder:
    folder = tmp_path_factory.mktemp("int8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMGSEARCH_HOME", str(folder))
        tiny = tiny_model.exported(folder / "tiny.pth")
        return OnnxEncoder(calibration.get(tiny, sample()))


class TestInt8(EncoderContract):
    @pytest.fixture
    def encoder(self, tiny_int8: OnnxEncoder) -> OnnxEncoder:
        return tiny_int8


def test_vectors_are_close_to_those_of_fp32_on_other_images(tiny: OnnxFile) -> None:
    int8 = calibration.get(tiny, sample())
    others = tiny_model.blots(50, seed=7)
    near = cosines(vectors_of(int8.path, others, 1), vectors_of(tiny.path, others, 1))
    assert 0.998 < near.min() < 0.999999


def test_all_convolutions_but_the_first_have_int8_weights(tiny: OnnxFile, tmp_path: Path) -> None:
    quantize(tiny.path, tmp_path / "int8.onnx", tiny_model.blots(8), "tiny")
    graph = onnx.load(tmp_path / "int8.onnx").graph
    onnx.checker.check_model(tmp_path / "int8.onnx")
    made_by = {node.output[0]: node.op_type for node in graph.node}
    kinds = {
        node.output[0]: made_by.get(node.input[1]) for node in graph.node if node.op_type == "Conv"
    }
    assert kinds == {
        "stem": None,
        "wide": "DequantizeLinear",
        "deep": "DequantizeLinear",
        "no_bias": "DequantizeLinear",
        "head": "DequantizeLinear",
    }
    types = {each.data_type for each in graph.initializer if each.name.endswith("weights_q")}
    assert types == {onnx.TensorProto.INT8}


def test_equalization_of_channels_does_not_change_vectors(tiny: OnnxFile, tmp_path: Path) -> None:
    pixels = tiny_model.blots(32)
    before = Graph(onnx.load(tiny.path))
    after = equalize(before, pixels)
    onnx.save(after.model, tmp_path / "equalized.onnx")
    near = cosines(
        vectors_of(tmp_path / "equalized.onnx", pixels, 1), vectors_of(tiny.path, pixels, 1)
    )
    assert near.min() > 0.999999

    def least_channel(graph: Graph, tensor: str) -> float:
        """Return the maximum of the smallest channel relative to that of the whole tensor."""
        values = np.concatenate([each[tensor] for _, each in observed(graph, [tensor], pixels)])
        channels = np.abs(values).max(axis=(0, 2, 3))
        return float(channels.min() / channels.max())

    # From the stem to the addition of the residual, and none after a ReLU6.
    assert least_channel(after, "sum") > 1.2 * least_channel(before, "sum")
    assert least_channel(after, "wide_clip") == pytest.approx(least_channel(before, "wide_clip"))


def test_the_mean_output_of_a_layer_is_that_of_fp32(tiny: OnnxFile, tmp_path: Path) -> None:
    """The bias compensates the shift from the rounding of weights."""
    pixels = tiny_model.blots(64)
    quantize(tiny.path, tmp_path / "int8.onnx", pixels, "tiny")

    def outputs(path: Path) -> np.ndarray:
        parts = observed(Graph(onnx.load(path)), ["wide"], pixels)
        return np.concatenate([values["wide"] for _, values in parts])

    error = outputs(tiny.path) - outputs(tmp_path / "int8.onnx")
    assert np.abs(error.mean(axis=(0, 2, 3))).max() < 0.2 * np.abs(error).mean()


def test_fast_kernels_compute_what_the_file_defines(tiny: OnnxFile, tmp_path: Path) -> None:
    """Also on CPUs without VNNI, which saturate at 16 bits."""
    pixels = tiny_model.blots(64)
    quantize(tiny.path, tmp_path / "int8.onnx", pixels, "tiny")
    fast = vectors_of(tmp_path / "int8.onnx", pixels, 1)
    run = run_graph((tmp_path / "int8.onnx").read_bytes(), [OUTPUT])
    (written,) = run({INPUT: pixels})
    off = np.abs(fast - normalized(written)).max(axis=1)
    # A sum on the border between two rounding steps may fall to either side, as
    # kernels add in different orders (seen with AVX-512 VNNI: 1 image of 64). Saturation changes
    # most images, and by more.
    assert (off > 1e-6).sum() <= 2
    assert off.max() < 1e-3


def test_the_same_images_give_the_same_file(tiny: OnnxFile, tmp_path: Path) -> None:
    first = calibration.get(tiny, sample())
    digest = first.path.read_bytes()
    shutil.rmtree(first.path.parent)
    again = calibration.get(tiny, sample())
    assert (again, again.path.read_bytes()) == (first, digest)
    assert first.stamp.variant.startswith("int8 ")
    assert replace(first.stamp, variant="fp32") == tiny.stamp


def test_other_images_give_another_stamp(tiny: OnnxFile) -> None:
    first, other = calibration.get(tiny, sample()), calibration.get(tiny, sample(1))
    assert first.stamp != other.stamp
    assert first.stamp.differences(other.stamp) == [
        f"precision: {first.stamp.variant}, not {other.stamp.variant}"
    ]


def test_a_calibrated_model_is_reused(tiny: OnnxFile, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Event] = []
    first = calibration.get(tiny, sample(), events.append)
    notes = [event.text for event in events if isinstance(event, Note)]
    assert notes[0] == "calibrating tiny for int8 on 64 images, once"
    assert "on 32 other images the mean cosine with fp32 is " in notes[1]

    def never(*_: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr("imgsearch.encoders.int8.quantize.quantize", never)
    assert calibration.get(tiny, sample()) == first
    assert model_files.find(first.stamp) == first


def test_too_few_images_are_an_error(tiny: OnnxFile) -> None:
    with pytest.raises(
        ExportError,
        match=r"needs 30 different .*, but found 29",
        check=lambda error: error.remedies == (Remedy.USE_FP32,),
    ):
        calibration.get(tiny, sample(most=29))
    assert calibration.get(tiny, sample(most=30)).path.is_file()


def test_a_model_that_loses_too_much_is_rejected_and_not_stored(
    tiny: OnnxFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damage(source: Path, target: Path, *_: object) -> None:
        model = onnx.load(source)
        for each in model.graph.initializer:
            if each.name == "head_w":
                each.raw_data = bytes(reversed(each.raw_data))[::-1][4:] + each.raw_data[:4]
        onnx.save(model, target)

    monkeypatch.setattr("imgsearch.encoders.int8.quantize.quantize", damage)
    with pytest.raises(ExportError, match=r"mean cosine with fp32 is -?0\.\d+, less than 0.995"):
        calibration.get(tiny, sample())
    assert [each.parent for each in config.models_dir().glob("*/model.onnx")] == [tiny.path.parent]


def test_the_maximum_of_floats_is_taken_before_they_are_rounded(tmp_path: Path) -> None:
    onnx.save(tiny_model.model(early_pool=True), tmp_path / "early.onnx")
    quantize(tmp_path / "early.onnx", tmp_path / "int8.onnx", tiny_model.blots(30), "early")
    open_session(tmp_path / "int8.onnx", 1, save=tmp_path / "optimized.onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert kinds.index("MaxPool") < kinds.index("QuantizeLinear")


def test_a_model_without_convolutions_is_not_quantized(tmp_path: Path) -> None:
    onnx.save(tiny_model.model(layers=False), tmp_path / "matrix.onnx")
    with pytest.raises(ExportError, match="matrices has nothing to win by int8"):
        quantize(tmp_path / "matrix.onnx", tmp_path / "out.onnx", tiny_model.blots(2), "matrices")


def test_old_stamps_are_fp32_and_their_json_is_unchanged() -> None:
    old = '{"dimension": 48, "distance": "cosine", "model": "m", "preprocessing": "p", '
    old += '"weights": "w"}'
    stamp = Stamp.from_json(old)
    assert (stamp.variant, stamp.dtype, stamp.to_json()) == ("fp32", "fp32", old)
    int8 = replace(stamp, variant="int8 0123456789ab")
    assert Stamp.from_json(int8.to_json()) == int8
    assert int8.dtype == "int8"


def test_int8_on_a_gpu_is_an_error() -> None:
    with pytest.raises(UsageError, match="int8 runs on the CPU, not on cuda"):
        open_encoder(EncoderRequest("tiny", device="cuda", precision="int8"))


def test_precisions_are_not_mixed_in_a_collection(tiny: OnnxFile, tmp_path: Path) -> None:
    int8 = open_encoder(request(tiny, tmp_path)).stamp
    with pytest.raises(CollectionMismatchError, match="made in int8, not in fp32"):
        open_encoder(EncoderRequest(device="cpu", precision="fp32"), int8)
    with pytest.raises(CollectionMismatchError, match="made in fp32, not in int8"):
        open_encoder(EncoderRequest(device="cpu", precision="int8"), tiny.stamp)
    assert open_encoder(EncoderRequest(device="cpu"), int8).stamp == int8
    assert open_encoder(EncoderRequest(device="cpu"), tiny.stamp).stamp == tiny.stamp


@pytest.fixture
def shop(paint: Painter, tmp_path: Path) -> Path:
    for seed in range(40):
        paint(f"shop/{seed:02}.png", seed)
    return tmp_path / "shop"


@pytest.fixture
def ingest(cli: Cli, tiny: OnnxFile, shop: Path, tmp_path: Path) -> Cli:
    def run(*words: object, stdin: bytes = b"") -> Result:
        own = ("--model", "tiny", "--weights", tmp_path / "tiny.pth", "--json")
        return cli("ingest", shop, *own, *words, stdin=stdin)

    return run


def calibrated() -> Path:
    """Return the folder of the int8 model."""
    specs = config.models_dir().glob("tiny-*/spec.json")
    (folder,) = [path.parent for path in specs if "calibration" in path.read_text()]
    return folder


def damage(model: Path) -> None:
    """Replace a model by one that loads but gives other vectors, and remove its optimized form."""
    made = onnx.load(model)
    for each in made.graph.initializer:
        if each.name.endswith("weights_q"):
            each.raw_data = bytes(len(each.raw_data))
    onnx.save(made, model)
    for folder in model.parent.glob("optimised-*"):
        shutil.rmtree(folder)


@pytest.mark.usefixtures("tiny")
class TestCommands:
    def test_the_precision_is_reported_and_used_by_queries(
        self, ingest: Cli, cli: Cli, shop: Path
    ) -> None:
        result = ingest("--precision", "int8")
        assert (result.code, result.json["precision"], result.json["indexed"]) == (0, "int8", 40)
        assert "calibrating tiny for int8 on" in result.err
        found = cli("query", shop / "07.png", "--json")
        assert found.json["hits"][0]["path"] == str(shop / "07.png")
        assert found.json["hits"][0]["score"] == pytest.approx(1, abs=1e-5)
        assert "fp32" not in found.err
        assert "48 dimensions, int8 " in cli("info").out

    def test_more_images_are_encoded_by_the_same_model(
        self, ingest: Cli, cli: Cli, paint: Painter
    ) -> None:
        before = ingest("--precision", "int8")
        paint("shop/new.png", 99)
        after = ingest()
        assert (before.code, after.code, after.json["indexed"]) == (0, 0, 1)
        assert "calibrating" not in after.err
        assert after.json["precision"] == "int8"

    def test_fp32_images_are_not_added(self, ingest: Cli) -> None:
        assert ingest("--precision", "int8").code == 0
        rejected = ingest("--precision", "fp32")
        assert rejected.code == 1
        assert "made in int8, not in fp32" in rejected.err

    def test_without_the_model_file_queries_use_fp32_and_ingests_fail(
        self, ingest: Cli, cli: Cli, shop: Path, paint: Painter
    ) -> None:
        assert ingest("--precision", "int8").code == 0
        shutil.rmtree(calibrated())
        found = cli("query", shop / "07.png", "--json", "--k", "1")
        assert found.json["hits"][0]["path"] == str(shop / "07.png")
        assert found.json["hits"][0]["score"] > 0.99
        paint("shop/new.png", 99)
        rejected = ingest()
        assert rejected.code == 1
        assert "is not on this machine" in rejected.err
        assert "--replace --precision int8" in rejected.err

    def test_a_damaged_optimized_file_is_recreated_before_vectors_are_stored(
        self, ingest: Cli, cli: Cli, paint: Painter
    ) -> None:
        assert ingest("--precision", "int8").code == 0
        (weights,) = calibrated().glob("optimised-*/weights.bin")
        sound = weights.read_bytes()
        weights.write_bytes(bytes(len(sound)))
        new = paint("shop/new.png", 99)
        after = ingest()
        assert (after.code, after.json["indexed"], after.json["verified"]) == (0, 1, True)
        assert weights.read_bytes() == sound
        assert cli("query", new, "--json").json["hits"][0]["score"] == pytest.approx(1, abs=1e-5)

    def test_a_damaged_model_stores_no_vectors_and_is_calibrated_again(
        self, ingest: Cli, paint: Painter
    ) -> None:
        assert ingest("--precision", "int8").code == 0
        damage(calibrated() / "model.onnx")
        paint("shop/zz.png", 99)
        rejected = ingest()
        assert rejected.code == 1
        assert "tiny in int8, as it was made for this machine, is damaged" in rejected.err
        paint("shop/zz.png", 99).unlink()
        assert ingest("--precision", "int8", "--collection", "other").code == 0
        paint("shop/zz.png", 99)
        after = ingest()
        assert (after.code, after.json["indexed"]) == (0, 1)

    def test_preparation_time_is_reported_separately(self, ingest: Cli) -> None:
        report = ingest("--precision", "int8").json
        assert 0 < report["preparing"] < report["seconds"]
        assert report["images_per_second"] > 40 / report["seconds"]

    def test_copies_of_one_image_do_not_suffice_for_calibration(
        self, ingest: Cli, shop: Path, paint: Painter
    ) -> None:
        for path in shop.iterdir():
            shutil.copy(paint("one.png", 1), path)
        rejected = ingest("--precision", "int8")
        assert rejected.code == 1
        assert "needs 30 different ones that can be used, but found 1:" in rejected.err

    def test_a_stop_during_the_preparation_indexes_nothing(
        self, tiny: OnnxFile, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stop = threading.Event()

        def spread(_: ImageSample) -> list[str]:
            stop.set()
            return []

        monkeypatch.setattr(ImageSample, "_shuffled", spread)
        index = ImageIndex(
            store=str(tmp_path / "db"),
            model="tiny",
            weights=str(tmp_path / "tiny.pth"),
            device="cpu",
            precision="int8",
        )
        with index:
            report = index.add(shop, stop=stop)
        assert (report.interrupted, report.found, report.model) == (True, 0, None)

    def test_replace_changes_the_precision(self, ingest: Cli, cli: Cli) -> None:
        assert ingest("--precision", "fp32").json["precision"] == "fp32"
        replaced = ingest("--precision", "int8", "--replace")
        assert "collection images now has vectors of tiny in int8" in replaced.err
        assert (replaced.code, replaced.json["precision"]) == (0, "int8")
        (info,) = cli("info", "--json").json["collections"]
        assert info["stamp"]["precision"].startswith("int8 ")
        assert info["images"] == 40

    def test_a_list_on_stdin_is_sampled_and_ingested_completely(
        self, cli: Cli, shop: Path, tmp_path: Path
    ) -> None:
        paths = "\n".join(str(path) for path in sorted(shop.iterdir())).encode()
        own = ("--model", "tiny", "--weights", tmp_path / "tiny.pth", "--precision", "int8")
        result = cli("ingest", "-", *own, "--json", stdin=paths)
        assert (result.code, result.json["indexed"]) == (0, 40)

    def test_a_gpu_is_an_error_before_any_work(self, ingest: Cli) -> None:
        result = ingest("--precision", "int8", "--device", "cuda")
        assert result.code == 2
        assert "int8 runs on the CPU" in result.err

    def test_an_environment_variable_replaces_the_option(
        self, ingest: Cli, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("IMGSEARCH_PRECISION", "int8")
        assert ingest().json["precision"] == "int8"
