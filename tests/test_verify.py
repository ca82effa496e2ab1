"""The verifier detects a store that loses or changes records after it confirmed the write."""

from pathlib import Path

import numpy as np
import pytest

from imgsearch.errors import VerificationError
from imgsearch.events import Event, Note
from imgsearch.ingest import verify
from imgsearch.ingest.verify import WriteVerifier
from imgsearch.stores import open_store
from imgsearch.stores.base import Collection
from tests.store_contract import STAMP, record, vectors, write


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "_COUNT_SECONDS", 0.0)


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    return open_store(str(tmp_path / "store")).create("images", STAMP)


RECORDS = [record(number) for number in range(20)]


def written(collection: Collection) -> WriteVerifier:
    verifier = WriteVerifier(collection)
    verifier.record_write(RECORDS, write(collection, RECORDS), known=(), rejected=())
    return verifier


def test_intact_records_are_verified(collection: Collection) -> None:
    written(collection).check(collection)


def test_a_missing_record_is_detected(collection: Collection) -> None:
    verifier = written(collection)
    collection.delete([record(3).id])
    with pytest.raises(VerificationError, match="holds 19 records, and should hold 20"):
        verifier.check(collection)


def test_a_wrong_vector_is_detected(collection: Collection) -> None:
    verifier = written(collection)
    write(collection, [record(3)], seed=9)
    with pytest.raises(VerificationError, match="1 are missing or hold another vector"):
        verifier.check(collection)


def test_removed_rejected_and_replaced_records_are_counted(collection: Collection) -> None:
    verifier = written(collection)
    collection.delete([record(3).id])
    verifier.record_removal([record(3).id, record(99).id], 1)
    newer = write(collection, [record(5)], seed=9)
    verifier.record_write([record(5)], newer, known={record(5).id}, rejected=())
    verifier.record_write([record(77)], vectors(1), known=(), rejected={record(77).id})
    verifier.check(collection)


def test_other_writers_are_reported(collection: Collection) -> None:
    verifier = written(collection)
    write(collection, [record(50)])
    events: list[Event] = []
    verifier.check(collection, events.append)
    assert Note("1 records more than this run knows of: others write here too") in events


def test_the_sample_is_bounded(monkeypatch: pytest.MonkeyPatch, collection: Collection) -> None:
    monkeypatch.setattr(verify, "_SAMPLE", 4)
    verifier = written(collection)
    assert len(verifier._sample) == 4
    assert np.dtype(np.float32) == next(iter(verifier._sample.values()))[1].dtype
    verifier.check(collection)
