"""Metadata is stored exactly, or rejected with the reason, in Python and by HTTP."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imgsearch.errors import MetadataError, UsageError
from imgsearch.index import ImageIndex
from imgsearch.metadata.values import validate
from imgsearch.stores import open_store
from imgsearch.types import Condition, Value
from tests.fakes import ColorEncoder
from tests.serving import Served, filled, serving
from tests.test_weaviate_store import unique_name

RECORDS = "/v1/collections/images/records"
UNSTORABLE: list[tuple[Any, str]] = [
    (123456789012345678901234567890, "does not fit into 64 bits"),
    (2**63, "does not fit into 64 bits"),
    (-(2**63) - 1, "does not fit into 64 bits"),
    (10**400, "does not fit into 64 bits"),
    (math.nan, "is not a finite number"),
    (math.inf, "is not a finite number"),
    (-math.inf, "is not a finite number"),
    ("half a \ud800 pair", "cannot be stored"),
    ("a\0b", "cannot be stored"),
]
STORABLE: list[Value] = [2**63 - 1, -(2**63), 2**53 + 1, 1e308, 5e-324, -0.0, "\U0010ffff", True]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(filled(tmp_path_factory.mktemp("values"), 2), ColorEncoder()) as served:
        yield served


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> ImageIndex:
    store = filled(tmp_path_factory.mktemp("values"), 2).store
    index = ImageIndex("images", store=store, encoder_opener=ColorEncoder().open)
    index.set_metadata(next(index.records()).id, {"real": 0.5})
    return index


@pytest.fixture(scope="module")
def on_a_server(one_node: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageIndex]:
    folder = tmp_path_factory.mktemp("values")
    filled(folder, 1)
    with open_store(one_node) as store:
        index = ImageIndex("Values", store=store, encoder_opener=ColorEncoder().open)
        index.add(folder / "shop")
        yield index
        index.drop()


class TestPython:
    @pytest.mark.parametrize(("value", "reason"), UNSTORABLE)
    def test_values_that_would_change_are_rejected_and_nothing_is_written(
        self, index: ImageIndex, value: Any, reason: str
    ) -> None:
        record = next(index.records())
        for field in ("number", "real", "kind", "new"):
            with pytest.raises(MetadataError, match=reason):
                index.set_metadata(record.id, {"also": 1, field: value})
        with pytest.raises(MetadataError, match="an integer of hundreds of digits"):
            index.set_metadata(record.id, {"number": 10**5000})  # Python cannot print it
        assert index.get(record.id).metadata == record.metadata
        assert "also" not in index.fields

    def test_an_integer_that_a_field_of_floats_would_round_is_rejected(self) -> None:
        assert validate("real", 2**53, {"real": "float"}) == 2.0**53
        for value in (2**53 + 1, 2**63 - 1):
            with pytest.raises(MetadataError, match="more digits"):
                validate("real", value, {"real": "float"})

    def test_a_name_that_cannot_be_stored_is_rejected(self, index: ImageIndex) -> None:
        record = next(index.records())
        for name in ("\ud800", "a\0b"):
            with pytest.raises(MetadataError, match="characters that cannot be stored"):
                index.set_metadata(record.id, {name: 1})

    @pytest.mark.parametrize("value", STORABLE)
    def test_accepted_values_are_stored_exactly(self, index: ImageIndex, value: Value) -> None:
        record = next(index.records())
        field = f"stored as {type(value).__name__}"
        index.set_metadata(record.id, {field: value})
        stored = index.get(record.id).metadata[field]
        assert (type(stored), repr(stored)) == (type(value), repr(value))

    @pytest.mark.weaviate
    def test_a_server_stores_and_rejects_the_same_values(self, on_a_server: ImageIndex) -> None:
        record = next(on_a_server.records())
        for value in STORABLE:
            field = f"kept_as_{type(value).__name__}"
            on_a_server.set_metadata(record.id, {field: value})
            assert on_a_server.get(record.id).metadata[field] == value
        for value, reason in UNSTORABLE:
            with pytest.raises(MetadataError, match=reason):
                on_a_server.set_metadata(record.id, {"refused": value})
            with pytest.raises(UsageError, match=f"{reason}|not of the field's type"):
                on_a_server.count([Condition("kept_as_float", "<", value)])
        for name in ("half a \ud800 pair", "a\0b"):
            with pytest.raises(MetadataError, match="characters that cannot be stored"):
                on_a_server.set_metadata(record.id, {name: 1})
            assert name not in on_a_server.fields
        assert "refused" not in on_a_server.fields

    @pytest.mark.parametrize(("value", "reason"), [*UNSTORABLE, (b"x", "field's type")])
    def test_conditions_with_such_values_are_rejected(
        self, index: ImageIndex, value: Any, reason: str
    ) -> None:
        for field in ("number", "real", "kind"):
            if (field, value) == ("kind", "a\0b"):  # valid text that no record has
                assert index.count([Condition(field, "=", value)]) == 0
                continue
            with pytest.raises(UsageError, match=f"{reason}|not of the field's type"):
                index.count([Condition(field, "=", value)])

    def test_conditions_may_compare_floats_with_integers(self, index: ImageIndex) -> None:
        assert index.count([Condition("real", "<", 2**62)]) == 1
        with pytest.raises(UsageError, match="not of the field's type, int"):
            index.count([Condition("number", "<", 1.5)])


class TestHttp:
    def change(self, served: Served, content: str | bytes) -> tuple[int, dict[str, Any]]:
        record = served.client.get(RECORDS).json()["records"][0]["id"]
        headers = {"Content-Type": "application/json"}
        answer = served.client.patch(f"{RECORDS}/{record}", content=content, headers=headers)
        assert answer.headers["content-type"] in ("application/json", "application/problem+json")
        return answer.status_code, answer.json()

    @pytest.mark.parametrize(
        "value",
        [
            *("123456789012345678901234567890", "9223372036854775808", "1" * 400),
            *("1e400", "-1e400", "NaN", "Infinity", "-Infinity"),
            *('"\\ud800"', '"\\u0000"', "[1]", '{"a": 1}', "[[[]]]"),
        ],
    )
    def test_values_that_would_change_are_rejected(self, served: Served, value: str) -> None:
        before = served.client.get(RECORDS).json()
        for field in ("number", "kind", "new"):
            status, body = self.change(served, f'{{"{field}": {value}}}')
            assert status == 422
            assert len(body["detail"]) < 3000
        assert served.client.get(RECORDS).json() == before

    def test_an_integer_of_many_digits_is_rejected_with_advice(self, served: Served) -> None:
        _, body = self.change(served, '{"barcode": 123456789012345678901234567890}')
        assert "does not fit into 64 bits: store it as text" in body["detail"]

    @pytest.mark.parametrize(
        "content",
        [
            *(b"", b"{", b"null", b"[]", b'"text"', b"\xff\xfe"),
            *(b"[" * 60_000, b'{"a":' * 10_000, b'{"a": ' + b"1" * 5000 + b"}"),
        ],
    )
    def test_invalid_bodies_are_rejected(self, served: Served, content: bytes) -> None:
        status, _ = self.change(served, content)
        assert status in (400, 422)

    def test_accepted_values_are_stored_exactly(self, served: Served) -> None:
        for value in STORABLE:
            field = f"stored as {type(value).__name__}"
            status, body = self.change(served, json.dumps({field: value}))
            assert (status, body["metadata"][field]) == (200, value)

    def test_conditions_beyond_64_bits_are_rejected(self, served: Served) -> None:
        for where in (f"number<{2**63}", f"number={10**30}", "number=NaN", "number=1e3"):
            answer = served.client.get(RECORDS, params={"where": where})
            assert (answer.status_code, "is not" in answer.json()["detail"]) == (400, True)


def test_a_table_stores_long_numbers_as_text(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    filled(tmp_path, 2)
    (folder / "styles.csv").write_text(f"id,barcode,kind\n0,{10**30},NaN\n1,{10**20},Infinity\n")
    index = ImageIndex("fresh", store=str(tmp_path / "fresh"), encoder_opener=ColorEncoder().open)
    index.add(folder)
    assert {record.metadata["barcode"] for record in index.records()} == {
        str(10**30),
        str(10**20),
    }


@pytest.mark.parametrize("place", ["folder", pytest.param("server", marks=pytest.mark.weaviate)])
def test_odd_cells_of_a_table_are_stored_or_the_table_is_rejected(
    place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    filled(tmp_path, 2)
    long = "long " * 20_000 + "cell"
    file = tmp_path / "styles.csv"
    url = str(tmp_path / "fresh") if place == "folder" else request.getfixturevalue("one_node")
    with ImageIndex(unique_name(), store=url, encoder_opener=ColorEncoder().open) as index:
        for table in ("id,half \ud800\n0,a\n", "id,kind\n0,half \ud800\n"):
            file.write_bytes(b"\xff\xfe" + table.encode("utf-16-le", "surrogatepass"))
            with pytest.raises(MetadataError, match="illegal UTF-16 surrogate"):
                index.add(tmp_path / "shop", metadata=str(file))
        file.write_text(f"id,real,kind\n0,NaN,x\n1,Infinity,{long}\n")
        index.add(tmp_path / "shop", metadata=str(file))
        found = {Path(each.path).stem: dict(each.metadata) for each in index.records()}
        index.drop()
    assert found == {"0": {"real": "NaN", "kind": "x"}, "1": {"real": "Infinity", "kind": long}}
