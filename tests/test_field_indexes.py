"""Indexes of metadata fields: filters mean the same with them, also after changes."""

from pathlib import Path

import pytest

from imgsearch.metadata.changes import Changes
from imgsearch.stores.lance import scalar_indexes
from imgsearch.stores.lance.collection import LanceCollection
from imgsearch.stores.lance.store import LanceStore
from imgsearch.types import FIELD_TYPES, Condition, FieldType, ImageRecord, Operator, Value
from tests.store_contract import STAMP, everything, record, vectors, write

ROWS = 1200
KINDS = ["hat", "it's", "Käse", ""]
PRICES = [0.0, -0.0, 0.25, -1e300, 5e-324]
FIELDS: dict[str, FieldType] = {
    "kind": "str",
    "title": "str",
    "year": "int",
    "price": "float",
    "new": "bool",
}
VALUES: dict[str, list[Value]] = {
    "kind": ["hat", "it's", "", "missing", "i"],
    "title": ["title 7", "title"],
    "year": [3, -(2**63), 2**63 - 1, 1000],
    "price": [0.0, -0.0, 0.25, 1.0],
    "new": [True, False],
}
OPERATORS: list[Operator] = ["=", "!=", "<", "<=", ">", ">="]


def some_record(number: int) -> ImageRecord:
    if number % 7 == 0:
        return record(number)
    years = [number % 5, -(2**63), 2**63 - 1]
    return record(
        number,
        kind=KINDS[number % 4],
        title=f"title {number}",
        year=years[number % 3],
        price=PRICES[number % 5],
        new=number % 2 == 0,
    )


@pytest.fixture
def collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LanceCollection:
    monkeypatch.setattr(scalar_indexes, "MIN_ROWS", 1000)
    monkeypatch.setattr(scalar_indexes, "MAX_UNINDEXED", 50)
    monkeypatch.setattr(scalar_indexes, "_FEW_VALUES", 100)
    collection = LanceStore(tmp_path).create("images", STAMP, FIELDS)
    write(collection, [some_record(number) for number in range(ROWS)])
    collection.optimize()
    return collection


def check(collection: LanceCollection) -> None:
    """Compare the answers of all filters with the meaning of their conditions."""
    records = list(everything(collection).values())
    for field, values in VALUES.items():
        for value in values:
            for operator in OPERATORS:
                condition = Condition(field, operator, value)
                expected = sum(condition.holds(each.metadata) for each in records)
                assert collection.count([condition]) == expected, condition


def test_fields_are_indexed_but_texts_of_many_values(collection: LanceCollection) -> None:
    columns = collection._dataset.columns.by_field
    indexed = collection._maintenance.indexed_rows()
    assert {field for field in FIELDS if columns[field] in indexed} == FIELDS.keys() - {"title"}
    assert set(FIELDS.values()) == set(FIELD_TYPES)


def test_filters_mean_the_same_with_an_index(collection: LanceCollection) -> None:
    check(collection)


def test_filters_see_what_was_written_changed_and_removed_since(
    collection: LanceCollection,
) -> None:
    columns = collection._dataset.columns.by_field
    for turn in range(3):
        first = ROWS + 100 * turn
        write(collection, [some_record(number) for number in range(first, first + 100)], turn)
        changes: Changes = {"kind": "hat", "year": 3}
        collection.update_metadata({record(number).id: changes for number in range(turn, 200, 9)})
        collection.update_metadata({record(500 + turn).id: {"new": None, "price": None}})
        collection.upsert([record(700 + turn, kind="")], vectors(1, seed=5))
        collection.delete([record(900 + turn).id])
        check(collection)
        collection.optimize()
        check(collection)
    rows = collection._maintenance.indexed_rows()
    assert rows[columns["year"]] > ROWS - 100
