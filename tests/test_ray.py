"""An ingest on real Ray clusters of several nodes on this machine."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from imgsearch.cluster import open_cluster
from imgsearch.encoders.request import EncoderRequest
from imgsearch.errors import ClusterError, SourceError
from imgsearch.events import Event, Outcome
from imgsearch.index import ImageIndex
from imgsearch.ingest import IngestReport
from imgsearch.stores.base import VectorStore
from tests.clusters import Opener
from tests.conftest import Painter

# Ray leaves sockets to the garbage collector.
pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray, of the extra ray, is not installed"),
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
IMAGES = 300


class Nodes:
    """A cluster whose head has no cores, and nodes of one core each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "object_store_memory": 80 << 20, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address: str = self._cluster.address
        self.workers: list[Any] = []

    def add(self) -> Any:
        self.workers.append(self._cluster.add_node(num_cpus=1, object_store_memory=80 << 20))
        return self.workers[-1]

    def kill(self, node: Any) -> None:
        """End a node's raylet as a machine that loses its power does."""
        self.workers.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)

    def close(self) -> None:
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    from imgsearch.cluster import ray_engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_engine, "CHUNK", 16)  # so that every worker is busy throughout
        # Else it listens on all interfaces.
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_health_check_period_ms", "1000")
        patch.setenv("RAY_health_check_failure_threshold", "3")
        patch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
        cluster = Nodes()
        try:
            cluster.add()
            cluster.add()
            yield cluster
        finally:
            cluster.close()


@pytest.fixture(autouse=True)
def _empty(request: pytest.FixtureRequest) -> None:
    """The server holds what the previous test wrote."""
    if "store" in request.fixturenames:
        store = request.getfixturevalue("store")
        if "images" in store.names():
            store.drop("images")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(IMAGES):
        color = (number % 16 * 15, number // 16 * 12, 99)
        Image.new("RGB", (32, 32), color).save(folder / f"{number:03}.png")
    return folder


def ingest(
    store: VectorStore, nodes: Nodes, folder: Path, seconds: float = 0.0, **options: Any
) -> IngestReport:
    with ImageIndex("images", store=store, encoder_opener=Opener(seconds)) as index:
        return index.add(folder, on=nodes.address, workers=1, **options)


def counts(report: IngestReport) -> tuple[int, int, int, int, int]:
    return report.found, report.indexed, report.reused, report.skipped, report.rejected


def check_complete(store: VectorStore, nodes: Nodes, folder: Path) -> None:
    """The store has each image once, and another run finds nothing to do."""
    uris = [uri for batch in store.open("images").uris() for uri in batch]
    assert len(uris) == len(set(uris)) == IMAGES
    assert counts(ingest(store, nodes, folder)) == (IMAGES, 0, 0, IMAGES, 0)


def test_the_nodes_share_the_images(store: VectorStore, nodes: Nodes, photos: Path) -> None:
    report = ingest(store, nodes, photos, seconds=0.01)
    assert counts(report) == (IMAGES, IMAGES, 0, 0, 0)
    assert report.verified
    assert report.cluster
    assert len(report.cluster.nodes) == report.cluster.workers == 2
    assert sum(report.cluster.nodes.values()) == IMAGES
    check_complete(store, nodes, photos)


def test_a_node_that_dies_costs_no_image(
    store: VectorStore, nodes: Nodes, photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    outcomes: dict[str, int] = {}

    def listen(event: Event) -> None:
        if isinstance(event, Outcome):
            outcomes[event.uri] = outcomes.get(event.uri, 0) + 1
            if len(outcomes) == 1:
                nodes.kill(nodes.workers[0])

    try:
        report = ingest(store, nodes, photos, seconds=0.05, listener=listen)
    finally:
        nodes.add()
    assert counts(report) == (IMAGES, IMAGES, 0, 0, 0)
    assert set(outcomes.values()) == {1}
    assert capfd.readouterr().out == ""  # Ray prints much about it
    check_complete(store, nodes, photos)


def test_an_image_that_kills_its_worker_is_rejected_by_name(
    store: VectorStore, nodes: Nodes, paint: Painter, tmp_path: Path
) -> None:
    for number in range(20):
        paint(f"some/{number}.png", number)
    Image.new("RGB", (32, 32), (255, 255, 255)).save(tmp_path / "some" / "deadly.png")
    report = ingest(store, nodes, tmp_path / "some")
    assert counts(report) == (21, 20, 0, 0, 1)
    assert report.problems[0].uri.endswith("deadly.png")
    assert "its worker died each of 3 times: its process died" in report.problems[0].reason


def test_a_driver_that_is_killed_goes_on_where_it_was(
    nodes: Nodes, photos: Path, tmp_path: Path
) -> None:
    script = (
        "import sys; from imgsearch.index import ImageIndex; from tests.clusters import Opener\n"
        "index = ImageIndex('images', store=sys.argv[1], encoder_opener=Opener(0.02))\n"
        "index.add(sys.argv[2], on=sys.argv[3], workers=1, "
        "listener=lambda event: print(event, flush=True))"
    )
    place = str(tmp_path / "store")
    with subprocess.Popen(
        [sys.executable, "-c", script, place, photos, nodes.address],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
    ) as driver:
        assert driver.stdout
        written = sum(1 for _ in _until(driver.stdout, "indexed"))
        driver.send_signal(signal.SIGKILL)
    assert written
    from imgsearch.stores import open_store

    with open_store(place) as store:
        before = store.open("images").count()
        report = ingest(store, nodes, photos)
        assert report.found == IMAGES
        assert report.skipped == before > 0
        assert report.indexed == IMAGES - before
        check_complete(store, nodes, photos)


def _until(lines: Iterator[str], word: str) -> Iterator[str]:
    for line in lines:
        yield line
        if word in line:
            return


def test_ctrl_c_ends_the_run_soon_and_the_next_continues(
    store: VectorStore, nodes: Nodes, photos: Path
) -> None:
    stop = threading.Event()

    def listen(event: Event) -> None:
        if isinstance(event, Outcome):
            stop.set()

    report = ingest(store, nodes, photos, seconds=0.05, stop=stop, listener=listen)
    assert report.interrupted
    assert 0 < report.found == report.indexed < IMAGES
    again = ingest(store, nodes, photos)
    assert (again.skipped, again.indexed) == (report.indexed, IMAGES - report.indexed)


def test_nodes_of_another_version_are_refused(
    store: VectorStore, nodes: Nodes, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from imgsearch.cluster import ray_engine

    monkeypatch.setattr(ray_engine, "__version__", "9.9")
    with pytest.raises(ClusterError, match=r"has imgsearch .*, and this machine 9\.9"):
        ingest(store, nodes, photos)


def test_a_folder_that_a_node_lacks_is_named(nodes: Nodes) -> None:
    with (
        pytest.raises(SourceError, match=r"/nowhere: node .* does not have this folder"),
        open_cluster(nodes.address, Opener(), EncoderRequest(), folders=["/nowhere"], max_pixels=1),
    ):
        pass
