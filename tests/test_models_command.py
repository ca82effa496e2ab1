"""`imgsearch models` lists what is ready to use, and what must be downloaded."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from imgsearch.cli import app
from imgsearch.encoders import weights
from imgsearch.encoders.catalog import RESNET50, SPECS, ModelSpec
from imgsearch.encoders.weights_cache import WeightsFile


@pytest.fixture(autouse=True)
def _nothing_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMGSEARCH_HOME", str(tmp_path))


def models(*options: str) -> str:
    result = CliRunner().invoke(app, ["models", *options], catch_exceptions=False)
    assert result.exit_code == 0
    assert result.stderr == ""
    return result.stdout


def as_json(*options: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(models("--json", *options))
    return answer


def cached(spec: ModelSpec) -> WeightsFile | None:
    """Replaces `find_local` as if the weights had been downloaded, without writing 98 MB."""
    return WeightsFile(Path("/home/me/resnet50.pth"), "0" * 64, "resnet50.pth")


def test_installed_models_are_distinguished_from_ones_to_download() -> None:
    lines = {line.split()[0]: line for line in models().splitlines() if line.strip()}
    assert "to download" in lines["resnet50"]
    assert "2048   224 px   102" in lines["resnet50"]
    assert "installed" in lines["efficientnet-lite0"]
    assert lines["auto"] == (
        "auto downloads resnet50 if possible, and otherwise uses efficientnet-lite0."
    )


def test_a_downloaded_model_is_listed_as_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "find_local", cached)
    text = models()
    assert "cached" in text
    assert "to download" not in text
    assert "auto uses resnet50." in text


def test_json_has_the_documented_shape() -> None:
    answer = as_json()
    own = weights.find_local(SPECS["efficientnet-lite0"])
    assert own
    assert answer == {
        "models": [
            {
                "name": "resnet50",
                "dimension": 2048,
                "input": 224,
                "status": "to download",
                "ready": False,
                "megabytes": 102.5,
                "weights": RESNET50.url,
            },
            {
                "name": "efficientnet-lite0",
                "dimension": 1280,
                "input": 224,
                "status": "installed",
                "ready": True,
                "megabytes": 18.8,
                "weights": str(own.path),
            },
        ],
        "auto": ["resnet50", "efficientnet-lite0"],
        "devices": None,
    }


def test_the_sizes_are_those_of_the_files() -> None:
    own = weights.find_local(SPECS["efficientnet-lite0"])
    assert own
    assert SPECS["efficientnet-lite0"].megabytes == round(own.path.stat().st_size / 1e6, 1)


def test_all_lists_torchvisions_models_and_the_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    from imgsearch.encoders.torch import torchvision_models

    # All eighty take some seconds.
    few = ["squeezenet1_0", "resnet50", "resnet18"]
    monkeypatch.setattr(torchvision_models, "names", lambda: few)
    answer = as_json("--all")
    names = [row["name"] for row in answer["models"]]
    assert names == ["resnet50", "efficientnet-lite0", "resnet18", "squeezenet1_0"]
    assert answer["models"][2]["status"] == "to download"
    assert answer["models"][2]["dimension"] == 512
    assert "cpu" in answer["devices"]
    assert "Devices: " in models("--all")


def test_the_plain_list_loads_no_torch() -> None:
    script = """
import sys
from imgsearch.cli import app
app(["models"], standalone_mode=False)
assert not {"torch", "torchvision", "lance", "pyarrow"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=240)
