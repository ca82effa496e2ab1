"""The contract suite on the Weaviate store, over real connections to real servers."""

import operator
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgsearch.errors import CollectionMismatchError, Remedy
from imgsearch.stores import open_store
from imgsearch.stores.base import VectorQuery, VectorStore
from imgsearch.stores.weaviate import schema
from imgsearch.stores.weaviate.collection import WeaviateCollection
from imgsearch.types import Condition, FieldType, ImageRecord, Operator, Value
from tests.conftest import Cli
from tests.store_contract import STAMP, StoreContract, everything, record, vectors, write


class WeaviateContract(StoreContract):
    @pytest.fixture
    def name(self, store: VectorStore) -> Iterator[str]:
        """Yield a name, and drop its collection: each that is left slows the server down."""
        chosen = unique_name()
        yield chosen
        if chosen in store.names():
            store.drop(chosen)


def unique_name() -> str:
    """The server outlives the test, and may be the developer's own."""
    return f"pictures-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="module")
def connected(one_node: str) -> Iterator[VectorStore]:
    """Yield a store that tests share, as a connection takes longer than many of them."""
    with open_store(one_node, 30) as opened:
        yield opened


@pytest.mark.weaviate
class TestOneNode(WeaviateContract):
    @pytest.fixture
    def store(self, connected: VectorStore) -> VectorStore:
        return connected


@pytest.mark.weaviate
@pytest.mark.slow
class TestThreeNodes(WeaviateContract):
    SHARDED = True

    @pytest.fixture
    def store(self, three_nodes: str) -> Iterator[VectorStore]:
        with open_store(three_nodes, 30) as opened:
            yield opened


@pytest.fixture
def store(connected: VectorStore) -> VectorStore:
    return connected


