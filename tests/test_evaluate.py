"""`evaluate` computes its metrics correctly, and `imgsearch eval` prints them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imgsearch.analysis import evaluate as evaluation
from imgsearch.analysis.evaluate import DEFAULT_SAMPLE, QUERIES_PER_PASS, evaluate
from imgsearch.encoders.base import normalized
from imgsearch.errors import MetadataError
from imgsearch.events import Counted, Event, Outcome
from imgsearch.stores import open_store
from imgsearch.stores.base import Collection, VectorQuery
from imgsearch.types import Condition, ImageRecord, Scored, Stamp
from tests.conftest import Cli

STAMP = Stamp("colors", "0" * 64, "none", 2)


def filled(folder: Path, images: Sequence[tuple[float, str | None, int]]) -> Collection:
    """Return a collection of images, given by direction in degrees, kind, and content."""
    collection = open_store(str(folder)).create("images", STAMP)
    collection.add_fields({"kind": "str"})
    records = [
        ImageRecord(f"file:///{n:03}.jpg", f"{content:064x}", 1, 1, 1, 1, {"kind": k} if k else {})
        for n, (_, k, content) in enumerate(images)
    ]
    angles = np.radians([angle for angle, _, _ in images])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    collection.upsert(records, normalized(vectors))
    return collection


def test_precision_is_the_share_of_hits_with_the_querys_label(tmp_path: Path) -> None:
    images = [(0, "hat", 0), (1, "hat", 1), (90, "shoe", 2), (92, "shoe", 3), (50, None, 4)]
    report = evaluate(filled(tmp_path, images), "kind")
    assert (report.images, report.labelled, report.queries) == (5, 4, 4)
    assert report.index == report.exact
    assert report.index.p1 == 1.0
    assert report.index.p10 == pytest.approx(0.1)  # one of ten
    assert report.index.map10 == 1.0  # only one is possible
    assert report.recall == report.filtered_recall == 1.0


def test_a_wrong_first_hit_lowers_precision(tmp_path: Path) -> None:
    report = evaluate(filled(tmp_path, [(0, "hat", 0), (1, "shoe", 1), (3, "hat", 2)]), "kind")
    # Both hats find the shoe first and a hat second; the shoe has no match.
    assert report.index.p1 == 0.0
    assert report.index.map10 == pytest.approx((0.5 + 0.5 + 0.0) / 3)


def test_precision_is_measured_by_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "_FEWEST_HITS", 4)
    # Each hat is 1 degree from the other hat, and each shoe from the other shoe; both far away.
    images = [(0, "hat", 0), (1, "hat", 1), (60, "shoe", 2), (61, "shoe", 3)]
    report = evaluate(filled(tmp_path, images), "kind")
    near, middle, far = report.scores
    assert (near.hits, near.precision) == (4, 1.0)
    assert near.score == pytest.approx(np.cos(np.radians(1)), abs=1e-6)
    assert (middle.hits + far.hits, middle.precision, far.precision) == (8, 0.0, 0.0)
    assert far.score == pytest.approx(np.cos(np.radians(61)), abs=1e-6)
    assert near.percentile is None  # too few images to calibrate
    assert report.to_dict()["scores"][0]["precision"] == 1.0


def test_copies_of_the_query_are_ignored(tmp_path: Path) -> None:
    images = [(0, "hat", 7), (0, "hat", 7), (5, "shoe", 1), (9, "shoe", 2)]
    report = evaluate(filled(tmp_path, images), "kind")
    assert report.index.p1 == pytest.approx(0.5)  # from the shoes only


def test_a_sample_is_always_the_same(tmp_path: Path) -> None:
    images = [(n * 7.3 % 90, "hat" if n % 3 else "shoe", n) for n in range(60)]
    collection = filled(tmp_path, images)
    report = evaluate(collection, "kind", sample=20)
    assert report.queries == 20
    assert evaluate(collection, "kind", sample=20) == report
    assert evaluate(collection, "kind", sample=None).queries == 60


class Forgetful:
    """A collection whose index misses the best hit of each search."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._collection, name)

    def search(
        self,
        vector: Any,
        k: int,
        where: Sequence[Condition] = (),
        *,
        exact: bool = False,
        exclude_digests: Sequence[str] = (),
        share: float = 1.0,
    ) -> list[Scored]:
        answer = self._collection.search(
            vector, k + 2, where, exact=True, exclude_digests=exclude_digests, share=share
        )
        return answer[:k] if exact or where else [answer[0], *answer[2:]][:k]


def test_recall_measures_what_the_index_misses(tmp_path: Path) -> None:
    collection: Any = Forgetful(filled(tmp_path, [(n * 2.1, "hat", n) for n in range(40)]))
    report = evaluate(collection, "kind")
    assert report.recall == pytest.approx(0.9)
    assert report.filtered_recall == 1.0


class CountingPasses(Forgetful):
    """A collection that counts exact searches, and rejects one for a single query."""

    passes = 0

    def search(
        self,
        vector: Any,
        k: int,
        where: Sequence[Condition] = (),
        *,
        exact: bool = False,
        exclude_digests: Sequence[str] = (),
        share: float = 1.0,
    ) -> list[Scored]:
        assert not exact, "a pass over the collection for one query"
        return self._collection.search(
            vector, k, where, exclude_digests=exclude_digests, share=share
        )

    def search_exact(self, queries: Sequence[VectorQuery]) -> list[list[Scored]]:
        self.passes += 1
        return self._collection.search_exact(queries)


def test_many_queries_share_a_pass_over_the_collection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert DEFAULT_SAMPLE <= QUERIES_PER_PASS
    monkeypatch.setattr("imgsearch.analysis.evaluate.QUERIES_PER_PASS", 30)
    images = [(n * 1.7 % 90, "hat" if n % 3 else "shoe", n) for n in range(50)]
    collection: Any = CountingPasses(filled(tmp_path, images))
    for sample, queries, passes in ((30, 30, 1), (None, 50, 2)):
        collection.passes = 0
        events: list[Event] = []
        report = evaluate(collection, "kind", sample, events.append)
        assert (report.queries, collection.passes) == (queries, passes)
        assert events[0] == Counted(queries)
        assert sum(isinstance(each, Outcome) for each in events) == queries
        assert report.recall == report.filtered_recall == 1.0


def test_a_missing_field_is_an_error(tmp_path: Path) -> None:
    collection = filled(tmp_path, [(0, "hat", 0), (1, None, 1)])
    with pytest.raises(MetadataError, match="no such field; the collection has kind"):
        evaluate(collection, "color")
    with pytest.raises(MetadataError, match="fewer than two"):
        evaluate(collection, "kind")


def test_the_command_evaluates_a_real_model(cli: Cli, sample_store: str) -> None:
    words = ("eval", "--label", "articleType", "--store", sample_store)
    report = cli(*words, "--all", "--json").json
    assert report["queries"] == report["labelled"] > 50
    assert report["index"]["p1"] == 1.0
    assert report["recall"] == report["filtered_recall"] == 1.0
    shown = cli(*words, "--sample", "5").out
    assert "5 queries of" in shown
    assert "mAP@10" in shown
