"""Encoders of ONNX Runtime meet the contract, give torch's vectors, and need no torch."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from imgsearch import images
from imgsearch.encoders import weights
from imgsearch.encoders.base import Encoder
from imgsearch.encoders.catalog import EFFICIENTNET_LITE0, RESNET50
from imgsearch.encoders.factory import open_encoder
from imgsearch.encoders.onnx import model_files, prepare
from imgsearch.encoders.onnx.encoder import OnnxEncoder
from imgsearch.encoders.onnx.model_files import OnnxFile
from imgsearch.encoders.request import EncoderRequest
from imgsearch.encoders.weights_cache import WeightsFile
from imgsearch.errors import EncoderError, ExportError, WeightsError
from imgsearch.events import Event, Note
from tests.conftest import SAMPLES
from tests.encoder_contract import EncoderContract, cosines, different_images
from tests.lazily import lazily
from tests.test_torch_encoder import Seeded, lite0_encoder, on_cpu, seeded

if TYPE_CHECKING:
    from torch import nn

    from imgsearch.encoders.onnx import export
    from imgsearch.encoders.torch import torchvision_models
else:
    export = lazily("imgsearch.encoders.onnx.export")
    torchvision_models = lazily("imgsearch.encoders.torch.torchvision_models")

__all__ = ["seeded"]
CPU = EncoderRequest("efficientnet-lite0", device="cpu")


def lite0_weights() -> WeightsFile:
    found = weights.find_local(EFFICIENTNET_LITE0)
    assert found, "its package is a dependency"
    return found


@pytest.fixture
def lite0() -> OnnxFile:
    return prepare.get_model(EFFICIENTNET_LITE0, lite0_weights())


@pytest.fixture
def own_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No model is exported yet."""
    monkeypatch.setenv("IMGSEARCH_HOME", str(tmp_path))
    return tmp_path / "models"


class TestEfficientNetLite0(EncoderContract):
    @pytest.fixture
    def encoder(self, lite0: OnnxFile) -> Encoder:
        return OnnxEncoder(lite0)


@pytest.mark.slow
class TestManyThreads(EncoderContract):
    """Use more threads than there are images."""

    @pytest.fixture
    def encoder(self, lite0: OnnxFile) -> Encoder:
        return OnnxEncoder(lite0, threads=5)


@pytest.mark.slow
class TestAnyTorchvisionModel(EncoderContract):
    @pytest.fixture
    def encoder(self, seeded: Seeded) -> Encoder:
        spec = torchvision_models.describe("squeezenet1_1")
        return OnnxEncoder(prepare.get_model(spec, seeded(spec.name)))


def test_vectors_and_stamp_equal_those_of_torch(lite0: OnnxFile) -> None:
    ours, torchs = OnnxEncoder(lite0), lite0_encoder()
    files = sorted((SAMPLES / "images").iterdir())[:8]
    pixels = np.stack([images.decode(str(file), ours.preprocessing).pixels for file in files])
    assert cosines(ours.encode(pixels), torchs.encode(pixels)).min() > 0.99999
    assert ours.stamp == torchs.stamp


@pytest.mark.slow
def test_vectors_of_resnet50_equal_those_of_torch(seeded: Seeded) -> None:
    file = seeded("resnet50")
    ours, torchs = OnnxEncoder(prepare.get_model(RESNET50, file)), on_cpu(RESNET50, file)
    batch = different_images(ours, 2)
    assert cosines(ours.encode(batch), torchs.encode(batch)).min() > 0.99999


def test_the_cpu_uses_onnx_runtime(lite0: OnnxFile) -> None:
    encoder = open_encoder(CPU)
    assert (encoder.runtime, encoder.device) == ("onnxruntime", "cpu")
    assert open_encoder(CPU, encoder.stamp).stamp == encoder.stamp


