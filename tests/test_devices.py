"""GPUs are detected without importing torch, and cores are counted within quotas."""

import math
import os
from pathlib import Path

import pytest

from imgsearch import config
from imgsearch.encoders import devices


def test_a_named_device_is_returned_unchanged() -> None:
    assert devices.pick("cuda:3") == "cuda:3"


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_hidden_gpus_are_not_searched_for(monkeypatch: pytest.MonkeyPatch, hidden: str) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(devices, "_DRIVERS", ("/dev/null",))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices.may_have_gpu()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert not devices.may_have_gpu()
    assert devices.pick("auto") == "cpu"


def test_without_a_driver_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(devices, "_DRIVERS", ("/no/such/driver",))
    assert devices.pick("auto") == "cpu"


def test_torch_is_imported_if_there_may_be_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "may_have_gpu", lambda: True)
    monkeypatch.setattr(
        "imgsearch.encoders.torch.encoder.available_devices", lambda: ["cuda:0", "cpu"]
    )
    assert devices.pick("auto") == "cuda:0"


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/a/b\n", {"a/cpu.max": "50000 100000\n", "a/b/cpu.max": "max 100000\n"}, 0.5),
        (
            "4:cpu,cpuacct:/docker/1f\n2:memory:/docker/1f\n",
            {"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            3.0,
        ),
        (
            "4:cpu:/\n",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            math.inf,
        ),
        ("", {}, math.inf),
    ],
)
def test_the_quota_of_a_container_counts(
    tmp_path: Path, own: str, files: dict[str, str], cores: float
) -> None:
    groups = tmp_path / "groups"
    for name, content in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(content)
    (tmp_path / "own").write_text(own)
    assert config._cpu_quota(groups, tmp_path / "own") == cores


def test_there_is_always_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "_cpu_quota", lambda: 0.1)
    assert config.cpu_cores() == 1
    monkeypatch.setattr(config, "_cpu_quota", lambda: math.inf)
    assert 1 <= config.cpu_cores() <= (os.cpu_count() or 1)
