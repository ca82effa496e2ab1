"""Searches of a collection of 50,000 hard vectors: recall, and times as ratios of one run."""

from functools import partial
from pathlib import Path

import pytest

from benchmarks.million_data import CHUNK, FILTERS, QUERIES, Data, record
from benchmarks.million_table import median_seconds, recall_at_ten
from imgsearch.stores.base import Collection

RECORDS = 50_000

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    folder = tmp_path_factory.mktemp("many")
    return Data("hard", RECORDS, 256, folder, folder)


@pytest.fixture(scope="module")
def collection(data: Data) -> Collection:
    return data.collection()


@pytest.mark.parametrize("name", FILTERS)
def test_searches_find_what_comparing_all_finds(
    data: Data, collection: Collection, name: str
) -> None:
    where = FILTERS[name]
    answers = [collection.search(query, 10, where) for query in data.queries]
    assert len(answers) == QUERIES
    assert recall_at_ten(answers, data.exact()[name]) >= 0.98


def test_a_filtered_search_takes_a_fraction_of_comparing_all(
    data: Data, collection: Collection
) -> None:
    queries = data.queries[:8]
    all_compared = median_seconds(lambda query: collection.search(query, 10, exact=True), queries)
    for where in (FILTERS["100"], FILTERS["10 %"]):
        search = partial(collection.search, k=10, where=where)
        filtered = median_seconds(search, queries)
        assert filtered < all_compared, where


def test_searches_stay_quick_while_records_are_added(data: Data, tmp_path: Path) -> None:
    copy = data.copy(tmp_path / "copy")
    before = median_seconds(lambda query: copy.search(query, 10), data.queries)
    for chunk in range(2):
        first = RECORDS + chunk * CHUNK
        records = [record(first + each) for each in range(CHUNK)]
        copy.upsert(records, data.vectors(500_000 + chunk))
    after = median_seconds(lambda query: copy.search(query, 10), data.queries)
    assert after < 3 * before
