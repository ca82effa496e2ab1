"""The ingest pipeline: the outcome of each file, in repeated runs and after failures."""

import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from PIL import Image

from imgsearch import images
from imgsearch.encoders.request import EncoderRequest
from imgsearch.errors import (
    CollectionMismatchError,
    DeviceMemoryError,
    MetadataError,
    NothingFoundError,
    SourceError,
    StoreError,
)
from imgsearch.events import Counted, Event, Note, Outcome
from imgsearch.ingest import IngestOptions, IngestReport, ingest, limits
from imgsearch.stores import VectorStore, open_store
from imgsearch.stores.base import StoredVector, Vectors
from imgsearch.stores.lance.collection import LanceCollection
from imgsearch.types import ImageRecord
from imgsearch.uris import path_to_uri, record_id
from tests.conftest import Painter
from tests.fakes import ColorEncoder

Run = Callable[..., IngestReport]
Shop = Callable[[int], Path]


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VectorStore]:
    with open_store(str(tmp_path_factory.mktemp("store"))) as opened:
        yield opened


@pytest.fixture
def encoder() -> ColorEncoder:
    return ColorEncoder()


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def run(store: VectorStore, encoder: ColorEncoder, events: list[Event]) -> Run:
    """Ingest into "images" with a small encoder; options by keyword. Checks the counts."""

    def run_once(*sources: Path | str, **options: Any) -> IngestReport:
        events.clear()
        extra = {name: options.pop(name) for name in ("stdin", "stop") if name in options}
        report = ingest(
            [str(source) for source in sources],
            store,
            "images",
            EncoderRequest(),
            IngestOptions(**{"batch_size": 4, "workers": 2} | options),
            listener=events.append,
            encoder_opener=encoder.open,
            **extra,
        )
        reported = Counter(event.status for event in events if isinstance(event, Outcome))
        assert report.found == report.indexed + report.reused + report.skipped + report.rejected
        for status in ("indexed", "reused", "skipped", "rejected", "removed"):
            assert reported[status] == getattr(report, status), status
        return report

    return run_once


@pytest.fixture
def shop(paint: Painter) -> Shop:
    """Paint a folder of images: 000.png, 001.png, ..."""

    def painted(count: int) -> Path:
        return [paint(f"shop/{number:03}.png", number) for number in range(count)][-1].parent

    return painted


def counts(report: IngestReport) -> tuple[int, int, int, int]:
    return report.indexed, report.reused, report.skipped, report.rejected


def paths(store: VectorStore) -> dict[str, ImageRecord]:
    return {record.path: record for batch in store.open("images").scan() for record in batch}


def reasons(events: list[Event]) -> dict[str, str]:
    return {
        event.uri.rpartition("/")[2]: event.reason
        for event in events
        if isinstance(event, Outcome) and event.status != "skipped"
    }


def test_every_image_becomes_a_record(run: Run, store: VectorStore, paint: Painter) -> None:
    painted = [paint(f"shop/{number}.png", number, size=(60 + number, 40)) for number in range(11)]
    report = run(painted[0].parent)
    assert counts(report) == (11, 0, 0, 0)
    records = paths(store)
    assert set(records) == {str(path) for path in painted}
    one = records[str(painted[3])]
    assert (one.width, one.height) == (63, 40)
    assert one.size == painted[3].stat().st_size
    assert one.mtime_ns == painted[3].stat().st_mtime_ns


