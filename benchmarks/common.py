"""Shared by the benchmarks."""

import contextlib
import datetime
import os
from collections.abc import Iterator
from pathlib import Path

import torch
import torchvision

from imgsearch import config
from imgsearch.analysis.bench.report import cpu_name


def machine() -> str:
    """Return date, processor, cores and load, as one line."""
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{datetime.date.today()}, {cpu_name()}, {config.cpu_cores()} cores{load}"


@contextlib.contextmanager
def bench_home(place: str | Path) -> Iterator[None]:
    """Set IMGSEARCH_HOME to a folder in `place`."""
    before = os.environ.get(config.ENV_HOME)
    os.environ[config.ENV_HOME] = str(Path(place) / "home")
    try:
        yield
    finally:
        if before is None:
            del os.environ[config.ENV_HOME]
        else:
            os.environ[config.ENV_HOME] = before


def seeded_resnet50(path: Path) -> Path:
    """Save random weights with a fixed seed: as fast as real ones, and available everywhere."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(torchvision.models.resnet50().state_dict(), path)
    return path
