"""A store that loses or changes something after it said it was written is found out."""

from pathlib import Path

import numpy as np
import pytest

from imgsearch.errors import VerificationError
from imgsearch.events import Event, Note
from imgsearch.ingest import verify
from imgsearch.ingest.verify import Witness
from imgsearch.stores import open_store
from imgsearch.stores.base import Collection
from tests.store_contract import STAMP, record, vectors, write


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "_PATIENCE_SECONDS", 0.0)


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    return open_store(str(tmp_path / "store")).create("pictures", STAMP)


RECORDS = [record(number) for number in range(20)]


def written(collection: Collection) -> Witness:
    witness = Witness(collection)
    witness.wrote(RECORDS, write(collection, RECORDS), known=(), refused=())
    return witness


def test_what_is_there_is_verified(collection: Collection) -> None:
    written(collection).check(collection)


def test_a_record_that_is_missing_is_found_out(collection: Collection) -> None:
    witness = written(collection)
    collection.delete([record(3).id])
    with pytest.raises(VerificationError, match="holds 19 records, and should hold 20"):
        witness.check(collection)


def test_another_vector_is_found_out(collection: Collection) -> None:
    witness = written(collection)
    write(collection, [record(3)], seed=9)
    with pytest.raises(VerificationError, match="1 are missing or hold another vector"):
        witness.check(collection)


def test_removed_refused_and_replaced_records_are_counted_right(collection: Collection) -> None:
    witness = written(collection)
    collection.delete([record(3).id])
    witness.removed([record(3).id, record(99).id], 1)
    newer = write(collection, [record(5)], seed=9)
    witness.wrote([record(5)], newer, known={record(5).id}, refused=())
    witness.wrote([record(77)], vectors(1), known=(), refused={record(77).id})
    witness.check(collection)


def test_other_writers_are_told_of(collection: Collection) -> None:
    witness = written(collection)
    write(collection, [record(50)])
    heard: list[Event] = []
    witness.check(collection, heard.append)
    assert Note("1 records more than this run knows of: others write here too") in heard


def test_the_sample_is_bounded(monkeypatch: pytest.MonkeyPatch, collection: Collection) -> None:
    monkeypatch.setattr(verify, "_SAMPLE", 4)
    witness = written(collection)
    assert len(witness._sample) == 4
    assert np.dtype(np.float32) == next(iter(witness._sample.values()))[1].dtype
    witness.check(collection)
