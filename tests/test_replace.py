"""`ingest --model NEW --replace`: readers see the old collection until the new one is complete."""

import dataclasses
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from imgsearch.encoders.base import Vectors
from imgsearch.encoders.request import EncoderRequest
from imgsearch.errors import Remedy, StoreError
from imgsearch.events import Event, Note, Outcome, Stage
from imgsearch.images import Pixels
from imgsearch.ingest import IngestOptions, IngestReport, ingest
from imgsearch.stores.base import VectorStore
from tests.conftest import Cli, Painter
from tests.fakes import ColorEncoder
from tests.test_weaviate_store import unique_name

REPLACE = IngestOptions(batch_size=2, workers=1, replace=True)
OLD, NEW = "1" * 64, "2" * 64


@pytest.fixture
def name() -> str:
    return unique_name()


@pytest.fixture
def folder(paint: Painter) -> Path:
    for number in range(6):
        paint(f"shop/{number}.jpg", number)
    return paint("shop/6.jpg", 6).parent


def run(
    store: VectorStore, name: str, folder: Path, weights: str, options: IngestOptions = REPLACE
) -> IngestReport:
    encoder = ColorEncoder(weights)
    request = EncoderRequest("colors")
    return ingest([str(folder)], store, name, request, options, encoder_opener=encoder.open)


def test_the_new_collection_replaces_the_old_one(
    store: VectorStore, name: str, folder: Path
) -> None:
    run(store, name, folder, OLD)
    store.open(name).add_fields({"year": "int"})
    some = next(iter(store.open(name).scan()))[0]
    store.open(name).update_metadata({some.id: {"year": 2012}})
    report = run(store, name, folder, NEW)
    assert (report.indexed, report.verified) == (7, True)
    collection = store.open(name)
    assert (collection.stamp.weights, collection.count()) == (NEW, 7)
    # Metadata that a table set earlier is retained.
    assert dict(collection.lookup([some.id])[some.id].metadata) == {"year": 2012}
    assert run(store, name, folder, NEW).skipped == 7


def test_the_rate_excludes_the_preparation_of_the_model(
    store: VectorStore, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(store, name, folder, OLD)
    clock = [0.0]
    for module in ("run", "target"):
        monkeypatch.setattr(
            f"imgsearch.ingest.{module}.time", SimpleNamespace(monotonic=lambda: clock[0])
        )

    class Slow(ColorEncoder):
        def open(self, *given: Any, **named: Any) -> ColorEncoder:
            clock[0] += 1000
            return super().open(*given, **named)

        def encode(self, pixels: Pixels) -> Vectors:
            clock[0] += 1
            return super().encode(pixels)

    request = EncoderRequest("colors")
    report = ingest([str(folder)], store, name, request, REPLACE, encoder_opener=Slow(NEW).open)
    assert report.preparing == 1000
    assert report.seconds == 1004  # four batches
    assert report.images_per_second == 7 / 4


def test_readers_see_the_old_collection_until_the_switch_and_a_stopped_run_resumes(
    store: VectorStore, name: str, folder: Path
) -> None:
    run(store, name, folder, OLD)
    stop, seen = threading.Event(), set()

    def look(event: Event) -> None:
        if isinstance(event, Outcome):
            seen.add((store.open(name).stamp.weights, store.open(name).count()))
            stop.set()

    encoder = ColorEncoder(NEW)
    stopped = ingest(
        [str(folder)],
        store,
        name,
        EncoderRequest("colors"),
        REPLACE,
        listener=look,
        stop=stop,
        encoder_opener=encoder.open,
    )
    assert stopped.interrupted
    assert seen == {(OLD, 7)}
    assert store.open(name).stamp.weights == OLD
    again = run(store, name, folder, NEW)
    assert (again.skipped, again.indexed) == (stopped.indexed, 7 - stopped.indexed)
    assert store.open(name).stamp.weights == NEW


def test_missing_images_prevent_the_switch(
    store: VectorStore, name: str, folder: Path, paint: Painter
) -> None:
    other = paint("elsewhere/9.jpg", 9)
    run(store, name, folder.parent, OLD)
    with pytest.raises(StoreError, match=r"1 of its images are not among the new.*9\.jpg"):
        run(store, name, folder, NEW)
    assert (store.open(name).stamp.weights, store.open(name).count()) == (OLD, 8)
    other.unlink()
    with pytest.raises(
        StoreError, check=lambda error: error.remedies == (Remedy.PRUNE, Remedy.REMOVE)
    ):
        run(store, name, folder, NEW)
    pruning = IngestOptions(batch_size=2, workers=1, replace=True, prune=True)
    assert run(store, name, folder, NEW, pruning).skipped == 7
    assert (store.open(name).stamp.weights, store.open(name).count()) == (NEW, 7)


def test_the_command_requires_a_model(tmp_path: Path, folder: Path, cli: Cli) -> None:
    done = cli("ingest", folder, "--replace", "--store", tmp_path / "store")
    assert (done.code, "--replace needs --model, --precision" in done.err) == (2, True)


def test_a_resumed_run_restores_nothing_removed_or_changed_since(
    store: VectorStore, name: str, folder: Path, paint: Painter
) -> None:
    elsewhere = paint("elsewhere/8.jpg", 8)
    run(store, name, folder.parent, OLD)
    new = paint("shop/7.jpg", 7)
    stop = threading.Event()

    def end_at_the_check(event: Event) -> None:
        if isinstance(event, Stage):
            raise StoreError("killed before the switch")

    encoder = ColorEncoder(NEW)
    request = EncoderRequest("colors")
    with pytest.raises(StoreError, match="killed"):
        ingest(
            [str(folder.parent)],
            store,
            name,
            request,
            REPLACE,
            listener=end_at_the_check,
            stop=stop,
            encoder_opener=encoder.open,
        )
    current = store.open(name)
    current.add_fields({"year": "int"})
    by_name = {Path(each.path).name: each for batch in current.scan() for each in batch}
    assert "7.jpg" not in by_name
    current.delete([by_name["8.jpg"].id, by_name["0.jpg"].id])
    (folder / "0.jpg").unlink()
    current.update_metadata({by_name["1.jpg"].id: {"year": 2012}})
    changed = dataclasses.replace(by_name["2.jpg"], sha256="f" * 64)
    current.upsert([changed], np.full((1, 48), 48**-0.5, np.float32))
    events: list[Event] = []
    again = ingest(
        [str(folder)],
        store,
        name,
        request,
        REPLACE,
        listener=events.append,
        encoder_opener=ColorEncoder(NEW).open,
    )
    assert any(isinstance(event, Note) and "3 of its records" in event.text for event in events)
    assert (again.indexed, again.reused + again.skipped) == (1, 6)
    after = {Path(each.path).name: each for b in store.open(name).scan() for each in b}
    assert set(after) == {"1.jpg", "2.jpg", "3.jpg", "4.jpg", "5.jpg", "6.jpg", new.name}
    assert elsewhere.exists()
    assert dict(after["1.jpg"].metadata) == {"year": 2012}
    assert after["2.jpg"].sha256 == by_name["2.jpg"].sha256
