"""Verify that a store holds what was written: compare the count, and read back a sample."""

import random
import time
from collections.abc import Collection as Container
from collections.abc import Iterable, Sequence

import numpy as np

from imgsearch.errors import Remedy, VerificationError
from imgsearch.events import Listener, Note, Stage, ignore
from imgsearch.stores.base import Collection, Vectors
from imgsearch.types import ImageRecord

# Whatever the size of the run, this finds one wrong vector in a hundred with a chance of 92 %.
_SAMPLE = 256
# A store may return vectors in another precision; a wrong vector is far below.
_MIN_COSINE = 0.999
# The nodes of a cluster may need some time to agree.
_COUNT_SECONDS = 10.0
_RETRY_SECONDS = 0.5


class WriteVerifier:
    """Records what a run does to a collection: the number of records, and a sample of them."""

    def __init__(self, collection: Collection | None) -> None:
        """None stands for a collection that the run has yet to create."""
        self._expected = collection.count() if collection else 0
        self._sample: dict[str, tuple[str, Vectors]] = {}
        self._seen = 0
        self._random = random.Random(0)  # noqa: S311  (no secret)

    def record_write(
        self,
        records: Sequence[ImageRecord],
        vectors: Vectors,
        known: Container[str],
        rejected: Container[str],
    ) -> None:
        """Note a write. `known` are ids that existed before, `rejected` those not written."""
        for record, vector in zip(records, vectors, strict=True):
            if record.id in rejected:
                continue
            self._expected += record.id not in known
            self._add_to_sample(record, vector)

    def _add_to_sample(self, record: ImageRecord, vector: Vectors) -> None:
        """Reservoir sampling; a record that is written again replaces itself."""
        self._seen += 1
        if record.id not in self._sample and len(self._sample) >= _SAMPLE:
            if self._random.randrange(self._seen) >= _SAMPLE:
                return
            del self._sample[self._random.choice(list(self._sample))]
        self._sample[record.id] = (record.sha256, vector.copy())

    def record_removal(self, ids: Iterable[str], count: int) -> None:
        """Note that `count` records with these ids were removed."""
        self._expected -= count
        for each in ids:
            self._sample.pop(each, None)

    def check(self, collection: Collection, listener: Listener = ignore) -> None:
        """Raise VerificationError if records are missing or a sampled one is wrong."""
        listener(Stage("verifying"))
        self._check_count(collection, listener)
        self._check_sample(collection)

    def _check_count(self, collection: Collection, listener: Listener) -> None:
        deadline = time.monotonic() + _COUNT_SECONDS
        while (count := collection.count()) < self._expected and time.monotonic() < deadline:
            time.sleep(_RETRY_SECONDS)
        if count < self._expected:
            raise VerificationError(
                f"collection {collection.name} holds {count:,} records, and should hold "
                f"{self._expected:,}: is something else removing from it? Another ingest writes "
                "what is missing"
            )
        if count > self._expected:
            extra = count - self._expected
            listener(Note(f"{extra:,} records more than this run knows of: others write here too"))

    def _check_sample(self, collection: Collection) -> None:
        ids = list(self._sample)
        records, vectors = collection.lookup(ids), collection.vectors_by_id(ids)
        wrong = [each for each in ids if not self._agrees(each, records, vectors)]
        if wrong:
            raise VerificationError(
                f"collection {collection.name}: of {len(ids)} records that were read back, "
                f"{len(wrong)} are missing or hold another vector, for example {wrong[0]}; remove "
                "them and ingest them again",
                Remedy.REMOVE,
            )

    def _agrees(
        self, each: str, records: dict[str, ImageRecord], vectors: dict[str, Vectors]
    ) -> bool:
        digest, vector = self._sample[each]
        if each not in records or each not in vectors or records[each].sha256 != digest:
            return False
        found = vectors[each]
        return found.shape == vector.shape and bool(np.dot(found, vector) >= _MIN_COSINE)
