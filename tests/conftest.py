"""What every test gets: a home of its own, no settings from outside, and no hidden skips."""

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from filelock import FileLock
from PIL import Image
from xdist.scheduler import LoadFileScheduling

from imgsearch import objects
from imgsearch.cli import main
from imgsearch.encoders.factory import open_encoder
from imgsearch.encoders.request import EncoderRequest
from imgsearch.ingest import ingest
from imgsearch.stores import VectorStore, open_store
from tools import s3
from tools import weaviate as servers

# How long an example takes says nothing on a machine that does other things, too.
hypothesis.settings.register_profile("imgsearch", deadline=None)
hypothesis.settings.load_profile("imgsearch")

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "sample_data"


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return the workers for `-n auto`: most tests wait, so more workers than cores help."""
    return min(8, max(4, os.cpu_count() or 1))


# One worker runs all files of a group: what they import takes a worker seconds.
_WITH_TORCH = (
    "test_torch_encoder.py",
    "test_onnx_encoder.py",
    "test_torch_devices.py",
    "test_networks.py",
    "test_without_torch.py",
    "test_devices.py",
    "test_models_command.py",
    "test_weights.py",
)
_WITH_GRADIO = ("test_page.py", "test_page_files.py", "test_page_guards.py", "test_serve_memory.py")
_GROUP = dict.fromkeys(_WITH_TORCH, "torch") | dict.fromkeys(_WITH_GRADIO, "the page")
# The files that take longest, so that no worker is left with one of them at the end.
_LONGEST_FILES = (
    *_GROUP,
    "test_readme.py",
    "test_commands_on_stores.py",
    "test_weaviate_faults.py",
    "test_weaviate_store.py",
    "test_interrupts.py",
    "test_lance_store.py",
    "test_image_index.py",
    "test_cli.py",
    "test_metadata_ownership.py",
    "test_serve_weaviate.py",
    "test_weaviate_writers.py",
    "test_sites.py",
    "test_bench.py",
    "test_serve_middleware.py",
    "test_weaviate_server.py",
    "test_tables.py",
    "test_memory.py",
    "test_serve_jobs.py",
    "test_int8.py",
    "test_older_collections.py",
    "test_mutated_files.py",
    "test_serve_openapi.py",
)


class _Groups(LoadFileScheduling):
    """Give each worker a whole file or a whole group of files."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return _GROUP.get(Path(file).name, file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Groups | None:
    """Replace the scheduler of `--dist loadfile`."""
    return _Groups(config, log) if config.option.dist == "loadfile" else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first; `make test` tells pytest-xdist to keep this order."""
    rank = {name: number for number, name in enumerate(_LONGEST_FILES)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


def _xdist() -> bool:
    return "PYTEST_XDIST_WORKER" in os.environ


def _made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder of this run that `make` fills; xdist's workers share it."""
    base = factory.getbasetemp().parent if _xdist() else factory.getbasetemp()
    folder, part = base / name, base / f"{name}.part"
    with FileLock(base / f"{name}.lock"):
        if not folder.exists():
            shutil.rmtree(part, ignore_errors=True)
            make(part)
            part.rename(folder)
    return folder


