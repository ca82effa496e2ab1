"""Recall of searches among 50,000 hard vectors; `benchmarks/million.py` measures their times."""

import pytest

from benchmarks.million_data import FILTERS, QUERIES, Data
from benchmarks.million_table import recall_at_ten
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
