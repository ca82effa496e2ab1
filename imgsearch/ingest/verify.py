"""Proof that a store holds what was written to it: the count, and a sample read back."""

import random
import time
from collections.abc import Collection as Container
from collections.abc import Iterable, Sequence

import numpy as np

from imgsearch.errors import VerificationError
from imgsearch.events import Listener, Note, Stage, ignore
from imgsearch.stores.base import Collection, Vectors
from imgsearch.types import ImageRecord

# Read back after a run, whatever its size. One wrong vector in a hundred is met with 92 % chance.
_SAMPLE = 256
# A store may give a vector back in another precision; a wrong one is far from that.
_LEAST_COSINE = 0.999
# A cluster's nodes need not agree at once.
_PATIENCE_SECONDS = 10.0
_LOOK_SECONDS = 0.5


class Witness:
    """Remembers what a run does to a collection: how many records, and a sample of them."""

    def __init__(self, collection: Collection | None) -> None:
        """None is a collection that the run is yet to make."""
        self._expected = collection.count() if collection else 0
        self._sample: dict[str, tuple[str, Vectors]] = {}
        self._seen = 0
        self._random = random.Random(0)  # noqa: S311  (no secret)

    def wrote(
        self,
        records: Sequence[ImageRecord],
        vectors: Vectors,
        known: Container[str],
        refused: Container[str],
    ) -> None:
        """Records were written; `known` are ids that were there before, `refused` those not in."""
        for record, vector in zip(records, vectors, strict=True):
            if record.id in refused:
                continue
            self._expected += record.id not in known
            self._choose(record, vector)

    def _choose(self, record: ImageRecord, vector: Vectors) -> None:
        """Every record has the same chance; one that is written again replaces itself."""
        self._seen += 1
        if record.id not in self._sample and len(self._sample) >= _SAMPLE:
            if self._random.randrange(self._seen) >= _SAMPLE:
                return
            del self._sample[self._random.choice(list(self._sample))]
        self._sample[record.id] = (record.sha256, vector.copy())

    def removed(self, ids: Iterable[str], count: int) -> None:
        """Records were removed; `count` of the ids had one."""
        self._expected -= count
        for each in ids:
            self._sample.pop(each, None)

    def check(self, collection: Collection, listener: Listener = ignore) -> None:
        """Raises VerificationError if a record is missing, or a sampled one is another."""
        listener(Stage("verifying"))
        self._check_count(collection, listener)
        self._check_sample(collection)

    def _check_count(self, collection: Collection, listener: Listener) -> None:
        until = time.monotonic() + _PATIENCE_SECONDS
        while (there := collection.count()) < self._expected and time.monotonic() < until:
            time.sleep(_LOOK_SECONDS)
        if there < self._expected:
            raise VerificationError(
                f"collection {collection.name} holds {there:,} records, and should hold "
                f"{self._expected:,}: is something else removing from it? Run it again: what is "
                "missing is written anew"
            )
        if there > self._expected:
            more = there - self._expected
            listener(Note(f"{more:,} records more than this run knows of: others write here too"))

    def _check_sample(self, collection: Collection) -> None:
        ids = list(self._sample)
        records, vectors = collection.lookup(ids), collection.vectors_by_id(ids)
        wrong = [each for each in ids if not self._agrees(each, records, vectors)]
        if wrong:
            raise VerificationError(
                f"collection {collection.name}: of {len(ids)} records that were read back, "
                f"{len(wrong)} are missing or hold another vector, for example {wrong[0]}; remove "
                "them with `imgsearch remove` and run it again"
            )

    def _agrees(
        self, each: str, records: dict[str, ImageRecord], vectors: dict[str, Vectors]
    ) -> bool:
        digest, vector = self._sample[each]
        if each not in records or each not in vectors or records[each].sha256 != digest:
            return False
        found = vectors[each]
        return found.shape == vector.shape and bool(np.dot(found, vector) >= _LEAST_COSINE)
