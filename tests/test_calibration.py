"""What scores mean: percentiles, and the cut-off by chance."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imgsearch import calibration
from imgsearch.calibration import Calibration, percentile_text
from imgsearch.copying import copy
from imgsearch.encoders.base import Vectors, normalized
from imgsearch.errors import CollectionMismatchError, StoreError, UsageError
from imgsearch.events import Event, Note
from imgsearch.search import (
    SearchRequest,
    check_request,
    search_text,
    search_vector,
    search_vectors,
)
from imgsearch.stores import open_store
from imgsearch.stores.base import Collection
from imgsearch.stores.lance.collection import LanceCollection
from tests.store_contract import OTHER_STAMP, STAMP, record, write


def drawn(count: int, dimension: int = 8, seed: int = 0) -> Vectors:
    numbers = np.random.default_rng(seed).standard_normal((count, dimension))
    return normalized(numbers.astype(np.float32))


def near(vectors: Vectors, distance: float, seed: int = 1) -> Vectors:
    """Vectors whose cosine with these is 1 - distance."""
    other = drawn(len(vectors), vectors.shape[1], seed)
    across = other - (other * vectors).sum(axis=1, keepdims=True) * vectors
    cosine = 1 - distance
    return normalized(cosine * vectors + np.sqrt(1 - cosine**2) * normalized(across))


def nearest(queries: Vectors, vectors: Vectors) -> list[tuple[float, float]]:
    """The scores of the first and the tenth hit of each query."""
    found = np.sort(queries @ vectors.T, axis=1)
    return list(zip(found[:, -1].tolist(), found[:, -10].tolist(), strict=True))


def share_confident(known: Calibration, queries: Vectors, vectors: Vectors) -> float:
    return float(np.mean([known.is_confident(*each) for each in nearest(queries, vectors)]))


def test_a_percentile_is_the_share_of_pairs_that_are_less_similar() -> None:
    vectors = drawn(1000)
    known = calibration.of_vectors(vectors, 1000)
    pairs = (vectors @ vectors.T)[np.triu_indices(1000, 1)]
    assert known.pairs == len(pairs) == 499_500
    for score in (-0.5, 0.0, 0.3, 0.6, 0.8):
        assert known.percentile(score) == pytest.approx(100 * (pairs < score).mean(), abs=0.5)
    rare = 100 - known.percentile(0.9)
    assert rare == pytest.approx(100 * (pairs >= 0.9).mean(), rel=0.2)


def test_a_percentile_claims_no_more_than_was_measured() -> None:
    known = calibration.of_vectors(drawn(100), 1_000_000)
    assert known.pairs == 4950
    assert known.percentile(1.0) == known.percentile(0.9999) == pytest.approx(100 - 1000 / 4950)
    assert known.percentile(-1.0) == 0


@pytest.mark.parametrize(
    ("percentile", "text"),
    [
        (0, "0 %"),
        (50.9, "50 %"),
        (98.57, "98 %"),
        (99.98, "99.98 %"),
        (99.94299, "99.94 %"),
        (99.99878, "99.998 %"),
        (99.9997762, "99.9997 %"),
    ],
)
def test_a_percentage_is_shown_with_one_digit_beyond_the_nines(
    percentile: float, text: str
) -> None:
    assert percentile_text(percentile) == text


def test_few_images_without_a_counterpart_have_a_confident_hit() -> None:
    vectors, unknown = drawn(2000), drawn(1000, seed=7)
    known = calibration.of_vectors(vectors, 2000)
    assert share_confident(known, unknown, vectors) < 0.08
    assert share_confident(known, near(vectors[:500], 0.01), vectors) > 0.95


def test_counterparts_in_a_collection_do_not_hide_others() -> None:
    vectors = drawn(2000)
    with_counterparts = np.concatenate([vectors, near(vectors[:200], 0.001)])
    mixed = np.random.default_rng(3).permutation(with_counterparts)
    known = calibration.of_vectors(mixed, len(mixed))
    assert known.counterparts == pytest.approx(400 / 2200, abs=0.03)
    assert share_confident(known, near(vectors[500:1000], 0.01), mixed) > 0.95
    assert share_confident(known, drawn(1000, seed=7), mixed) < 0.08


def test_a_threshold_grows_with_the_collection() -> None:
    everything, unknown = drawn(8000), drawn(1000, seed=7)
    of_sample = calibration.of_vectors(everything[:1000], 8000)
    for chance in (0.02, 0.1, 0.5):
        reached = [
            score >= of_sample.threshold(chance) for score, _ in nearest(unknown, everything)
        ]
        assert np.mean(reached) == pytest.approx(chance, rel=0.5, abs=0.01)
    assert of_sample.threshold(0.1, 1000) < of_sample.threshold(0.1)


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    with open_store(str(tmp_path / "store")) as store:
        return store.create("images", STAMP)


def test_a_collection_is_calibrated_again_when_it_has_grown(collection: Collection) -> None:
    write(collection, [record(number) for number in range(100)])
    calibration.keep_current(collection)
    first = calibration.stored(collection)
    assert first is not None
    assert (first.images, first.sample) == (100, 100)
    write(collection, [record(number) for number in range(100, 140)])
    calibration.keep_current(collection)
    assert calibration.stored(collection) == first
    write(collection, [record(number) for number in range(140, 160)])
    calibration.keep_current(collection)
    again = calibration.stored(collection)
    assert again is not None
    assert again.images == 160
    collection.delete([record(number).id for number in range(120)])
    calibration.keep_current(collection)
    assert calibration.stored(collection) is None


def test_copies_of_a_content_are_no_pairs(collection: Collection) -> None:
    write(collection, [record(number, content=number % 60) for number in range(120)])
    found = calibration.calibrate(collection)
    assert found is not None
    assert found.sample == 60


def test_a_collection_of_few_images_is_not_calibrated(collection: Collection) -> None:
    write(collection, [record(number) for number in range(49)])
    calibration.keep_current(collection)
    assert calibration.stored(collection) is None
    with pytest.raises(CollectionMismatchError, match="fewer than 50 different images"):
        calibration.available(collection)


def test_a_calibration_of_other_vectors_or_versions_is_none(collection: Collection) -> None:
    write(collection, [record(number) for number in range(60)])
    calibration.keep_current(collection)
    text = collection.attachment("calibration")
    assert text
    assert calibration._parsed(text, STAMP)
    assert calibration._parsed(text, OTHER_STAMP) is None
    for other in ("", "[]", "{", text.replace('"version": 1', '"version": 2'), text[:-20]):
        collection.attach("calibration", other)
        assert calibration.stored(collection) is None


def test_an_older_collection_is_calibrated_when_needed_and_it_is_kept(
    collection: Collection,
) -> None:
    write(collection, [record(number) for number in range(60)])
    assert calibration.stored(collection) is None
    found = calibration.available(collection)
    assert calibration.stored(collection) == found


def test_who_may_not_write_calibrates_once(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(collection, [record(number) for number in range(60)])

    def refuse(*_: object) -> None:
        raise StoreError("read-only")

    monkeypatch.setattr(LanceCollection, "attach", refuse)
    found = calibration.available(collection)
    assert calibration.available(collection) is found
    notes: list[Event] = []
    calibration.keep_current(collection, notes.append)
    assert any(isinstance(each, Note) and "read-only" in each.text for each in notes)


@pytest.fixture
def large(collection: Collection) -> Collection:
    """A collection of 400 images, the first of which has 12 copies, and is calibrated."""
    records = [record(number, content=max(0, number - 12)) for number in range(412)]
    vectors = drawn(400)
    collection.upsert(records, np.concatenate([np.repeat(vectors[:1], 12, axis=0), vectors]))
    calibration.keep_current(collection)
    return collection


def found(collection: Collection, vector: Vectors, **options: Any) -> list[int]:
    """The numbers of the contents that a confident search finds, which many searches find too."""
    request = SearchRequest(vector=vector, confident=True, **options)
    hits = search_vector(collection, vector, request)
    assert search_vectors(collection, np.stack([vector, vector]), [request, request]) == [hits] * 2
    return [int(hit.record.sha256, 16) for hit in hits]


@pytest.mark.parametrize("k", [1, 20])
def test_a_confident_search_finds_a_counterpart_and_nothing_else(large: Collection, k: int) -> None:
    again = near(drawn(400), 0.003)
    assert found(large, again[5], k=k) == [5]
    assert found(large, again[0], k=k) == [0]
    unknown = drawn(20, seed=7)
    assert sum(len(found(large, each, k=k)) for each in unknown) <= 2


def test_a_confident_search_shows_every_copy(large: Collection) -> None:
    again = near(drawn(400), 0.003)
    assert found(large, again[0], k=20, collapse=False) == [0] * 13
    assert found(large, again[0], k=2, collapse=False) == [0] * 2
    sha256 = record(0).sha256
    assert found(large, again[0], k=20, exclude_digests=[sha256]) == []


def test_a_search_by_words_alone_has_neither_percentiles_nor_confidence(large: Collection) -> None:
    large.add_fields({"name": "str"})
    large.update_metadata({record(3).id: {"name": "hat"}})
    assert [hit.percentile for hit in search_text(large, SearchRequest(text="hat"))] == [None]
    with pytest.raises(UsageError, match="confident needs an image"):
        check_request(SearchRequest(text="hat", confident=True))
    both = SearchRequest(text="hat", confident=True)
    again = near(drawn(400), 0.003)[5]
    assert [int(hit.record.sha256, 16) for hit in search_vector(large, again, both)] == [5]


def test_a_copy_is_calibrated(tmp_path: Path) -> None:
    with open_store(str(tmp_path / "a")) as source, open_store(str(tmp_path / "b")) as target:
        write(source.create("images", STAMP), [record(number) for number in range(60)])
        copy(source, target, "images", "copied")
        found = calibration.stored(target.open("copied"))
    assert found is not None
    assert replace(found, made="") == replace(found, made="", images=60)