def _export(home: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMGSEARCH_HOME", str(home))
        encoder = open_encoder(EncoderRequest("efficientnet-lite0", device="cpu"))
        size = encoder.preprocessing.size
        encoder.encode(np.zeros((1, size, size, 3), np.uint8))  # which writes the optimized form


@pytest.fixture(scope="session")
def exported_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models as exported for ONNX Runtime: tests share them.

    Workers of xdist share the export, and not the folder, which records the model used last.
    """
    folder = tmp_path_factory.mktemp("models")
    if _xdist():
        made = _made_once(tmp_path_factory, "exported", _export)
        shutil.copytree(made / "models", folder, dirs_exist_ok=True)
    return folder


def _set_home(patch: pytest.MonkeyPatch, home: Path, models: Path) -> None:
    for name in list(os.environ):
        if name.startswith("IMGSEARCH_") and name != "IMGSEARCH_NO_SKIPS":
            patch.delenv(name)
    (home / "models").symlink_to(models)
    patch.setenv("IMGSEARCH_HOME", str(home))
    patch.setenv("IMGSEARCH_SITE", "tests")  # else each home would be a machine of its own
    patch.setenv("TORCH_HOME", str(home / "torch"))


@pytest.fixture(scope="session", autouse=True)
def _shared_home(tmp_path_factory: pytest.TempPathFactory, exported_models: Path) -> Iterator[None]:
    """The home of fixtures that outlive a test."""
    with pytest.MonkeyPatch.context() as patch:
        _set_home(patch, tmp_path_factory.mktemp("home"), exported_models)
        yield


@pytest.fixture(autouse=True)
def _own_home(
    tmp_path_factory: pytest.TempPathFactory,
    exported_models: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No test reads or writes what the user has: data, settings, caches of weights."""
    _set_home(monkeypatch, tmp_path_factory.mktemp("home"), exported_models)
    monkeypatch.setenv("COLUMNS", "120")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With IMGSEARCH_NO_SKIPS set, as in continuous integration, a skip is a failure."""
    report = yield
    if report.skipped and os.environ.get("IMGSEARCH_NO_SKIPS") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which is not allowed here: {report.longrepr}"
    return report


Painter = Callable[..., Path]


@pytest.fixture
def paint(tmp_path: Path) -> Painter:
    """Paints an image of its own for each seed: `paint("shop/red.jpg", 1)` gives its path."""

    def paint_one(name: str, seed: int, size: tuple[int, int] = (64, 48)) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST).save(path, quality=95)
        return path

    return paint_one


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Result]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs the command in this process: `cli("query", path, stdin=b"...")`."""

    def run(*words: object, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "argv", ["imgsearch", *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as stopped:
            main()
        printed = capsys.readouterr()
        code = stopped.value.code
        return Result(code if isinstance(code, int) else int(bool(code)), printed.out, printed.err)

    return run


def _ingest_samples(folder: Path) -> None:
    with open_store(str(folder / "store")) as store:
        ingest([str(SAMPLES)], store, "images", EncoderRequest("efficientnet-lite0"))


@pytest.fixture(scope="session")
def sample_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a store with sample_data in it, by the real efficientnet-lite0. Only to read."""
    return str(_made_once(tmp_path_factory, "samples", _ingest_samples) / "store")


def _available() -> None:
    if reason := servers.available():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def one_node() -> Iterator[str]:
    """The URL of a Weaviate server, which tests neither stop nor configure."""
    _available()
    with servers.serving() as url:
        yield url


@pytest.fixture(scope="session")
def three_nodes() -> Iterator[str]:
    """The URL of a Weaviate cluster, with every record on all of its nodes.

    Every node is asked each time: a quorum lets one lag behind what was just written or deleted.
    """
    _available()
    with servers.running(nodes=3) as cluster:
        yield f"{cluster.url}&replication=3&consistency=ALL"


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The URL of an S3 server, whose bucket `tests` exists."""
    if reason := s3.available():
        pytest.skip(reason)
    with s3.serving() as url:
        s3.make_bucket(url, "tests")
        yield url


@pytest.fixture
def s3_settings(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment has the settings of the S3 server, and few retries wait for it."""
    for name, value in s3.environment(s3_endpoint).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(objects, "_RETRIES", 2)


@pytest.fixture
def own_server() -> Callable[..., AbstractContextManager[servers.Cluster]]:
    """`own_server(nodes=1, environment={...})` runs servers that the test may kill."""
    _available()
    return servers.running


def _mount(*words: object) -> None:
    command = ["mount", *map(str, words)]
    if sys.platform != "linux" or os.geteuid() or subprocess.run(command).returncode:
        pytest.skip("needs to mount a file system, which root on Linux may")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    place = tmp_path / "small"
    place.mkdir()
    _mount("-t", "tmpfs", "-o", "size=4m", "tmpfs", place)
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def read_only() -> Iterator[Callable[[Path], None]]:
    """Makes a folder, with all in it, read-only until the end of the test, for root as well."""
    mounted: list[Path] = []

    def protect(folder: Path) -> None:
        _mount("--bind", folder, folder)
        mounted.append(folder)
        _mount("-o", "remount,bind,ro", folder)

    yield protect
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(params=["embedded", pytest.param("server", marks=pytest.mark.weaviate)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VectorStore]:
    """Each kind of store: the embedded one, and a real Weaviate."""
    server = request.param == "server"
    url = request.getfixturevalue("one_node") if server else str(tmp_path / "store")
    with open_store(url, 30) as opened:
        yield opened
