"""No single file ends a run, with any date or size, or any bug that it triggers."""

import os
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from imgsearch.encoders.request import EncoderRequest
from imgsearch.errors import StoreError
from imgsearch.events import Event, Outcome
from imgsearch.ingest import IngestOptions, IngestReport, ingest
from imgsearch.server.media import cache_headers
from imgsearch.stores import VectorStore, open_store
from imgsearch.stores.base import Vectors
from imgsearch.stores.lance.collection import LanceCollection
from imgsearch.types import ImageRecord, mtime_of
from tests.conftest import Painter
from tests.fakes import ColorEncoder
from tests.test_weaviate_store import unique_name

Run = Callable[..., IngestReport]


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[VectorStore]:
    with open_store(str(tmp_path / "store")) as opened:
        yield opened


def run(
    store: VectorStore,
    name: str,
    *sources: Path | str,
    events: list[Event] | None = None,
    **more: Any,
) -> IngestReport:
    return ingest(
        [str(source) for source in sources],
        store,
        name,
        EncoderRequest(),
        IngestOptions(batch_size=8, workers=2),
        encoder_opener=ColorEncoder().open,
        listener=(events if events is not None else []).append,
        **more,
    )


def _reasons(events: list[Event]) -> list[str]:
    return [event.reason for event in events if isinstance(event, Outcome) and event.reason]


def test_a_file_of_any_date_is_indexed_and_then_skipped(store: VectorStore, paint: Painter) -> None:
    name = unique_name()
    for number, year in enumerate((1, 1677, 1901, 1969, 2038, 2262, 2300, 2446, 9999)):
        path = paint(f"shop/{year}.png", number)
        seconds = int(datetime(year, 6, 1, tzinfo=UTC).timestamp())
        os.utime(path, (seconds, seconds))  # stored as far as the file system can
    assert run(store, name, path.parent).indexed == 9
    again = run(store, name, path.parent)
    assert (again.skipped, again.indexed) == (9, 0)


FIELDS = ("st_size", "st_mtime_ns", "st_atime_ns", "st_ctime_ns", "st_ino", "st_dev", "st_uid")
EXTREMES = (0, 1, -1, -(2**63), 2**63 - 1, 2**63, 2**64 - 1, 2**70)


class _Status:
    """A file's status with one field replaced."""

    def __init__(self, real: os.stat_result, field: str, value: int) -> None:
        self._real = real
        setattr(self, field, value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@pytest.mark.parametrize("field", FIELDS)
def test_no_value_of_a_stat_field_ends_the_run(
    field: str, embedded: VectorStore, paint: Painter, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = {str(paint(f"shop/{n}.png", n)): value for n, value in enumerate(EXTREMES)}
    inodes = {os.stat(path).st_ino: value for path, value in paths.items()}
    real_stat, real_fstat = os.stat, os.fstat

    def faked(status: os.stat_result) -> Any:
        odd = status.st_ino in inodes
        return _Status(status, field, inodes[status.st_ino]) if odd else status

    monkeypatch.setattr("os.stat", lambda path, **more: faked(real_stat(path, **more)))
    monkeypatch.setattr("os.fstat", lambda number: faked(real_fstat(number)))
    events: list[Event] = []
    report = run(embedded, "images", next(iter(paths)).rpartition("/")[0], events=events)
    assert report.found == len(EXTREMES) == report.indexed + report.rejected
    if field != "st_size":  # an impossible size is a reason to reject a file
        assert report.indexed == len(EXTREMES), _reasons(events)
        again = run(embedded, "images", next(iter(paths)).rpartition("/")[0])
        assert again.skipped == len(EXTREMES)


def test_different_mtimes_differ_in_records(tmp_path: Path) -> None:
    status = os.stat(tmp_path)
    values = [mtime_of(_Status(status, "st_mtime_ns", value)) for value in EXTREMES[:-1]]  # type: ignore[arg-type]
    assert values[:5] == list(EXTREMES[:5])
    assert all(-(2**63) <= value < 2**63 for value in values)
    assert len({*values[:5]}) == 5


@pytest.mark.parametrize("mtime_ns", [-(2**70), -1, 0, 2**63, 2**80])
def test_any_mtime_gives_an_http_header(mtime_ns: int) -> None:
    assert cache_headers("tag", mtime_ns)["Last-Modified"].endswith("GMT")


@pytest.mark.parametrize("stage", ["fingerprint", "decode"])
def test_an_unexpected_error_of_one_file_rejects_it_with_the_reason(
    stage: str, embedded: VectorStore, paint: Painter, monkeypatch: pytest.MonkeyPatch
) -> None:
    from imgsearch import images

    for number in range(9):
        path = paint(f"shop/{number}.png", number)
    bad = path.read_bytes()
    real = getattr(images, stage)

    def stumbling(source: str | bytes, *more: Any) -> Any:
        if source in (str(path), bad):
            raise ZeroDivisionError("by a header")
        return real(source, *more)

    monkeypatch.setattr(images, stage, stumbling)
    events: list[Event] = []
    report = run(embedded, "images", path.parent, events=events)
    assert (report.indexed, report.rejected) == (8, 1)
    assert _reasons(events) == ["unexpected ZeroDivisionError: by a header; please report it"]


def test_a_record_that_fails_in_the_store_is_rejected_and_the_others_are_written(
    embedded: VectorStore, paint: Painter, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        path = paint(f"shop/{number}.png", number)
    real = LanceCollection.upsert

    def stumbling(
        self: LanceCollection, records: Sequence[ImageRecord], vectors: Vectors
    ) -> dict[str, str]:
        if any(record.path.endswith(("3.png", "4.png")) for record in records):
            raise OverflowError("too big")
        return real(self, records, vectors)

    monkeypatch.setattr(LanceCollection, "upsert", stumbling)
    events: list[Event] = []
    report = run(embedded, "images", path.parent, events=events)
    assert (report.indexed, report.rejected, report.verified) == (7, 2, True)
    assert embedded.open("images").count() == 7
    assert _reasons(events) == ["unexpected OverflowError: too big; please report it"] * 2


@pytest.mark.parametrize("error", [OverflowError("too big"), StoreError("full")])
def test_a_store_that_accepts_nothing_ends_the_run(
    error: Exception, embedded: VectorStore, paint: Painter, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        path = paint(f"shop/{number}.png", number)

    def broken(*_: object) -> dict[str, str]:
        raise error

    monkeypatch.setattr(LanceCollection, "upsert", broken)
    with pytest.raises(type(error)):
        run(embedded, "images", path.parent)


def test_a_name_with_nul_in_a_list_is_rejected(embedded: VectorStore, paint: Painter) -> None:
    good = str(paint("shop/1.png", 1))
    report = run(embedded, "images", "-", stdin=iter(["/no\0path", good, "\0"]))
    assert (report.indexed, report.rejected) == (1, 2)