def test_an_exported_model_never_loads_torch(lite0: OnnxFile, tmp_path: Path) -> None:
    shutil.copytree(SAMPLES / "images", tmp_path / "images")
    image = str(tmp_path / "images" / "10101.jpg")
    script = f"""
import sys
sys.modules["torch"] = None  # importing it fails
from imgsearch.cli import main
for words in (
    ["ingest", {str(tmp_path)!r}, "--model", "efficientnet-lite0"], ["query", {image!r}]
):
    sys.argv = ["imgsearch", *words, "--device", "cpu", "--store", {str(tmp_path / "store")!r}]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, words
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=240, capture_output=True)


@dataclass(frozen=True)
class Export:
    home: Path
    file: OnnxFile
    notes: list[str]
    stored: list[str]


@pytest.fixture(scope="module")
def squeezenet(seeded: Seeded, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """An export into a home of its own. Only to read."""
    home = tmp_path_factory.mktemp("squeezenet")
    events: list[Event] = []
    spec = torchvision_models.describe("squeezenet1_1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMGSEARCH_HOME", str(home))
        file = prepare.get_model(spec, seeded(spec.name), events.append)
    notes = [event.text for event in events if isinstance(event, Note)]
    # Before a test opens it, which adds files.
    stored = sorted(entry.name for entry in file.path.parent.iterdir())
    return Export(home, file, notes, stored)


def test_a_stamp_finds_its_exported_model_without_the_weights(
    squeezenet: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMGSEARCH_HOME", str(squeezenet.home))
    spec, file = torchvision_models.describe("squeezenet1_1"), squeezenet.file

    def never(*_: object) -> None:
        raise AssertionError("torch or the weights were asked for")

    monkeypatch.setattr(weights, "get", never)
    monkeypatch.setattr("imgsearch.encoders.torch.torchvision_models.describe", never)
    encoder = open_encoder(EncoderRequest(device="cpu"), file.stamp)
    assert encoder.preprocessing == spec.preprocessing
    assert model_files.find(file.stamp) == file


def test_other_weights_or_preprocessing_are_another_file(lite0: OnnxFile) -> None:
    assert model_files.find(lite0.stamp) == lite0
    assert model_files.find(replace(lite0.stamp, weights="0" * 64)) is None
    assert model_files.find(replace(lite0.stamp, preprocessing="other")) is None


def test_the_export_is_reported_and_leaves_only_the_model(squeezenet: Export) -> None:
    assert len(squeezenet.notes) == 2
    assert "preparing squeezenet1_1" in squeezenet.notes[0]
    folder = squeezenet.file.path.parent
    models = squeezenet.home / "models"
    assert [entry.name for entry in models.iterdir() if entry.is_dir()] == [folder.name]
    assert squeezenet.stored == ["model.onnx", "spec.json", "vector.npy"]


def test_a_model_that_cannot_be_exported_uses_torch_and_is_not_retried(
    own_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def fail(*_: Any) -> None:
        tries.append(1)
        raise ValueError("no translation for aten::odd\nand a long trace")

    monkeypatch.setattr("imgsearch.encoders.onnx.export._write", fail)
    for _ in range(2):
        events: list[Event] = []
        encoder = open_encoder(CPU, listener=events.append)
        assert (encoder.runtime, encoder.device) == ("torch", "cpu")
        assert (
            Note(
                "using torch, which is slower on the CPU: efficientnet-lite0 cannot be exported: "
                "no translation for aten::odd"
            )
            in events
        )
    assert len(tries) == 1


def test_an_export_is_retried_after_a_full_disk(
    own_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def fail(*_: Any) -> None:
        tries.append(1)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("imgsearch.encoders.onnx.export._write", fail)
    for _ in range(2):
        events: list[Event] = []
        assert open_encoder(CPU, listener=events.append).runtime == "torch"
        assert any("No space left" in getattr(event, "text", "") for event in events)
    assert len(tries) == 2


def test_an_export_with_different_vectors_is_an_error(
    own_models: Path, seeded: Seeded, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = export._write
    spec, file = torchvision_models.describe("squeezenet1_1"), seeded("squeezenet1_1")

    def drift(model: "nn.Module", pixels: images.Pixels, path: Path) -> None:
        before = model.get_buffer("mean").clone()
        model.get_buffer("mean").add_(10)
        write(model, pixels, path)
        model.get_buffer("mean").copy_(before)

    monkeypatch.setattr("imgsearch.encoders.onnx.export._write", drift)
    with pytest.raises(ExportError, match=r"not those of torch \(cosine 0\.\d+, less than 0.9999"):
        prepare.get_model(spec, file)
    assert model_files.find(spec.stamp(file.sha256)) is None


def test_weights_that_do_not_fit_are_the_same_error_as_with_torch(
    own_models: Path, seeded: Seeded
) -> None:
    with pytest.raises(WeightsError, match="not weights of resnet50"):
        prepare.get_model(RESNET50, seeded("squeezenet1_1"))
    assert not any(entry.is_dir() for entry in own_models.iterdir())


def test_torch_is_used_if_models_cannot_be_stored(
    own_models: Path,
) -> None:
    own_models.touch()  # a file in place of the folder
    assert open_encoder(CPU).runtime == "torch"


@pytest.mark.parametrize("damaged", ["model.onnx", "weights.bin"])
def test_a_damaged_optimized_file_is_recreated(
    lite0: OnnxFile, tmp_path: Path, damaged: str
) -> None:
    copy = replace(lite0, path=Path(shutil.copy(lite0.path, tmp_path / "model.onnx")))
    batch = different_images(OnnxEncoder(copy), 1)
    expected = OnnxEncoder(copy).encode(batch)
    (optimized,) = tmp_path.glob("optimised-*")
    file = optimized / damaged
    size = file.stat().st_size
    os.truncate(file, size // 2)
    np.testing.assert_array_equal(OnnxEncoder(copy).encode(batch), expected)
    assert list(tmp_path.glob("optimised-*")) == [optimized]
    assert file.stat().st_size == size


def test_a_damaged_model_is_recreated_before_its_vectors_are_stored(
    lite0: OnnxFile, own_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = own_models / lite0.path.parent.name / lite0.path.name
    shutil.copytree(lite0.path.parent, made.parent, ignore=shutil.ignore_patterns("optimised-*"))
    sound = made.read_bytes()
    monkeypatch.setattr(
        "imgsearch.encoders.onnx.export.export",
        lambda _spec, _weights, path, _: path.write_bytes(sound),
    )
    half = len(sound) // 2
    made.write_bytes(sound[:half] + bytes(100_000) + sound[half + 100_000 :])
    events: list[Event] = []
    open_encoder(replace(CPU, checked=True), listener=events.append)
    notes = [event.text for event in events if isinstance(event, Note)]
    assert "is damaged: moved to " in notes[0]
    assert made.read_bytes() == sound
    (aside,) = own_models.glob("damaged/*/*/model.onnx")
    assert str(aside.parent) in notes[0]
    assert aside.read_bytes() != sound


@pytest.mark.parametrize("reason", ["Failed to allocate memory", "Too many open files"])
def test_an_export_is_retried_after_a_shortage(
    own_models: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    tries = []

    def fail(*_: Any) -> None:
        tries.append(1)
        try:
            raise RuntimeError(reason)
        except RuntimeError as error:
            raise ValueError("the exporter failed") from error

    monkeypatch.setattr("imgsearch.encoders.onnx.export._write", fail)
    for _ in range(2):
        assert open_encoder(CPU).runtime == "torch"
    assert len(tries) == 2


def test_the_runtime_sends_no_telemetry_and_stores_no_machine_id(
    lite0: OnnxFile, tmp_path: Path
) -> None:
    run = "import sys; from pathlib import Path; from imgsearch.encoders.onnx.sessions import *; "
    run += "open_session(Path(sys.argv[1]), 1)"
    private = ("CI", "XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY", "IMGSEARCH_HOME")
    environment = {name: text for name, text in os.environ.items() if name not in private}
    subprocess.run(
        [sys.executable, "-c", run, str(lite0.path)],
        env=environment | {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path)},
        check=True,
    )
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_model_is_named(lite0: OnnxFile, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"damaged")
    encoder = OnnxEncoder(replace(lite0, path=tmp_path / "model.onnx"))
    with pytest.raises(EncoderError, match=r"cannot load .*model.onnx .*; if this persists, move "):
        encoder.encode(different_images(encoder, 1))
