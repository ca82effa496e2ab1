"""The driver of a cluster, with workers in this process; tests/test_ray.py has real ones."""

import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imgsearch import config
from imgsearch.cluster import ClusterStages, cores
from imgsearch.cluster import worker as worker_module
from imgsearch.cluster.chunks import MAX_LOSSES_OF_ONE, Chunk
from imgsearch.encoders.onnx import transfer
from imgsearch.encoders.request import EncoderRequest
from imgsearch.errors import (
    ClusterError,
    CollectionMismatchError,
    SourceError,
    UnreadableModelError,
)
from imgsearch.events import Event, Listener, Outcome, ignore
from imgsearch.ingest import IngestOptions, IngestReport, ingest
from imgsearch.ingest.items import Item
from imgsearch.sources import Candidate
from imgsearch.stores import open_store
from imgsearch.stores.base import VectorStore
from tests import tiny_model
from tests.clusters import EngineHere, Opener
from tests.conftest import Cli, Painter
from tests.fakes import ColorEncoder


@pytest.fixture
def photos(paint: Painter, tmp_path: Path) -> Path:
    """Ten images, of which two are equal, and a file that is none."""
    for number in range(9):
        paint(f"photos/{number}.png", number)
    (tmp_path / "photos" / "copy.png").write_bytes((tmp_path / "photos/0.png").read_bytes())
    (tmp_path / "photos" / "bad.png").write_text("no image")
    return tmp_path / "photos"


@pytest.fixture
def lance(tmp_path: Path) -> VectorStore:
    return open_store(str(tmp_path / "store"))


def run(
    store: VectorStore,
    folder: Path,
    engine: EngineHere,
    listener: Listener = ignore,
    **options: Any,
) -> IngestReport:
    stop = options.pop("stop", None)
    opener = options.pop("opener", Opener())
    elsewhere = ClusterStages(
        engine, opener, EncoderRequest(), None, config.DEFAULT_MAX_PIXELS, listener
    )
    return ingest(
        [str(folder)],
        store,
        "images",
        options=IngestOptions(**options),
        listener=listener,
        stop=stop,
        encoder_opener=opener,
        elsewhere=elsewhere,
    )


def counts(report: IngestReport) -> tuple[int, int, int, int, int]:
    return report.found, report.indexed, report.reused, report.skipped, report.rejected


def having(name: str) -> Callable[[Sequence[Candidate]], bool]:
    return lambda chunk: any(os.path.basename(each.path) == name for each in chunk)


def test_counts_and_vectors_are_those_of_a_local_ingest(
    lance: VectorStore, photos: Path, tmp_path: Path
) -> None:
    report = run(lance, photos, EngineHere())
    with open_store(str(tmp_path / "other")) as other:
        local = ingest([str(photos)], other, "images", encoder_opener=ColorEncoder().open)
        assert counts(report) == counts(local) == (11, 9, 1, 0, 1)
        assert report.problems == local.problems
        mine, its = lance.open("images"), other.open("images")
        ids = [record.id for batch in its.scan() for record in batch]
        assert mine.lookup(ids) == its.lookup(ids)
        vectors = its.vectors_by_id(ids)
        assert all((mine.vectors_by_id(ids)[each] == vectors[each]).all() for each in ids)
    assert counts(run(lance, photos, EngineHere())) == (11, 0, 0, 10, 1)


def test_equal_images_of_different_chunks_have_equal_vectors(
    lance: VectorStore, photos: Path
) -> None:
    report = run(lance, photos, EngineHere(chunk_size=1))
    assert (report.indexed, report.reused) == (9, 1)


def test_an_image_that_kills_its_worker_is_rejected_and_no_other(
    lance: VectorStore, photos: Path
) -> None:
    outcomes: list[Outcome] = []

    def listen(event: Event) -> None:
        if isinstance(event, Outcome):
            outcomes.append(event)

    engine = EngineHere(loses=having("3.png"), chunk_size=16)
    report = run(lance, photos, engine, listen)
    assert counts(report) == (11, 8, 1, 0, 2)
    assert len({each.uri for each in outcomes}) == len(outcomes) == 11
    (deadly,) = [each for each in report.problems if each.uri.endswith("3.png")]
    assert "its worker died each of 3 times: it was unplugged" in deadly.reason
    assert sum(names == ["3.png"] for names in engine.submitted) == MAX_LOSSES_OF_ONE


def test_a_lost_chunk_is_done_again_and_counted_once(lance: VectorStore, photos: Path) -> None:
    lost: list[Sequence[Candidate]] = []

    def loses_first(chunk: Sequence[Candidate]) -> bool:
        lost.append(chunk)
        return len(lost) == 1

    report = run(lance, photos, EngineHere(loses=loses_first))
    assert counts(report) == (11, 9, 1, 0, 1)
    assert report.cluster
    assert report.cluster.to_dict()["lost_chunks"] == 1
    assert report.cluster.nodes == {"node": 11}