def test_unchanged_files_are_skipped_without_being_opened(
    run: Run, encoder: ColorEncoder, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shop(5)
    run(folder)

    def never(path: str) -> None:
        raise AssertionError(f"{path} was opened")

    monkeypatch.setattr("imgsearch.images.fingerprint", never)
    report = run(folder)
    assert counts(report) == (0, 0, 5, 0)
    assert encoder.encoded == 5
    assert (report.runtime, report.device, report.model) == (None, None, "colors")


def test_a_changed_file_is_replaced(run: Run, store: VectorStore, paint: Painter) -> None:
    path = paint("shop/a.png", 1)
    paint("shop/b.png", 2)
    run(path.parent)
    before = paths(store)[str(path)]
    paint("shop/a.png", 3, size=(99, 99))
    assert counts(run(path.parent)) == (1, 0, 1, 0)
    after = paths(store)[str(path)]
    assert len(paths(store)) == 2
    assert after.sha256 != before.sha256
    assert after.width == 99


def test_a_touched_file_reuses_its_vector(run: Run, encoder: ColorEncoder, paint: Painter) -> None:
    path = paint("shop/a.png", 1)
    run(path.parent)
    os.utime(path, ns=(1, 1))
    assert counts(run(path.parent)) == (0, 1, 0, 0)
    assert counts(run(path.parent)) == (0, 0, 1, 0)
    assert encoder.encoded == 1


def test_renamed_and_copied_files_reuse_their_vector_without_decoding(
    run: Run,
    store: VectorStore,
    encoder: ColorEncoder,
    paint: Painter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = paint("shop/a.png", 1, size=(70, 50))
    run(path.parent)
    path.rename(path.with_name("renamed.png"))
    shutil.copy(path.with_name("renamed.png"), path.with_name("copy.png"))

    def never(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr("imgsearch.images.decode", never)
    assert counts(run(path.parent, prune=True)) == (0, 2, 0, 0)
    assert encoder.encoded == 1
    records = paths(store)
    assert sorted(Path(name).name for name in records) == ["copy.png", "renamed.png"]
    assert {(each.width, each.height) for each in records.values()} == {(70, 50)}


def test_the_store_is_asked_once_for_content_that_repeats(
    run: Run, paint: Painter, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = paint("shop/a.png", 1)
    run(path.parent)
    for number in range(30):
        shutil.copy(path, path.with_name(f"copy{number:02}.png"))
    asked: list[str] = []
    vectors_by_digest = LanceCollection.vectors_by_digest

    def note(collection: LanceCollection, digests: Sequence[str]) -> dict[str, StoredVector]:
        asked.extend(digests)
        return vectors_by_digest(collection, digests)

    monkeypatch.setattr(LanceCollection, "vectors_by_digest", note)
    assert counts(run(path.parent)) == (0, 30, 1, 0)
    assert len(asked) == 1


def test_records_are_read_only_of_files_that_changed_or_have_a_row_in_a_table(
    run: Run, shop: Shop, paint: Painter, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    lookup = LanceCollection.lookup

    def note(collection: LanceCollection, ids: Sequence[str]) -> dict[str, ImageRecord]:
        read.extend(ids)
        return lookup(collection, ids)

    folder = shop(8)
    run(folder)
    monkeypatch.setattr(LanceCollection, "lookup", note)
    assert counts(run(folder)) == (0, 0, 8, 0)
    assert read == []
    changed = paint("shop/003.png", 103)
    assert counts(run(folder)) == (1, 0, 7, 0)
    assert set(read) == {record_id(path_to_uri(str(changed)))}
    read.clear()
    (folder / "styles.csv").write_text("id,kind\n5,shoe\n")
    assert counts(run(folder)) == (0, 1, 7, 0)
    assert len(set(read)) == 8


def test_known_content_is_asked_for_many_files_at_once_unless_they_are_large(
    run: Run, paint: Painter, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    vectors_by_digest = LanceCollection.vectors_by_digest

    def note(collection: LanceCollection, digests: Sequence[str]) -> dict[str, StoredVector]:
        asked.append(len(digests))
        return vectors_by_digest(collection, digests)

    monkeypatch.setattr(LanceCollection, "vectors_by_digest", note)
    monkeypatch.setattr(limits, "ALERT_SECONDS", 60.0)
    folder = paint("shop/first.png", 0).parent
    run(folder)
    for number in range(40):
        paint(f"shop/{number}.png", 1 + number)
    assert counts(run(folder)) == (40, 0, 1, 0)
    assert asked == [40]
    monkeypatch.setattr(limits, "REUSE_BYTES", 1)
    for number in range(12):
        paint(f"shop/large{number}.png", 100 + number)
    assert counts(run(folder)) == (12, 0, 41, 0)
    assert asked == [40, 4, 4, 4]


def test_vectors_that_are_not_remembered_are_read_again(
    run: Run, store: VectorStore, paint: Painter, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = [paint(f"shop/{number}.png", number) for number in range(9)].pop().parent
    run(folder)
    for number in range(18):
        shutil.copy(folder / f"{number % 9}.png", folder / f"copy{number:02}.png")
    monkeypatch.setattr(limits, "RECENT_VECTORS", 3)
    assert counts(run(folder)) == (0, 18, 9, 0)
    records = list(paths(store).values())
    vectors = store.open("images").vectors_by_id([each.id for each in records])
    by_content: dict[str, set[bytes]] = {}
    for each in records:
        by_content.setdefault(each.sha256, set()).add(vectors[each.id].tobytes())
    assert [len(each) for each in by_content.values()] == [1] * 9


def test_equal_files_in_one_run_are_encoded_once(
    run: Run, store: VectorStore, encoder: ColorEncoder, paint: Painter
) -> None:
    folder = paint("shop/a.png", 1).parent
    for number in range(30):
        shutil.copy(folder / "a.png", folder / f"copy{number:02}.png")
        paint(f"shop/other{number:02}.png", 100 + number)
    assert counts(run(folder)) == (31, 30, 0, 0)
    assert encoder.encoded == 31
    assert len(paths(store)) == 61


def test_bad_files_are_rejected_with_a_reason_and_do_not_end_the_run(
    run: Run, events: list[Event], paint: Painter
) -> None:
    folder = paint("shop/good.png", 1).parent
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("not an image")
    whole = paint("whole.png", 2).read_bytes()
    (folder / "half.png").write_bytes(whole[: len(whole) // 2])
    (folder / "gone.png").symlink_to("nowhere.png")
    report = run(folder)
    assert counts(report) == (1, 0, 0, 4)
    found = reasons(events)
    assert set(found) == {"good.png", "empty.jpg", "text.jpg", "half.png", "gone.png"}
    assert all(reason for name, reason in found.items() if name != "good.png")
    assert [problem.uri.rpartition("/")[2] for problem in report.problems] == [
        "empty.jpg",
        "gone.png",
        "half.png",
        "text.jpg",
    ]


def test_the_record_of_a_file_that_became_unreadable_is_retained(
    run: Run, store: VectorStore, events: list[Event], paint: Painter
) -> None:
    path = paint("shop/a.png", 1)
    run(path.parent)
    path.write_text("rubbish")
    assert counts(run(path.parent)) == (0, 0, 0, 1)
    assert "record of the file's previous content stays" in reasons(events)["a.png"]
    assert len(paths(store)) == 1


def test_a_rejected_file_is_retried_by_the_next_run(run: Run, paint: Painter) -> None:
    path = paint("shop/a.png", 1)
    good = path.read_bytes()
    path.write_bytes(good[:100])
    assert counts(run(path.parent)) == (0, 0, 0, 1)
    path.write_bytes(good)
    assert counts(run(path.parent)) == (1, 0, 0, 0)


def test_a_large_file_that_changes_between_two_reads_is_rejected_until_the_next_run(
    run: Run, events: list[Event], shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shop(3)
    monkeypatch.setattr(images.files, "KEEP_BYTES", 0)
    real = images.decode

    def slow(source: str | bytes, *more: Any) -> Any:
        if str(source).endswith("001.png"):
            os.utime(source, ns=(7, 7))
        return real(source, *more)

    monkeypatch.setattr(images, "decode", slow)
    assert counts(run(folder)) == (2, 0, 0, 1)
    assert "changed while it was read" in reasons(events)["001.png"]
    assert counts(run(folder)) == (1, 0, 2, 0)


def test_an_empty_folder_is_an_error_that_counts_other_files(run: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(NothingFoundError, match="1 other file"):
        run(tmp_path)


def test_a_missing_source_ends_the_run_before_anything_is_written(
    run: Run, store: VectorStore, paint: Painter
) -> None:
    folder = paint("shop/a.png", 1).parent
    with pytest.raises(SourceError, match="nothing was done"):
        run(folder, folder / "missing")
    assert store.names() == []


def test_a_run_with_only_rejections_creates_no_collection(
    run: Run, store: VectorStore, tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").touch()
    assert counts(run(tmp_path)) == (0, 0, 0, 1)
    assert store.names() == []


def test_a_list_of_paths_counts_repeated_files_once(run: Run, paint: Painter) -> None:
    painted = [paint(f"shop/{number}.png", number) for number in range(3)]
    names = [str(path) for path in painted]
    assert counts(run("-", stdin=iter([*names, names[0], "/no/such.jpg"]))) == (3, 0, 0, 1)


def test_a_limit_counts_files_found(run: Run, shop: Shop) -> None:
    folder = shop(9)
    assert counts(run(folder, limit=5)) == (5, 0, 0, 0)
    assert counts(run(folder, limit=7)) == (2, 0, 5, 0)


def test_a_batch_too_large_for_the_device_is_halved_with_a_note(
    run: Run, encoder: ColorEncoder, events: list[Event], shop: Shop
) -> None:
    folder = shop(20)
    encoder.fits = 3
    assert counts(run(folder, batch_size=16)) == (20, 0, 0, 0)
    assert max(encoder.batches) <= 3
    notes = [event.text for event in events if isinstance(event, Note)]
    assert [note.rpartition("of ")[2] for note in notes] == ["8", "4", "2"]


def test_a_single_image_too_large_for_the_device_ends_the_run(
    run: Run, encoder: ColorEncoder, paint: Painter
) -> None:
    encoder.fits = 0
    with pytest.raises(DeviceMemoryError):
        run(paint("shop/a.png", 1).parent)


def test_a_mismatching_model_is_rejected_before_it_is_loaded(
    run: Run, store: VectorStore, encoder: ColorEncoder, paint: Painter
) -> None:
    folder = paint("shop/a.png", 1).parent
    run(folder)
    with pytest.raises(CollectionMismatchError, match=r"colors.*not with resnet50"):
        ingest([str(folder)], store, "images", EncoderRequest("resnet50"))


def test_errors_of_the_encoder_reach_the_caller(store: VectorStore, paint: Painter) -> None:
    def fail(*_: object) -> ColorEncoder:
        raise StoreError("no encoder today")

    with pytest.raises(StoreError, match="no encoder today"):
        ingest([str(paint("shop/a.png", 1).parent)], store, "images", encoder_opener=fail)


def test_the_total_is_reported_for_progress_bars(run: Run, events: list[Event], shop: Shop) -> None:
    folder = shop(3)
    run(folder, count_ahead=True)
    for thread in threading.enumerate():
        if thread.name == "imgsearch-count":
            thread.join()
    assert Counted(3) in events


class TestPrune:
    def test_records_of_deleted_files_stay_without_prune(
        self, run: Run, store: VectorStore, shop: Shop
    ) -> None:
        folder = shop(4)
        run(folder)
        (folder / "000.png").unlink()
        assert run(folder).removed == 0
        assert len(paths(store)) == 4
        assert run(folder, prune=True).removed == 1
        assert len(paths(store)) == 3

    def test_other_folders_are_not_pruned(
        self, run: Run, store: VectorStore, paint: Painter
    ) -> None:
        one, two = paint("one/a.png", 1), paint("two/b.png", 2)
        paint("one/c.png", 3)
        paint("one two/d.png", 4)
        run(one.parent, two.parent, one.parent.parent / "one two")
        for path in (one, two, one.parent.parent / "one two/d.png"):
            path.unlink()
        assert run(one.parent, prune=True).removed == 1
        assert len(paths(store)) == 3

    def test_an_unmounted_drive_loses_no_record(
        self, run: Run, store: VectorStore, events: list[Event], paint: Painter
    ) -> None:
        drive, other = paint("drive/a.png", 1), paint("other/b.png", 2)
        run(drive.parent, other.parent)
        drive.unlink()
        assert run(drive.parent, other.parent, prune=True).removed == 0
        assert any(isinstance(event, Note) and "not mounted" in event.text for event in events)
        assert len(paths(store)) == 2

    def test_an_unreadable_folder_prevents_pruning(
        self,
        run: Run,
        store: VectorStore,
        events: list[Event],
        paint: Painter,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        image = paint("shop/a.png", 1)
        locked = paint("shop/locked/b.png", 2)
        run(image.parent)
        locked.unlink()
        real = os.scandir

        def guarded(path: str) -> Any:
            if str(path).endswith("locked"):
                raise PermissionError(13, "Permission denied", path)
            return real(path)

        monkeypatch.setattr("os.scandir", guarded)
        report = run(image.parent, prune=True)
        assert report.unreadable == [(str(locked.parent), "Permission denied")]
        assert report.removed == 0
        assert len(paths(store)) == 2
        assert any(isinstance(event, Note) and "nothing pruned" in event.text for event in events)


class TestMetadata:
    def test_a_styles_csv_is_found_and_joined(
        self, run: Run, store: VectorStore, paint: Painter
    ) -> None:
        folder = paint("set/images/10.png", 1).parent.parent
        paint("set/images/11.png", 2)
        (folder / "styles.csv").write_text("id,kind,year\n10,Shoes,2012\n12,Hats,2013\n13,a,b,c\n")
        report = run(folder)
        records = paths(store)
        assert dict(records[str(folder / "images/10.png")].metadata) == {
            "kind": "Shoes",
            "year": 2012,
        }
        (table,) = report.metadata
        assert (table.rows, table.malformed) == (3, [4])
        assert (table.rows_without_image, table.images_without_row) == (1, 1)

    def test_changed_metadata_updates_records_without_encoding(
        self, run: Run, store: VectorStore, encoder: ColorEncoder, paint: Painter
    ) -> None:
        folder = paint("set/1.png", 1).parent
        paint("set/2.png", 2)
        table = folder / "styles.csv"
        table.write_text("id,kind\n1,Shoes\n2,Hats\n")
        run(folder)
        table.write_text("id,kind,color\n1,Boots,red\n2,Hats,\n")
        assert counts(run(folder)) == (0, 1, 1, 0)
        assert encoder.encoded == 2
        metadata = paths(store)[str(folder / "1.png")].metadata
        assert dict(metadata) == {"kind": "Boots", "color": "red"}
        assert counts(run(folder)) == (0, 0, 2, 0)

    def test_metadata_stays_if_no_table_covers_it(
        self, run: Run, store: VectorStore, paint: Painter
    ) -> None:
        path = paint("set/1.png", 1)
        table = path.parent / "styles.csv"
        table.write_text("id,kind\n1,Shoes\n")
        run(path.parent)
        table.unlink()
        os.utime(path, ns=(5, 5))
        assert counts(run(path.parent)) == (0, 1, 0, 0)
        assert dict(paths(store)[str(path)].metadata) == {"kind": "Shoes"}

    def test_each_folder_has_its_own_table(
        self, run: Run, store: VectorStore, paint: Painter
    ) -> None:
        one, two = paint("one/1.png", 1), paint("two/1.png", 2)
        (one.parent / "styles.csv").write_text("id,kind\n1,a\n")
        (two.parent / "styles.csv").write_text("id,kind\n1,b\n")
        run(one.parent, two.parent)
        assert [each.metadata["kind"] for _, each in sorted(paths(store).items())] == ["a", "b"]

    def test_a_named_table_that_cannot_be_read_ends_the_run(
        self, run: Run, paint: Painter, tmp_path: Path
    ) -> None:
        with pytest.raises(MetadataError, match="no_such"):
            run(paint("set/1.png", 1), metadata=str(tmp_path / "no_such.csv"))

    def test_an_unusable_styles_csv_is_ignored_with_a_note(
        self, run: Run, events: list[Event], paint: Painter
    ) -> None:
        folder = paint("set/1.png", 1).parent
        (folder / "styles.csv").write_text("font,size\nbold,12\n")
        assert counts(run(folder)) == (1, 0, 0, 0)
        assert any(isinstance(event, Note) and "metadata ignored" in event.text for event in events)

    def test_a_column_with_another_type_ends_the_run_before_anything_is_written(
        self, run: Run, store: VectorStore, paint: Painter
    ) -> None:
        folder = paint("set/1.png", 1).parent
        (folder / "styles.csv").write_text("id,year\n1,2012\n")
        run(folder)
        paint("set/2.png", 2)
        (folder / "t.csv").write_text("id,year\n1,unknown\n")
        with pytest.raises(MetadataError, match=r"'year' as int.*str"):
            run(folder, metadata=str(folder / "t.csv"))
        assert len(paths(store)) == 1


class TestInterruption:
    def test_a_stop_writes_batches_in_flight_and_the_next_run_continues(
        self, run: Run, store: VectorStore, encoder: ColorEncoder, shop: Shop
    ) -> None:
        folder = shop(100)
        stop, encoder.gate = threading.Event(), threading.Event()

        def stop_soon() -> None:
            stop.set()
            assert encoder.gate
            encoder.gate.set()

        threading.Timer(0.3, stop_soon).start()
        report = run(folder, stop=stop)
        assert report.interrupted
        assert 0 < report.found < 100
        assert len(paths(store)) == report.indexed == report.found
        rest = run(folder)
        assert counts(rest) == (100 - report.indexed, 0, report.indexed, 0)

    def test_a_store_that_fails_halfway_loses_no_written_record(
        self,
        run: Run,
        store: VectorStore,
        shop: Shop,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        folder = shop(40)
        monkeypatch.setattr(limits, "WRITE_ROWS", 4)
        real = LanceCollection.upsert

        def failing(
            self: LanceCollection, records: list[ImageRecord], vectors: Vectors
        ) -> dict[str, str]:
            if self.count() >= 12:
                raise StoreError("the disk is full")
            return real(self, records, vectors)

        monkeypatch.setattr(LanceCollection, "upsert", failing)
        with pytest.raises(StoreError, match="disk is full"):
            run(folder)
        monkeypatch.setattr(LanceCollection, "upsert", real)
        assert len(paths(store)) == 12
        assert counts(run(folder)) == (28, 0, 12, 0)

    def test_records_rejected_by_the_store_are_reported_with_its_reason(
        self, run: Run, events: list[Event], shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = shop(3)
        real = LanceCollection.upsert

        def choosy(
            self: LanceCollection, records: list[ImageRecord], vectors: Vectors
        ) -> dict[str, str]:
            real(self, records[1:], vectors[1:])
            return {records[0].id: "too ugly"}

        monkeypatch.setattr(LanceCollection, "upsert", choosy)
        assert counts(run(folder)) == (2, 0, 0, 1)
        assert reasons(events)["000.png"] == "too ugly"

    def test_after_a_kill_at_any_moment_the_next_run_continues(
        self, run: Run, store: VectorStore, shop: Shop
    ) -> None:
        folder = shop(60)
        script = (
            "import sys, time\n"
            "from imgsearch import ingest\n"
            "from imgsearch.stores import open_store\n"
            "from tests.fakes import ColorEncoder\n"
            "ingest.limits.WRITE_ROWS = 4\n"
            "class Slow(ColorEncoder):\n"
            "    def encode(self, pixels):\n"
            "        time.sleep(0.05)\n"
            "        return super().encode(pixels)\n"
            "def report(event):\n"
            "    print(event.status, flush=True)\n"
            "ingest.ingest([sys.argv[1]], open_store(sys.argv[2]), 'images',\n"
            "    options=ingest.IngestOptions(batch_size=4, workers=2), listener=report,\n"
            "    encoder_opener=Slow().open)\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(folder), store.url],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(20)]
        process.kill()
        process.communicate()
        assert lines == ["indexed\n"] * 20
        written = len(paths(store))
        assert 20 <= written < 60
        assert counts(run(folder)) == (60 - written, 0, written, 0)
        assert len(paths(store)) == 60


def test_only_a_few_batches_are_read_ahead_of_encoding(
    run: Run, encoder: ColorEncoder, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shop(200)
    read: list[str] = []
    real = images.fingerprint

    def counting(path: str) -> Any:
        read.append(path)
        return real(path)

    monkeypatch.setattr("imgsearch.images.fingerprint", counting)
    monkeypatch.setattr(limits, "REUSE_FILES", 4)  # files of one question to the store
    encoder.gate = threading.Event()
    seen: list[int] = []

    def look() -> None:
        seen.append(len(read))
        assert encoder.gate
        encoder.gate.set()

    threading.Timer(1.0, look).start()
    run(folder, batch_size=4)
    assert len(read) == 200
    assert 4 <= seen[0] <= 40


@pytest.mark.parametrize(
    "name", ["ünï çode 鞋 👟.png", "new\nline.png", "per%20cent.png", "quo'te.png"]
)
def test_any_file_name_is_indexed_and_found(
    run: Run, store: VectorStore, paint: Painter, name: str
) -> None:
    path = paint(f"shop/{name}", 1)
    assert counts(run(path.parent)) == (1, 0, 0, 0)
    assert list(paths(store)) == [str(path)]
    assert paths(store)[str(path)].uri == path_to_uri(str(path))
    assert counts(run(path.parent)) == (0, 0, 1, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has names that are not UTF-8")
def test_a_name_that_is_not_utf8_is_indexed(run: Run, store: VectorStore, tmp_path: Path) -> None:
    name = os.path.join(os.fsencode(tmp_path), b"caf\xe9.png")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(os.fsdecode(name))
    assert counts(run(tmp_path)) == (1, 0, 0, 0)
    assert [os.fsencode(path) for path in paths(store)] == [name]


Action = tuple[str, int, int]
_ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["write", "spoil", "delete", "copy", "rename", "touch"]),
        st.integers(0, 5),
        st.integers(0, 5),
    ),
    max_size=8,
)


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
@given(rounds=st.lists(_ACTIONS, min_size=1, max_size=3))
def test_after_any_changes_the_store_matches_the_folder(
    rounds: list[list[Action]], run: Run, store: VectorStore, tmp_path: Path
) -> None:
    folder = tmp_path / "shop"
    shutil.rmtree(folder, ignore_errors=True)
    if "images" in store.names():
        store.drop("images")
    folder.mkdir()
    _act(folder, "write", 9, 9)
    for actions in rounds:
        for action, one, other in actions:
            _act(folder, action, one, other)
        report = run(folder, prune=True)
        good = {str(path) for path in folder.iterdir() if path.read_bytes()[:4] == b"\x89PNG"}
        spoiled = {str(path) for path in folder.iterdir()} - good
        assert report.found == len(good) + len(spoiled)
        assert report.rejected == len(spoiled)
        assert good <= set(paths(store)) <= good | spoiled
        for path in good:
            assert paths(store)[path].size == os.path.getsize(path)


def _act(folder: Path, action: str, one: int, other: int) -> None:
    path, target = folder / f"{one}.png", folder / f"{other}.png"
    if action == "write":
        blocks = np.random.default_rng(one * 7 + other).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((16 + one, 16 + other)).save(path)
    elif action == "spoil":
        path.write_text("spoiled")
    elif path.exists():
        if action == "delete":
            path.unlink()
        elif action == "copy" and path != target:
            shutil.copy(path, target)
        elif action == "rename":
            path.rename(target)
        elif action == "touch":
            os.utime(path, ns=(one * 10**9, other * 10**9))