def test_a_class_without_words_says_what_to_do(
    store: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they were made before words could be searched."""
    name = unique_name()
    known = [each for each in schema._BASE if each.name != schema.WORDS]
    with monkeypatch.context() as patch:
        patch.setattr(schema, "_BASE", known)
        store.create(name, STAMP)
    old = store.open(name)
    old.add_fields({"words": "str"})
    write(old, [record(1, words="shoe")])
    assert old.count([Condition("words", "=", "shoe")]) == 1
    with pytest.raises(
        CollectionMismatchError, check=lambda error: error.remedies == (Remedy.COPY,)
    ):
        old.search_text(["shoe"], 5)
    store.drop(name)


OPERATORS: dict[Operator, object] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
TEXTS = ["a", "A", " a", "a ", "a\t", "\ta", "", " ", "the", "ab", "a b", "\U0001f600", "a\0"]
NUMBERS = [0, -1, 2**53 - 1, 2**53, 2**53 + 1, -(2**53) - 1, 2**62 + 1, 2**63 - 1, -(2**63)]
REALS = [0.0, -0.0, 0.1, 1.5, -1e308, 5e-324]


@pytest.mark.weaviate
@pytest.mark.parametrize(("kind", "values"), [("str", TEXTS), ("int", NUMBERS), ("float", REALS)])
def test_values_that_weaviate_rounds_or_trims_are_stored_and_matched_all_the_same(
    store: VectorStore, kind: str, values: list[Value]
) -> None:
    collection = store.create(unique_name(), STAMP)
    collection.add_fields({"field": kind})  # type: ignore[dict-item]
    records = [record(number, field=value) for number, value in enumerate(values)]
    # First those that need nothing special: conditions on the others must be right even then.
    plain = [each for each in records if each.metadata["field"] in ("a", "ab", 0, -1, 1.5)]
    for stored in (plain, [*records, record(99)]):
        write(collection, stored)
        for value in values:
            for sign in OPERATORS:
                condition = Condition("field", sign, value)
                expected = {each.uri for each in stored if condition.holds(each.metadata)}
                found = collection.search(vectors(1)[0], 100, [condition])
                assert {each.record.uri for each in found} == expected, condition
    assert everything(collection) == {each.id: each for each in [*records, record(99)]}
    store.drop(collection.name)


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the requests that add properties or read a class, from now on."""
    counts: Counter[str] = Counter()
    send = httpx.Client.send

    def counted(self: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
        if request.url.path.startswith("/v1/schema/"):
            counts[f"{request.method} {request.url.path.rpartition('/')[2]}"] += 1
        return send(self, request, **options)

    monkeypatch.setattr(httpx.Client, "send", counted)
    return counts


@pytest.mark.weaviate
def test_a_thousand_fields_are_part_of_the_request_that_makes_a_collection(
    store: VectorStore, requests: Counter[str]
) -> None:
    fields: dict[str, FieldType] = {f"Column {number}": "int" for number in range(1000)}
    collection = store.create(unique_name(), STAMP, fields)
    assert dict(collection.fields) == fields
    assert requests.total() == 1
    store.drop(collection.name)


@pytest.mark.weaviate
def test_many_fields_that_are_added_later_take_a_request_each_and_one_to_read_them(
    store: VectorStore, requests: Counter[str]
) -> None:
    collection = store.create(unique_name(), STAMP)
    requests.clear()
    fields: dict[str, FieldType] = {f"Column {number}": "int" for number in range(30)}
    collection.add_fields(fields)
    assert dict(collection.fields) == fields
    assert requests.pop("POST properties") == 30
    assert requests.total() == 2
    requests.clear()
    large = record(1, **dict.fromkeys(fields, 2**60))
    write(collection, [large])
    assert requests.pop("POST properties") == 30
    assert requests.total() == 2
    assert everything(collection) == {large.id: large}
    store.drop(collection.name)


@pytest.mark.weaviate
def test_an_exact_search_agrees_with_the_index(store: VectorStore) -> None:
    collection = store.create(unique_name(), STAMP)
    collection.add_fields({"even": "bool"})
    write(collection, [record(number, even=number % 2 == 0) for number in range(1500)])
    query = vectors(1, seed=5)[0]
    for where in ([], [Condition("even", "=", True)]):
        exact, indexed = (collection.search(query, 10, where, exact=each) for each in (True, False))
        assert [each.record for each in exact] == [each.record for each in indexed]
        np.testing.assert_allclose([e.score for e in exact], [e.score for e in indexed], atol=1e-5)
    store.drop(collection.name)


@pytest.mark.weaviate
def test_exact_queries_read_each_page_once_however_many_they_are(
    store: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = store.create(unique_name(), STAMP)
    assert isinstance(collection, WeaviateCollection)
    collection.add_fields({"even": "bool"})
    write(collection, [record(number, even=number % 2 == 0) for number in range(1100)])
    requests: list[str] = []
    read = collection._reader.after

    def counted(after: str, limit: int, **options: Any) -> Sequence[Any]:
        requests.append(after)
        return read(after, limit, **options)

    monkeypatch.setattr(collection._reader, "after", counted)
    costs = []
    for count in (1, 60):
        requests.clear()
        collection.search_exact(
            [
                VectorQuery(each, 10, where)
                for each in vectors(count, seed=5)
                for where in ([], [Condition("even", "=", True)])
            ]
        )
        assert len(set(requests)) == len(requests)
        costs.append(len(requests))
    assert costs[0] == costs[1] == 3  # two pages, and an empty one as their end
    store.drop(collection.name)


@pytest.mark.weaviate
def test_the_schema_is_not_read_again_for_each_record(
    store: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = store.create(unique_name(), STAMP)
    assert isinstance(collection, WeaviateCollection)
    collection.join_site()
    collection.add_fields({"kind": "str"})
    records = [record(1, kind="hat"), record(2)]
    write(collection, records)

    def never() -> None:
        raise AssertionError("the schema was read")

    monkeypatch.setattr(collection, "_refresh", never)
    assert list(everything(collection).values()) == sorted(records, key=lambda each: each.id)
    store.drop(collection.name)


@pytest.mark.weaviate
def test_classes_without_folders_are_read_by_pattern(
    store: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they were made before, and as a version from then writes into a new class."""
    name, older = unique_name(), unique_name()
    with monkeypatch.context() as patch:
        known = [each for each in schema._BASE if each.name != schema.FOLDERS]
        patch.setattr(schema, "_BASE", known)
        store.create(older, STAMP)
    mixed = store.create(name, STAMP)
    assert isinstance(mixed, WeaviateCollection)
    write(mixed, [record(number) for number in range(40)])
    assert sum(map(len, mixed.uris("file:///pictures/"))) == 40
    mixed._schema = replace(mixed._schema, has_folders=False)
    write(mixed, [record(number) for number in range(40, 50)])
    for collection in (store.open(older), store.open(name)):
        write(collection, [ImageRecord(f"file:///b/{n}.jpg", f"{n:064}", 1, 1, 1, 1) for n in "12"])
        assert sorted(each for uris in collection.uris("file:///b/") for each in uris) == [
            "file:///b/1.jpg",
            "file:///b/2.jpg",
        ]
    assert sum(map(len, store.open(name).uris("file:///pictures/"))) == 50
    store.drop(name)
    store.drop(older)


@pytest.mark.weaviate
def test_more_copies_of_an_image_than_one_request_returns(store: VectorStore) -> None:
    collection = store.create(unique_name(), STAMP)
    write(collection, [record(number, content=7) for number in range(300)])
    write(collection, [record(1000, content=8)])
    digests = [record(0, content=number).sha256 for number in (7, 8)]
    assert set(collection.vectors_by_digest(digests)) == set(digests)
    assert collection.count_by_digest(digests) == {digests[0]: 300, digests[1]: 1}
    store.drop(collection.name)


@pytest.mark.weaviate
def test_other_clients_can_read_the_stamp_and_use_the_name(
    store: VectorStore, one_node: str
) -> None:
    from imgsearch.stores.weaviate.store import WeaviateStore

    assert isinstance(store, WeaviateStore)
    name = unique_name()
    write(store.create(name, STAMP), [record(1)])
    theirs = store._server.client.collections.use(schema.alias_of(name))
    assert f'"model": "{STAMP.model}"' in (theirs.config.get().description or "")
    assert theirs.query.fetch_objects().objects[0].properties["uri"] == record(1).uri
    store.drop(name)


@pytest.mark.weaviate
def test_options_make_collections_and_a_mismatch_is_rejected(one_node: str) -> None:
    name = unique_name()
    with open_store(f"{one_node}&compression=none&shards=2&consistency=quorum") as store:
        write(store.create(name, STAMP), [record(1)])
        details = store.open(name).info().details
        assert (details["compression"], details["shards"]) == ("none", 2)
    with (
        open_store(f"{one_node}&compression=rq8") as store,
        pytest.raises(CollectionMismatchError, match="compression is none, not rq8"),
    ):
        store.open(name)
    with open_store(one_node) as store:
        store.drop(name)


@pytest.mark.weaviate
def test_info_tells_what_the_server_holds(one_node: str, cli: Cli) -> None:
    name = unique_name()
    with open_store(one_node) as store:
        write(store.create(name, STAMP), [record(1), record(2)])
    shown = cli("info", "--store", one_node, "--json").json["collections"]
    (mine,) = (each for each in shown if each["name"] == name)
    details = mine["details"]
    assert (details["vectors_indexed"], details["compression"], details["shards"]) == (2, "rq8", 1)
    assert details["memory_estimate_bytes"] > 0
    assert set(details["nodes"].values()) == {"HEALTHY"}
    assert details["version"] in cli("info", "--store", one_node).out
    with open_store(one_node) as store:
        store.drop(name)


@pytest.mark.weaviate
@pytest.mark.slow
def test_one_command_removes_more_than_ten_thousand_images(one_node: str, cli: Cli) -> None:
    name = unique_name()
    with open_store(one_node) as store:
        collection = store.create(name, STAMP)
        collection.add_fields({"year": "int"})
        records = [record(number, year=number % 20) for number in range(10_500)]
        write(collection, records)
        write(collection, [replace(record(1), uri="file:///elsewhere/1.jpg")])
        paged: list[str] = []
        while page := collection.page(1000, max(paged, default=""), [Condition("year", "<", 20)]):
            paged += [each.id for each in page]
        assert paged == sorted(each.id for each in records)
    done = cli("remove", "/pictures", "--store", one_node, "--collection", name, "--json")
    assert done.json["removed"] == 10_500
    with open_store(one_node) as store:
        assert store.open(name).count() == 1
        store.drop(name)


NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,99}", fullmatch=True)


@given(NAMES)
def test_a_collection_name_comes_back_from_its_alias(name: str) -> None:
    alias = schema.alias_of(name)
    assert schema.name_of(alias) == name
    assert schema.name_of(schema.class_of(name, STAMP)) is None
    assert alias.isascii()
    assert len(schema.class_of(name, STAMP)) < 256


@given(NAMES, NAMES)
def test_two_collections_differ_in_more_than_capitals(one: str, other: str) -> None:
    if one != other:
        assert schema.alias_of(one).lower() != schema.alias_of(other).lower()
        assert not schema.class_of(one, STAMP).startswith(schema.class_prefix(other))