def test_when_every_chunk_is_lost_the_run_fails_instead_of_rejecting_all(
    lance: VectorStore, photos: Path
) -> None:
    with pytest.raises(ClusterError, match=r"in a row were lost.*unplugged"):
        run(lance, photos, EngineHere(loses=lambda _: True, chunk_size=1))


def test_no_more_chunks_are_in_flight_than_the_workers_need(
    lance: VectorStore, photos: Path
) -> None:
    most = 0

    class Watched(EngineHere):
        def finished(self, handles: Sequence[Any], seconds: float) -> Sequence[Any]:
            nonlocal most
            most = max(most, len(handles))
            return super().finished(handles, seconds)

    run(lance, photos, Watched(chunk_size=1, slots=2))
    assert most == 4


def test_a_stopped_run_does_not_count_what_is_in_flight(lance: VectorStore, photos: Path) -> None:
    stop = threading.Event()

    def stop_it(chunk: Sequence[Candidate]) -> bool:
        stop.set()
        return False

    engine = EngineHere(loses=stop_it, chunk_size=2)
    report = run(lance, photos, engine, stop=stop)
    assert report.interrupted
    assert report.found == report.indexed + report.reused + report.rejected == 2
    assert engine.cancelled
    assert run(lance, photos, EngineHere()).found == 11


def test_a_node_without_the_files_is_named(
    lance: VectorStore, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Remote(EngineHere):
        def result(self, handle: Any) -> worker_module.Result:
            result = super().result(handle)
            gone = [replace(each, status="rejected", missing=True) for each in result.images]
            return replace(result, images=gone)

    with pytest.raises(SourceError, match=r"\.png: node node does not have this file"):
        run(lance, photos, Remote())


def test_a_worker_that_would_make_other_vectors_is_refused(
    lance: VectorStore, photos: Path
) -> None:
    opened: list[ColorEncoder] = []

    def open_another(*_: Any) -> ColorEncoder:
        opened.append(ColorEncoder("1" * 64 if opened else "2" * 64))
        return opened[-1]

    with pytest.raises(CollectionMismatchError, match="a worker would make other vectors"):
        run(lance, photos, EngineHere(), opener=open_another)


def test_workers_on_cpus_do_not_need_the_file_of_weights() -> None:
    request = EncoderRequest("resnet50", weights="/only/here.pth", device="cpu")
    stages = ClusterStages(EngineHere(), Opener(), request, None, 1, ignore)
    assert stages.worker_request == EncoderRequest("resnet50", device="cpu", checked=True)


def test_a_lost_chunk_is_divided_until_one_image_is_left() -> None:
    chunk = Chunk([Item(Candidate(f"/{number}.png", 1, 1)) for number in range(10)])
    assert chunk.after_loss("") == [chunk]
    parts = chunk.after_loss("")
    assert [len(part.items) for part in parts] == [2] * 5
    assert [item for part in parts for item in part.items] == chunk.items


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity")
def test_workers_have_cores_of_their_own(tmp_path: Path) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("there is only one core")

    def claimed(_: int) -> set[int]:
        cores.claim(1, tmp_path / "cores")
        return os.sched_getaffinity(0)

    try:
        with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
            first, second = one.submit(claimed, 0).result(), other.submit(claimed, 0).result()
    finally:
        while cores._held:
            cores._held.pop().release()
    assert len(first) == len(second) == 1
    assert first != second


class TestCommand:
    def test_without_ray_the_extra_is_named(
        self, cli: Cli, photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "ray", None)
        monkeypatch.delitem(sys.modules, "imgsearch.cluster.ray_engine", raising=False)
        result = cli("ingest", photos, "--on", "ray")
        assert result.code == 1
        assert "pip install 'imgsearch-cli[ray]'" in result.err

    @pytest.mark.parametrize("on", ["spark", "ray://head:10001", "head"])
    def test_other_clusters_are_refused(self, cli: Cli, photos: Path, on: str) -> None:
        result = cli("ingest", photos, "--on", on)
        assert result.code == 2
        assert "is no cluster" in result.err

    def test_a_cluster_that_is_not_there_is_an_error(self, cli: Cli, photos: Path) -> None:
        pytest.importorskip("ray")
        result = cli("ingest", photos, "--on", "127.0.0.1:9")
        assert result.code == 1
        assert "no Ray cluster on 127.0.0.1:9: Connection refused" in result.err


def test_a_node_gets_the_drivers_model_and_refuses_a_damaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(config.ENV_HOME, str(tmp_path / "driver"))
    known = tiny_model.exported(tmp_path / "tiny.pth")
    packed = transfer.pack(known.stamp)
    assert packed
    monkeypatch.setenv(config.ENV_HOME, str(tmp_path / "node"))
    assert not transfer.is_here(known.stamp)
    with pytest.raises(UnreadableModelError, match="damaged on its way"):
        transfer.unpack(known.stamp, replace(packed, files=packed.files | {"spec.json": b""}))
    assert not transfer.is_here(known.stamp)
    transfer.unpack(known.stamp, packed)
    assert transfer.pack(known.stamp) == packed
