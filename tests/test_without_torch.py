"""An installation without torch, with exported models, as in the Docker image."""

import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest

from imgsearch import config
from imgsearch.encoders import devices, weights
from imgsearch.encoders.catalog import EFFICIENTNET_LITE0, RESNET50
from imgsearch.encoders.factory import open_encoder
from imgsearch.encoders.onnx import model_files, prepare
from imgsearch.encoders.onnx.model_files import OnnxFile
from imgsearch.encoders.request import EncoderRequest
from imgsearch.encoders.weights_cache import WeightsFile
from imgsearch.errors import MissingTorchError, Remedy
from imgsearch.events import Event, Note
from tests import tiny_model
from tests.conftest import SAMPLES, Cli
from tests.encoder_contract import different_images

CPU = EncoderRequest("efficientnet-lite0", device="cpu")


@pytest.fixture
def exported() -> OnnxFile:
    """efficientnet-lite0, exported beforehand."""
    found = weights.find_local(EFFICIENTNET_LITE0)
    assert found, "its package is a dependency"
    return prepare.get_model(EFFICIENTNET_LITE0, found)


@pytest.fixture
def installed(exported: OnnxFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same model in an installation without torch, and an empty data directory."""
    models = tmp_path / "installed"
    shutil.copytree(
        exported.path.parent,
        models / exported.path.parent.name,
        ignore=shutil.ignore_patterns("optimised-*"),
    )
    monkeypatch.setattr(config, "installed_models_dir", lambda: models)
    monkeypatch.setenv("IMGSEARCH_HOME", str(tmp_path / "home"))
    find_spec = importlib.util.find_spec

    def find(name: str) -> ModuleSpec | None:
        return None if name in ("torch", "torchvision") else find_spec(name)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    return models


def test_an_installed_model_is_used(
    installed: Path, exported: OnnxFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("the weights were asked for")

    monkeypatch.setattr(weights, "get", never)
    encoder = open_encoder(CPU)
    assert encoder.stamp == exported.stamp
    assert open_encoder(CPU, encoder.stamp).stamp == encoder.stamp
    assert encoder.encode(different_images(encoder, 2)).shape == (2, 1280)
    found = model_files.last_used()
    assert found
    assert found.path.is_relative_to(config.home())
    assert found.path.samefile(next(installed.rglob("model.onnx")))
    assert not any(installed.rglob("optimised-*")), "the installation is not written to"


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], OnnxFile]:
    """Exports a model whose own weights have a digest, in an installation without torch."""
    monkeypatch.setenv("IMGSEARCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(devices, "missing_for_torch", lambda: ["torch"])

    def export(digest: str) -> OnnxFile:
        spec = replace(tiny_model.SPEC, weights_name=f"tiny-{digest}.pth")
        return tiny_model.exported(tmp_path / "weights.pth", spec)

    return export


def test_an_exported_model_needs_no_torch_for_a_new_collection(
    tiny: Callable[[str], OnnxFile],
) -> None:
    weights = tiny("00000000").stamp.weights
    exported = tiny(weights[:8])
    assert open_encoder(EncoderRequest("tiny", device="cpu")).stamp == exported.stamp


def test_a_model_with_other_weights_is_not_the_default_one(
    tiny: Callable[[str], OnnxFile],
) -> None:
    tiny("00000000")
    with pytest.raises(MissingTorchError):
        open_encoder(EncoderRequest("tiny", device="cpu"))


def test_an_installed_model_is_found_after_the_installation_has_moved(
    installed: Path, exported: OnnxFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert model_files.find(exported.stamp)
    moved = installed.rename(installed.with_name("moved"))
    monkeypatch.setattr(config, "installed_models_dir", lambda: moved)
    found = model_files.find(exported.stamp)
    assert found
    assert found.path.is_file()


def test_an_installed_model_works_with_an_unwritable_data_directory(
    installed: Path, exported: OnnxFile
) -> None:
    config.home().touch()  # in the place of the folder
    encoder = open_encoder(CPU, exported.stamp)
    assert np.isfinite(encoder.encode(different_images(encoder, 1))).all()


def test_auto_uses_the_available_model(installed: Path) -> None:
    events: list[Event] = []
    encoder = open_encoder(EncoderRequest(device="cpu"), listener=events.append)
    assert encoder.stamp.model == "efficientnet-lite0"
    notes = [event.text for event in events if isinstance(event, Note)]
    assert notes == ["using efficientnet-lite0: torch, torchvision, for resnet50, is not installed"]


@pytest.mark.parametrize(
    "request_",
    [
        EncoderRequest("resnet50", weights=str(SAMPLES / "styles.csv"), device="cpu"),
        EncoderRequest("squeezenet1_1", device="cpu"),
        EncoderRequest("efficientnet-lite0", device="cuda"),
    ],
)
def test_missing_torch_is_an_error_with_a_remedy(
    installed: Path, request_: EncoderRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = WeightsFile(Path("own.pth"), "0" * 64, "own.pth")
    monkeypatch.setattr(weights, "get", lambda *_, **__: file)
    with pytest.raises(
        MissingTorchError,
        match=r"^torch, torchvision must be installed",
        check=lambda error: error.remedies == (Remedy.USE_EXPORTED_MODEL,),
    ):
        open_encoder(request_)


def test_a_gpu_is_not_searched_for(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_DRIVERS", (str(installed),))
    assert devices.pick("auto") == "cpu"


def test_the_list_of_models_shows_exported_ones(installed: Path, cli: Cli) -> None:
    rows = {row["name"]: row for row in cli("models", "--json").json["models"]}
    assert rows["efficientnet-lite0"]["status"] == "exported"
    assert rows[RESNET50.name]["status"] == "to download"
    failed = cli("models", "--all")
    assert failed.code == 1
    assert "torch, torchvision must be installed for --all" in failed.err


def test_prepare_makes_a_model_ready(exported: OnnxFile, cli: Cli) -> None:
    done = cli("models", "--prepare", "efficientnet-lite0")
    assert done.code == 0
    assert "exported" in done.out


def test_prepare_fails_for_a_model_that_cannot_be_exported(cli: Cli) -> None:
    config.home().mkdir(exist_ok=True)
    (config.home() / "models").unlink()
    (config.home() / "models").touch()  # in the place of the folder
    failed = cli("models", "--prepare", "efficientnet-lite0")
    assert failed.code == 1
    assert "cannot be prepared for the CPU" in failed.err
