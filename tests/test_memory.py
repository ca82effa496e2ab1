"""Memory budgets are never exceeded, and no thread waits forever."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from imgsearch import images
from imgsearch.config import control_groups
from imgsearch.errors import ImageError
from imgsearch.images.footprint import decoding_bytes
from imgsearch.system import memory
from imgsearch.system.memory import Budget
from tests.fakes import PREPROCESSING

SOON = 60.0


@pytest.fixture
def decoding(monkeypatch: pytest.MonkeyPatch) -> Budget:
    """Limit the budget for decoding."""
    budget = Budget(1 << 20)
    monkeypatch.setattr(memory, "decoding_budget", lambda: budget)
    return budget


def test_usage_never_exceeds_the_budget() -> None:
    budget, most = Budget(100), 0

    def use(size: int) -> None:
        nonlocal most
        with budget.acquire(size):
            most = max(most, budget.used)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(use, [30, 60, 99, 1] * 100))
    assert most <= 100
    assert budget.used == 0


def test_a_lease_above_the_total_runs_alone_in_its_turn() -> None:
    budget = Budget(100)
    order: list[str] = []

    def use(name: str, size: int) -> None:
        with budget.acquire(size):
            order.append(f"{name} {budget.used}")

    with budget.acquire(50):
        huge = threading.Thread(target=use, args=("huge", 1000))
        huge.start()
        while not budget._queue:  # until it waits
            huge.join(0.01)
        small = threading.Thread(target=use, args=("small", 10))
        small.start()
        while len(budget._queue) < 2:
            small.join(0.01)
        assert order == []
    huge.join(SOON)
    small.join(SOON)
    assert order == ["huge 1000", "small 10"]


def test_a_lease_without_waiting_needs_free_memory() -> None:
    budget = Budget(100)
    assert budget.try_acquire(60)
    assert not budget.try_acquire(60)
    budget.release(60)
    assert budget.try_acquire(100)


def test_a_failure_releases_memory(decoding: Budget, tmp_path: Path) -> None:
    whole = tmp_path / "whole.png"
    Image.new("RGB", (50, 50)).save(whole)
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:60])
    with pytest.raises(ImageError):
        images.decode(str(tmp_path / "cut.png"), PREPROCESSING)
    assert decoding.used == 0


@pytest.mark.parametrize(
    "use",
    [
        lambda path: images.decode(path, PREPROCESSING),
        lambda path: images.decode(Image.open(path), PREPROCESSING),
        lambda path: images.thumbnail(path, 32),
        lambda path: images.load(path),
    ],
    ids=["decode", "decode Pillow's", "thumbnail", "load"],
)
def test_decoding_waits_for_memory(
    use: Callable[[str], Any], decoding: Budget, tmp_path: Path
) -> None:
    path = str(tmp_path / "image.png")
    Image.new("RGB", (300, 300)).save(path)
    used: list[bool] = []
    worker = threading.Thread(target=lambda: used.append(bool(use(path))))
    with decoding.acquire(decoding.total):
        worker.start()
        while not decoding._queue and worker.is_alive():
            worker.join(0.01)
        assert worker.is_alive()
    worker.join(SOON)
    assert used == [True]
    assert decoding.used == 0


def test_an_image_that_can_never_fit_is_rejected_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "image.png")
    Image.new("RGB", (2000, 1000)).save(path)
    monkeypatch.setattr(memory, "available", lambda: 10_000_000)
    with pytest.raises(ImageError, match=r"2000 x 1000 pixels of PNG take about 0\.0 GB of memory"):
        images.decode(path, PREPROCESSING)


def test_a_callers_image_is_not_changed() -> None:
    for mode in ("RGB", "RGBA"):
        image = Image.new(mode, (50, 50), (10, 20, 30, 40)[: len(mode)])
        before = image.tobytes()
        images.decode(image, PREPROCESSING)
        images.thumbnail(image, 10)
        assert (image.size, image.mode, image.tobytes()) == ((50, 50), mode, before)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("a.png", "L"),
        ("a.png", "RGB"),
        ("a.png", "RGBA"),
        ("a.png", "LA"),
        ("a.png", "I;16"),
        ("a.tif", "F"),
        ("a.jpg", "RGB"),
        ("a.webp", "RGB"),
        ("a.jp2", "RGB"),
        ("a.avif", "RGB"),
    ],
)
def test_no_image_takes_more_than_estimated(name: str, mode: str, tmp_path: Path) -> None:
    path = str(tmp_path / name)
    Image.new(mode, (2500, 2400)).save(path)
    script = (
        "import sys\n"
        "from imgsearch import images\n"
        "from imgsearch.images.formats import register_all_formats\n"
        "from tests.fakes import PREPROCESSING\n"
        "from tests.measuring import peak_memory\n"
        "register_all_formats()\n"
        "images.decode(sys.argv[2], PREPROCESSING)\n"
        "before = peak_memory()\n"
        "images.decode(sys.argv[1], PREPROCESSING)\n"
        "print(peak_memory() - before)\n"
    )
    small = str(tmp_path / f"small-{name}")
    Image.new(mode, (10, 10)).save(small)
    done = subprocess.run(
        [sys.executable, "-c", script, path, small], capture_output=True, text=True, check=True
    )
    with Image.open(path) as image:
        assert int(done.stdout) <= decoding_bytes(image, image.size) + (4 << 20)


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    (tmp_path / "own").write_text("4:memory,x:/one\n0::/two/three\n")
    return tmp_path


def test_the_limit_of_a_container_counts(groups: Path) -> None:
    own = groups / "own"
    assert [str(each) for each in control_groups("memory", own)] == ["memory/one", "two/three"]
    assert memory._container(groups, own) == sys.maxsize
    (groups / "two").mkdir()
    (groups / "two/memory.max").write_text("2000000000\n")
    assert memory._container(groups, own) == 2_000_000_000
    (groups / "memory/one").mkdir(parents=True)
    (groups / "memory/one/memory.limit_in_bytes").write_text("1000000000\n")
    assert memory._container(groups, own) == 1_000_000_000
    (groups / "memory/one/memory.limit_in_bytes").write_text("max\n")
    assert memory._container(groups, own) == 2_000_000_000


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_folder_of_huge_images_is_ingested_by_many_threads_in_bounded_memory(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "huge"
    folder.mkdir()
    Image.new("RGBA", (5000, 5000), (1, 2, 3, 4)).save(folder / "0.png", compress_level=1)
    for number in range(1, 16):
        os.link(folder / "0.png", folder / f"{number}.png")
    script = (
        "import sys\n"
        "from imgsearch import ingest\n"
        "from imgsearch.stores import open_store\n"
        "from tests.fakes import ColorEncoder\n"
        "from tests.measuring import peak_memory\n"
        "options = ingest.IngestOptions(batch_size=16, workers=16)\n"
        "with open_store(sys.argv[2]) as store:\n"
        "    report = ingest.ingest([sys.argv[1]], store, 'images', options=options,\n"
        "        encoder_opener=ColorEncoder().open)\n"
        "print(report.indexed + report.reused)\n"
        "print(peak_memory())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder), str(tmp_path / "store")],
        capture_output=True,
        text=True,
        check=True,
    )
    taken, peak = map(int, done.stdout.split())
    assert taken == 16
    assert peak < 2_000_000_000  # 16 at once would take 3.2 GB
