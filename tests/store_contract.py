"""What every store must do. A store's test file subclasses `StoreContract` and gives a store."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from imgsearch import calibration
from imgsearch.encoders.base import normalized
from imgsearch.errors import (
    CollectionMismatchError,
    CollectionNotFoundError,
    StoreError,
    UsageError,
)
from imgsearch.search import SearchRequest, search_vector
from imgsearch.stores.base import (
    MAX_EXCLUDED_DIGESTS,
    Collection,
    VectorQuery,
    Vectors,
    VectorStore,
)
from imgsearch.text import query_words
from imgsearch.types import Condition, FieldType, ImageRecord, Metadata, Operator, Stamp, Value

DIMENSION = 8
STAMP = Stamp("colors", "a" * 64, "none", DIMENSION)
OTHER_STAMP = replace(STAMP, model="shapes")


def record(number: int, /, *, content: int | None = None, **metadata: Value) -> ImageRecord:
    return ImageRecord(
        uri=f"file:///pictures/{number:06d}.jpg",
        sha256=f"{number if content is None else content:064x}",
        size=1000 + number,
        mtime_ns=1_700_000_000_123_456_789 + number,
        width=640,
        height=480,
        metadata=metadata,
    )


def vectors(count: int, seed: int = 0) -> Vectors:
    drawn = np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32)
    return normalized(drawn)


def write(collection: Collection, records: Sequence[ImageRecord], seed: int = 0) -> Vectors:
    written = vectors(len(records), seed)
    assert collection.upsert(records, written) == {}
    return written


def with_words(
    collection: Collection, text: str, k: int = 100, where: Sequence[Condition] = ()
) -> list[str]:
    """The URIs of the records that a text finds, the most relevant first."""
    found = collection.search_text(query_words(text), k, where)
    assert all(each.score > 0 for each in found)
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
    return [each.record.uri for each in found]


def everything(collection: Collection, prefix: str = "") -> dict[str, ImageRecord]:
    found = [each for batch in collection.scan(prefix) for each in batch]
    assert len(found) == len({each.id for each in found}), "a record came twice"
    return {each.id: each for each in found}


class StoreContract:
    """Subclasses override `store`; each test gets collection names of its own from `name`."""

    SHARDED = False
    """Whether relevance is reckoned shard by shard, so that equal records differ a little."""

    @pytest.fixture
    def store(self) -> Iterator[VectorStore]:
        raise NotImplementedError

    @pytest.fixture
    def name(self) -> str:
        return "pictures"

    @pytest.fixture
    def collection(self, store: VectorStore, name: str) -> Collection:
        return store.create(name, STAMP)

    @pytest.mark.parametrize("where", [[], [Condition("kind", "=", "hat")]])
    def test_an_exact_search_orders_equal_scores_by_uri(
        self, collection: Collection, where: list[Condition]
    ) -> None:
        collection.add_fields({"kind": "str"})
        records = [record(number, kind="hat" if number % 2 else "shoe") for number in range(9)]
        same = np.repeat(vectors(1), 9, axis=0)
        assert collection.upsert(records, same) == {}
        found = collection.search(same[0], 3, where, exact=True)
        expected = [each for each in records if all(c.holds(each.metadata) for c in where)]
        assert [each.record for each in found] == expected[:3]
        assert all(each.score == pytest.approx(1) for each in found)

    def test_many_exact_queries_get_the_answers_that_each_gets_alone(
        self, collection: Collection
    ) -> None:
        collection.add_fields({"kind": "str", "year": "int"})
        kinds = ["hat", "shoe", "scarf"]
        records = [
            record(number, content=number // 2, kind=kinds[number % 3], year=number % 50)
            if number % 7
            else record(number, content=number // 2)
            for number in range(1100)  # more than a page
        ]
        write(collection, records)
        collection.optimize()
        without = [each.sha256 for each in records[:300]]
        queries = [
            VectorQuery(vectors(1, seed=9)[0], 10, [], without),
            VectorQuery(vectors(1, seed=10)[0], 2000, [Condition("kind", "=", "hat")]),
            VectorQuery(
                vectors(1, seed=11)[0],
                2000,
                [Condition("kind", "!=", "hat"), Condition("year", ">", 40)],
                without,
            ),
            VectorQuery(vectors(1, seed=12)[0], 10, [Condition("year", ">", 99)]),
        ]
        queries.append(VectorQuery(queries[0].vector, 0))
        answers = collection.search_exact(queries)
        assert len(answers) == len(queries)
        for query, answer in zip(queries, answers, strict=True):
            alone = collection.search(
                query.vector,
                query.k,
                query.where,
                exact=True,
                exclude_digests=query.exclude_digests,
            )
            assert [each.record for each in answer] == [each.record for each in alone]
            scores = [each.score for each in alone]
            assert [each.score for each in answer] == pytest.approx(scores, abs=1e-6)
            matching = [
                each
                for each in records
                if all(c.holds(each.metadata) for c in query.where)
                and each.sha256 not in query.exclude_digests
            ]
            assert len(answer) == min(query.k, len(matching))
            assert {each.record.uri for each in answer} <= {each.uri for each in matching}
        assert collection.search_exact([]) == []

    def test_many_searches_find_what_each_alone_finds(self, collection: Collection) -> None:
        collection.add_fields({"kind": "str"})
        kinds = ["hat", "shoe", "scarf"]
        records = [
            record(number, content=number // 2, kind=kinds[number % 3]) for number in range(300)
        ]
        write(collection, records)
        hats, excluded = [Condition("kind", "=", "hat")], [records[0].sha256, records[7].sha256]
        queries = [
            *(VectorQuery(each, 5) for each in vectors(20, seed=21)),
            *(VectorQuery(each, 200, hats) for each in vectors(3, seed=22)),
            *(VectorQuery(each, 12, (), excluded) for each in vectors(3, seed=23)),
            *(VectorQuery(each, 1000, hats, excluded) for each in vectors(2, seed=24)),
            VectorQuery(vectors(1, seed=25)[0], 3, [Condition("kind", "=", "none")]),
            VectorQuery(vectors(1, seed=26)[0], 0),
        ]
        answers = collection.search_many(queries)
        assert len(answers) == len(queries)
        for query, answer in zip(queries, answers, strict=True):
            alone = collection.search(
                query.vector, query.k, query.where, exclude_digests=query.exclude_digests
            )
            assert [each.record for each in answer] == [each.record for each in alone]
            scores = [each.score for each in alone]
            assert [each.score for each in answer] == pytest.approx(scores, abs=1e-6)
        assert collection.search_many([]) == []

    def test_an_empty_collection_answers_many_searches(self, collection: Collection) -> None:
        assert collection.search_many([VectorQuery(vectors(1)[0], 5)] * 2) == [[], []]

    def test_many_exact_queries_order_equal_scores_by_uri(self, collection: Collection) -> None:
        records = [record(number) for number in range(300)]
        same = np.repeat(vectors(1), len(records), axis=0)
        assert collection.upsert(records, same) == {}
        queries = [VectorQuery(same[0], k) for k in (1, 3, 40)]
        found = [[each.record for each in answer] for answer in collection.search_exact(queries)]
        assert found == [records[: each.k] for each in queries]

    def test_an_empty_collection_answers_exact_queries(self, collection: Collection) -> None:
        assert collection.search_exact([VectorQuery(vectors(1)[0], 5)] * 2) == [[], []]

    def test_a_new_collection_is_empty_and_stamped(
        self, store: VectorStore, collection: Collection, name: str
    ) -> None:
        assert collection.name == name
        assert collection.stamp == STAMP
        assert dict(collection.fields) == {}
        assert collection.count() == 0
        assert everything(collection) == {}
        assert collection.search(vectors(1)[0], 5) == []
        assert name in store.names()
        assert store.open(name).stamp == STAMP

    def test_a_missing_collection_is_named_in_the_error(self, store: VectorStore) -> None:
        with pytest.raises(CollectionNotFoundError, match="nowhere"):
            store.open("nowhere")
        with pytest.raises(CollectionNotFoundError, match="nowhere"):
            store.drop("nowhere")

    def test_a_collection_is_not_made_twice(
        self, store: VectorStore, collection: Collection, name: str
    ) -> None:
        with pytest.raises(StoreError, match=name):
            store.create(name, STAMP)

    def test_a_dropped_collection_is_gone_and_can_be_created_again(
        self, store: VectorStore, collection: Collection, name: str
    ) -> None:
        write(collection, [record(1)])
        store.drop(name)
        assert name not in store.names()
        assert store.create(name, STAMP).count() == 0

    def test_names_that_every_store_must_tell_apart(self, store: VectorStore) -> None:
        names = ["shoes", "Shoes", "shoes_1", "shoes-1"]
        for each in names:
            store.create(each, STAMP)
        write(store.open("Shoes"), [record(1)])
        assert set(names) <= set(store.names())
        assert [store.open(each).count() for each in names] == [0, 1, 0, 0]
        for each in names:
            store.drop(each)

    def test_records_come_back_whole(self, store: VectorStore, collection: Collection) -> None:
        collection.add_fields({"kind": "str", "year": "int", "price": "float", "new": "bool"})
        full = record(1, kind="Casual Shoes", year=2**53, price=0.1, new=False)
        bare = record(2)
        write(collection, [full, bare])
        assert collection.lookup([full.id, bare.id]) == {full.id: full, bare.id: bare}
        assert everything(collection) == {full.id: full, bare.id: bare}
        assert everything(store.open(collection.name)) == {full.id: full, bare.id: bare}

    @pytest.mark.parametrize(
        "text",
        [
            "",
            " ",
            "it's",
            '"quoted"',
            "back\\slash",
            "a\nb\tc",
            "ümlaut 鞋 👟",
            "%_*?",
            "null",
            "0",
        ],
    )
    def test_text_is_stored_and_matched_exactly(self, collection: Collection, text: str) -> None:
        collection.add_fields({"text": "str"})
        write(collection, [record(1, text=text), record(2, text=text + "x"), record(3)])
        stored = everything(collection)
        assert stored[record(1).id].metadata["text"] == text
        assert collection.count([Condition("text", "=", text)]) == 1

    @pytest.mark.parametrize("space", ["", " "])
    @pytest.mark.parametrize("text", ["wörd " * 20_000 + "end", "x" * 100_000])
    def test_a_text_of_100_kb_is_stored_matched_and_found(
        self, collection: Collection, text: str, space: str
    ) -> None:
        collection.add_fields({"text": "str"})
        long = record(1, text=space + text)
        write(collection, [long, record(2, text=f"{space}{text}y"), record(3)])
        assert everything(collection)[long.id] == long
        assert collection.count([Condition("text", "=", space + text)]) == 1
        assert record(1).uri in with_words(collection, text.split()[0])
        collection.update_metadata({record(3).id: {"text": f"{space}{text}z"}})
        assert everything(collection)[record(3).id] == record(3, text=f"{space}{text}z")

    def test_matching_minds_case_and_words(self, collection: Collection) -> None:
        collection.add_fields({"kind": "str"})
        write(
            collection,
            [
                record(1, kind="Casual Shoes"),
                record(2, kind="casual shoes"),
                record(3, kind="Shoes"),
            ],
        )
        assert collection.count([Condition("kind", "=", "Casual Shoes")]) == 1
        assert collection.count([Condition("kind", "=", "Shoes")]) == 1

    def test_writing_again_replaces(self, collection: Collection) -> None:
        collection.add_fields({"kind": "str"})
        write(collection, [record(1, kind="a"), record(2, kind="b")])
        newer = record(1, content=77, kind="c")
        written = write(collection, [newer, record(3)], seed=5)
        assert collection.count() == 3
        assert collection.lookup([newer.id])[newer.id] == newer
        best = collection.search(written[0], 1)[0]
        assert (best.record, round(best.score, 4)) == (newer, 1.0)

    def test_unknown_ids_and_digests_are_left_out(self, collection: Collection) -> None:
        write(collection, [record(1)])
        assert set(collection.lookup([record(1).id, record(2).id])) == {record(1).id}
        assert collection.lookup([]) == {}
        assert set(collection.vectors_by_digest([record(1).sha256, "f" * 64])) == {record(1).sha256}
        assert collection.vectors_by_digest([]) == {}
        assert collection.upsert([], vectors(0)) == {}

    def test_size_and_mtime_are_found_by_uri(self, collection: Collection) -> None:
        assert collection.file_stats([]) == {}
        # Neighbors in a folder, of which some are not wanted, and single files of other folders.
        near = [record(number) for number in range(60)]
        far = [replace(record(n), uri=f"file:///{n}/it's.jpg") for n in range(30)]
        write(collection, near + far)
        for wanted in (near, near[::2], near[:2], far, far[:1], near[20:40] + far):
            expected = {each.uri: (each.size, each.mtime_ns) for each in wanted}
            missing = [f"{each.uri}.png" for each in wanted]
            assert collection.file_stats([*missing, *reversed(expected)]) == expected
        assert collection.file_stats(["file:///pictures/"]) == {}

    def test_vectors_are_found_by_content(self, collection: Collection) -> None:
        written = write(collection, [record(1), record(2)])
        found = collection.vectors_by_digest([record(2).sha256])[record(2).sha256]
        np.testing.assert_allclose(found.vector, written[1], atol=2e-3)
        assert (found.width, found.height) == (640, 480)

    def test_content_is_found_however_many_copies_there_are(self, collection: Collection) -> None:
        copies = [record(number, content=7) for number in range(500)]
        others = [record(1000 + number) for number in range(20)]
        written = vectors(1 + len(others))
        collection.upsert(copies, np.repeat(written[:1], len(copies), axis=0))
        collection.upsert(others, written[1:])
        wanted = [copies[0], *others]
        digests = [each.sha256 for each in wanted]
        found = collection.vectors_by_digest([*digests, *digests[:3], "f" * 64])
        assert set(found) == set(digests)
        for digest, vector in zip(digests, written, strict=True):
            np.testing.assert_allclose(found[digest].vector, vector, atol=2e-3)

    def test_search_ranks_by_cosine(self, collection: Collection) -> None:
        records = [record(number) for number in range(200)]
        written = write(collection, records)
        query = vectors(1, seed=9)[0]
        cosines = written @ query
        expected = np.argsort(-cosines)[:10]
        found = collection.search(query, 10)
        assert [each.record for each in found] == [records[index] for index in expected]
        np.testing.assert_allclose([each.score for each in found], cosines[expected], atol=1e-4)

    def test_opposite_and_equal_vectors_score_from_minus_one_to_one(
        self, collection: Collection
    ) -> None:
        one = vectors(1)
        collection.upsert([record(1), record(2)], np.concatenate([one, -one]))
        scores = [each.score for each in collection.search(one[0], 2)]
        assert scores == pytest.approx([1.0, -1.0], abs=1e-4)
        assert all(-1.0 <= score <= 1.0 for score in scores)

    def test_equal_scores_come_in_the_order_of_their_uris(self, collection: Collection) -> None:
        records = [record(number) for number in (3, 1, 2)]
        collection.upsert(records, np.repeat(vectors(1), 3, axis=0))
        found = collection.search(vectors(1)[0], 3)
        assert [each.record for each in found] == [record(1), record(2), record(3)]

    def test_k_beyond_the_collection_gives_all_of_it(self, collection: Collection) -> None:
        write(collection, [record(1), record(2)])
        assert len(collection.search(vectors(1)[0], 1000)) == 2

    OPERATORS: tuple[Operator, ...] = ("=", "!=", "<", "<=", ">", ">=")

    @pytest.mark.parametrize(
        ("kind", "values", "probe"),
        [
            ("int", [-5, 0, 1999, 2012, 2013], 2012),
            ("float", [-1.5, 0.0, 0.1, 0.25, 1e12], 0.25),
            ("str", ["", "Boots", "Casual Shoes", "shoes", "Ärmel"], "Casual Shoes"),
        ],
    )
    def test_filters_mean_what_a_condition_says(
        self, collection: Collection, kind: FieldType, values: list[Value], probe: Value
    ) -> None:
        collection.add_fields({"field": kind})
        records = [record(number, field=value) for number, value in enumerate(values)]
        records.append(record(99))
        write(collection, records)
        for operator in self.OPERATORS:
            if kind == "str" and operator not in ("=", "!="):
                continue
            condition = Condition("field", operator, probe)
            expected = {each.id for each in records if condition.holds(each.metadata)}
            found = collection.search(vectors(1)[0], 100, [condition])
            assert {each.record.id for each in found} == expected, operator
            assert collection.count([condition]) == len(expected)

    def test_truth_values_can_be_filtered_on(self, collection: Collection) -> None:
        collection.add_fields({"new": "bool"})
        write(collection, [record(1, new=True), record(2, new=False), record(3)])
        assert collection.count([Condition("new", "=", True)]) == 1
        assert collection.count([Condition("new", "!=", True)]) == 2

    def test_all_conditions_must_hold(self, collection: Collection) -> None:
        collection.add_fields({"kind": "str", "year": "int"})
        write(
            collection,
            [record(1, kind="a", year=1), record(2, kind="a", year=2), record(3, kind="b", year=2)],
        )
        both = [Condition("kind", "=", "a"), Condition("year", ">=", 2)]
        assert [each.record.uri for each in collection.search(vectors(1)[0], 9, both)] == [
            record(2).uri
        ]

    def test_odd_field_names_work(self, collection: Collection) -> None:
        names = ["article type", "articleType", "articletype", "prix (€)", "id", "9", "a.b", "uri"]
        names += ["words", "vector", "_additional", "origins", "Imgsearch_home", "imgsearch_home"]
        collection.add_fields(dict.fromkeys(names, "int"))
        values: Metadata = {name: number for number, name in enumerate(names)}
        write(collection, [replace(record(1), metadata=values), record(2)])
        assert dict(collection.lookup([record(1).id])[record(1).id].metadata) == values
        for name, value in values.items():
            assert collection.count([Condition(name, "=", value)]) == 1

    FIELDS: Mapping[str, FieldType] = {"Prix (€)": "float", "prix": "int", "PRIX": "str"}

    @pytest.mark.parametrize("method", ["create", "open_or_create"])
    def test_a_collection_is_made_with_its_fields(
        self, store: VectorStore, name: str, method: str
    ) -> None:
        made: Collection = getattr(store, method)(name, STAMP, self.FIELDS)
        assert dict(made.fields) == dict(store.open(name).fields) == self.FIELDS
        full = replace(record(1), metadata={"Prix (€)": 0.5, "prix": 7, "PRIX": " x"})
        write(made, [full])
        assert everything(store.open(name)) == {full.id: full}

    def test_opening_a_collection_adds_the_fields_it_lacks(
        self, store: VectorStore, collection: Collection, name: str
    ) -> None:
        collection.add_fields({"prix": "int"})
        assert dict(store.open_or_create(name, STAMP, self.FIELDS).fields) == self.FIELDS
        with pytest.raises(CollectionMismatchError, match="'prix' as int, not as str"):
            store.open_or_create(name, STAMP, {"prix": "str", "other": "int"})
        assert dict(store.open(name).fields) == self.FIELDS

    def test_a_replacement_has_its_fields_from_the_start_and_when_resumed(
        self, store: VectorStore, collection: Collection, name: str
    ) -> None:
        begun = store.replacement(name, OTHER_STAMP, {"prix": "int"})
        assert dict(begun.fields) == {"prix": "int"}
        assert dict(store.replacement(name, OTHER_STAMP, self.FIELDS).fields) == self.FIELDS
        assert dict(collection.refresh_fields()) == {}

    def test_fields_can_be_added_later_but_not_changed(
        self, store: VectorStore, collection: Collection
    ) -> None:
        collection.add_fields({"year": "int"})
        write(collection, [record(1, year=2012)])
        collection.add_fields({"year": "int", "kind": "str"})
        write(collection, [record(2, year=2013, kind="a")])
        assert dict(store.open(collection.name).fields) == {"year": "int", "kind": "str"}
        assert collection.count([Condition("kind", "=", "a")]) == 1
        with pytest.raises(CollectionMismatchError, match="year"):
            collection.add_fields({"year": "str"})

    def test_metadata_is_updated_and_the_rest_unchanged(self, collection: Collection) -> None:
        collection.add_fields({"kind": "str", "year": "int", "new": "bool"})
        records = [record(1, kind="a", year=1, new=True), record(2, kind="b")]
        written = write(collection, records)
        collection.update_metadata(
            {
                record(1).id: {"kind": "z", "year": None, "never": None},
                record(2).id: {},
                record(9).id: {"kind": "y"},
            }
        )
        assert everything(collection) == {
            record(1).id: record(1, kind="z", new=True),
            record(2).id: record(2, kind="b"),
        }
        assert collection.count([Condition("kind", "=", "z")]) == 1
        assert collection.count([Condition("kind", "=", "a")]) == 0
        assert collection.count([Condition("year", "!=", 1)]) == 2
        assert collection.search(written[0], 1)[0].score == pytest.approx(1.0, abs=1e-4)

    @pytest.mark.parametrize(
        ("kind", "values"),
        [
            ("str", ["a", " a", "", "a\t", "ümlaut 鞋 👟", "a"]),
            ("int", [1, 2**53 + 1, -(2**63), 0, 2**63 - 1, 1]),
            ("float", [0.1, -1e308, 5e-324, 3.0]),
            ("bool", [True, False, True]),
        ],
    )
    def test_a_value_is_changed_to_the_letter(
        self, collection: Collection, kind: FieldType, values: list[Value]
    ) -> None:
        collection.add_fields({"field": kind})
        write(collection, [record(1), record(2)])
        for before, value in zip([None, *values], values, strict=False):
            collection.update_metadata({record(1).id: {"field": value}})
            assert everything(collection)[record(1).id] == record(1, field=value)
            assert collection.count([Condition("field", "=", value)]) == 1
            assert before is None or collection.count([Condition("field", "=", before)]) == 0
        collection.update_metadata({record(1).id: {"field": None}})
        assert everything(collection)[record(1).id] == record(1)
        assert collection.count([Condition("field", "=", values[-1])]) == 0

    def test_origins_are_changed_field_by_field(self, collection: Collection) -> None:
        collection.add_fields({"a": "int", "b": "int"})
        of_table = replace(record(1, a=1, b=2), origins={"a": "t", "b": "t"})
        write(collection, [of_table, record(2, a=1)])
        unset: dict[str, dict[str, str | None]] = {each: {"a": None} for each in (of_table.id,)}
        collection.update_metadata({of_table.id: {"a": 5}}, unset)
        collection.update_metadata({record(2).id: {"a": 6}}, {record(2).id: {"a": None}})
        assert everything(collection) == {
            of_table.id: replace(record(1, a=5, b=2), origins={"b": "t"}),
            record(2).id: record(2, a=6),
        }
        collection.update_metadata({record(2).id: {"b": 7}}, {record(2).id: {"b": "t"}})
        assert everything(collection)[record(2).id].origins == {"b": "t"}

    def test_a_collection_that_is_there_is_opened_instead_of_made(
        self, store: VectorStore, collection: Collection, name: str
    ) -> None:
        write(collection, [record(1)])
        assert store.open_or_create(name, STAMP).count() == 1
        with pytest.raises(CollectionMismatchError, match="shapes"):
            store.open_or_create(name, OTHER_STAMP)
        assert store.open(name).count() == 1

    def test_deleting_counts_only_what_was_there(self, collection: Collection) -> None:
        write(collection, [record(number) for number in range(5)])
        assert collection.delete([record(1).id, record(3).id, record(77).id]) == 2
        assert collection.delete([record(1).id]) == 0
        assert collection.delete([]) == 0
        assert set(everything(collection)) == {record(number).id for number in (0, 2, 4)}

    def test_scanning_takes_a_folder_and_not_its_namesakes(self, collection: Collection) -> None:
        uris = [f"file:///a/{name}" for name in ("b/1.jpg", "b/c/2.jpg", "bc/3.jpg", "b%20/4.jpg")]
        records = [
            ImageRecord(uri, f"{number:064x}", 1, 1, 1, 1) for number, uri in enumerate(uris)
        ]
        write(collection, records)
        assert {each.uri for each in everything(collection, "file:///a/b/").values()} == set(
            uris[:2]
        )
        assert len(everything(collection)) == 4

    def test_copies_are_counted(self, collection: Collection) -> None:
        collection.add_fields({"year": "int"})
        write(
            collection,
            [record(1, content=7, year=1), record(2, content=7, year=2), record(3, content=8)],
        )
        digests = [record(0, content=7).sha256, record(0, content=8).sha256, "f" * 64]
        assert collection.count_by_digest(digests) == {digests[0]: 2, digests[1]: 1}
        assert collection.count_by_digest(digests, [Condition("year", "=", 2)]) == {digests[0]: 1}
        assert collection.count_by_digest(1500 * digests[:1]) == {digests[0]: 2}  # as many hits do

    def test_many_records_go_in_and_out(self, collection: Collection) -> None:
        collection.add_fields({"number": "int"})
        for start in range(0, 3000, 500):
            write(
                collection, [record(number, number=number) for number in range(start, start + 500)]
            )
        ids = [record(number).id for number in range(3000)]
        assert collection.count() == 3000
        assert len(collection.lookup(ids)) == 3000
        assert set(everything(collection)) == set(ids)
        assert collection.delete(ids[:2500]) == 2500
        assert collection.count() == 500

    def test_another_handle_sees_what_was_written(
        self, store: VectorStore, collection: Collection
    ) -> None:
        reader = store.open(collection.name)
        assert reader.count() == 0
        collection.add_fields({"year": "int"})
        write(collection, [record(1, year=2012)])
        assert reader.count([Condition("year", "=", 2012)]) == 1
        assert reader.search(vectors(1)[0], 1)[0].record == record(1, year=2012)

    def test_one_thread_reads_while_another_writes(self, collection: Collection) -> None:
        write(collection, [record(0)])
        failures: list[BaseException] = []
        done = threading.Event()

        def read() -> None:
            try:
                while not done.is_set():
                    assert record(0).id in collection.lookup([record(0).id])
                    assert collection.vectors_by_digest([record(0).sha256])
            except BaseException as error:
                failures.append(error)

        readers = [threading.Thread(target=read) for _ in range(2)]
        for reader in readers:
            reader.start()
        for start in range(1, 200, 20):
            write(collection, [record(number) for number in range(start, start + 20)], seed=start)
        done.set()
        for reader in readers:
            reader.join()
        assert failures == []
        assert collection.count() == 201

    def test_writing_is_a_right_that_can_be_taken_again(
        self, store: VectorStore, name: str
    ) -> None:
        for _ in range(2):
            with store.write_lock(name):
                pass

    def test_optimizing_keeps_everything(self, collection: Collection) -> None:
        for number in range(12):
            write(collection, [record(number)], seed=number)
        collection.optimize()
        assert len(everything(collection)) == 12
        assert len(collection.search(vectors(1)[0], 50)) == 12

    def test_info_tells_what_is_there(self, collection: Collection) -> None:
        collection.add_fields({"year": "int"})
        write(collection, [record(1), record(2)])
        info = collection.info()
        assert (info.name, info.stamp, info.images) == (collection.name, STAMP, 2)
        assert dict(info.fields) == {"year": "int"}
        assert info.bytes is None or info.bytes > 0
        assert info.to_dict()["model"] == STAMP.model

    def test_attachments_are_kept_with_a_collection(
        self, store: VectorStore, collection: Collection, name: str
    ) -> None:
        assert collection.attachment("note") is None
        collection.attach("note", "ä 1")
        collection.attach("other", "x" * 5000)
        assert collection.attachment("note") == "ä 1"
        write(collection, [record(1)])
        collection.add_fields({"year": "int"})
        collection.optimize()
        again = store.open(name)
        assert (again.attachment("note"), again.attachment("other")) == ("ä 1", "x" * 5000)
        assert (again.stamp, dict(again.fields), again.count()) == (STAMP, {"year": "int"}, 1)
        again.attach("note", "2")
        again.attach("other", None)
        once_more = store.open(name)
        assert (once_more.attachment("note"), once_more.attachment("other")) == ("2", None)

    def test_scores_are_calibrated(
        self, store: VectorStore, collection: Collection, name: str
    ) -> None:
        written = write(collection, [record(number) for number in range(60)])
        assert calibration.stored(collection) is None
        calibration.keep_current(collection)
        known = calibration.stored(store.open(name))
        assert known is not None
        assert (known.images, known.sample) == (60, 60)
        request = SearchRequest(vector=written[7], k=3)
        best, *_, last = search_vector(store.open(name), written[7], request)
        assert best.percentile == pytest.approx(100 - 1000 / (60 * 59 / 2))
        assert last.percentile == pytest.approx(known.percentile(last.score))

    def test_a_handle_that_missed_a_new_field_can_attach(
        self, store: VectorStore, collection: Collection, name: str
    ) -> None:
        store.open(name).add_fields({"year": "int"})
        collection.attach("note", "1")
        assert dict(store.open(name).fields) == {"year": "int"}

    def test_a_replacement_has_no_attachments(
        self, store: VectorStore, collection: Collection, name: str
    ) -> None:
        collection.attach("note", "1")
        write(collection, [record(1)])
        write(store.replacement(name, OTHER_STAMP), [record(1)])
        assert store.open(name).attachment("note") == "1"
        store.promote(name, OTHER_STAMP)
        assert store.open(name).attachment("note") is None

    def test_a_new_collection_of_a_dropped_one_s_name_has_no_attachments(
        self, store: VectorStore, collection: Collection, name: str
    ) -> None:
        collection.attach("note", "1")
        store.drop(name)
        assert store.create(name, STAMP).attachment("note") is None

    def test_vectors_are_found_by_id(self, collection: Collection) -> None:
        written = write(collection, [record(number) for number in range(3)])
        found = collection.vectors_by_id([record(2).id, record(0).id, record(9).id])
        assert set(found) == {record(0).id, record(2).id}
        np.testing.assert_allclose(found[record(2).id], written[2], atol=5e-4)
        assert collection.vectors_by_id([]) == {}

    def test_a_replacement_is_not_listed_before_it_is_promoted(
        self, store: VectorStore, collection: Collection, name: str
    ) -> None:
        write(collection, [record(1), record(2)])
        new = store.replacement(name, OTHER_STAMP)
        write(new, [record(3)])
        assert [each for each in store.names() if name in each] == [name]
        assert (store.open(name).stamp, store.open(name).count()) == (STAMP, 2)
        store.promote(name, OTHER_STAMP)
        assert [each for each in store.names() if name in each] == [name]
        assert everything(store.open(name)) == {record(3).id: record(3)}
        assert store.open(name).stamp == OTHER_STAMP
        with pytest.raises(StoreError, match="again"):
            collection.count()

    def test_a_replacement_is_resumed(
        self, store: VectorStore, collection: Collection, name: str
    ) -> None:
        write(store.replacement(name, OTHER_STAMP), [record(3)])
        assert store.replacement(name, OTHER_STAMP).count() == 1
        assert store.replacement(name, replace(OTHER_STAMP, model="third")).count() == 0
        assert store.open(name).stamp == STAMP
        assert store.replacement(name, OTHER_STAMP).count() == 0

    def test_words_find_the_records_that_have_them(self, collection: Collection) -> None:
        collection.add_fields({"kind": "str", "description": "str", "year": "int"})
        both = record(1, kind="Casual Shoes", description="red and comfortable")
        shoe = record(2, kind="Formal Shoes", description="black", year=2012)
        red = record(3, kind="Dress", description="A long RED dress", year=2013)
        write(collection, [both, shoe, red, record(4, kind="Hat"), record(5)])
        assert set(with_words(collection, "red shoe")) == {both.uri, shoe.uri, red.uri}
        assert len(with_words(collection, "red shoe", k=1)) == 1
        if not self.SHARDED:
            assert with_words(collection, "red shoe")[0] == both.uri
        assert with_words(collection, "dresses") == [red.uri]
        assert with_words(collection, "shoe", where=[Condition("year", "=", 2012)]) == [shoe.uri]
        assert with_words(collection, "purple") == []
        assert collection.search_text([], 5) == []
        (found,) = collection.search_text(["hat"], 5)
        assert found.record == record(4, kind="Hat")

    def test_a_rare_word_counts_more_than_a_frequent_one(self, collection: Collection) -> None:
        collection.add_fields({"kind": "str"})
        records = [record(number, kind="plain shoe") for number in range(20)]
        write(collection, [*records, record(99, kind="plain boot")])
        found = with_words(collection, "shoe boot")
        assert len(found) == 21
        if not self.SHARDED:
            assert found[0] == record(99).uri

    @pytest.mark.parametrize(
        "text",
        ["it's", '"quoted"', "+a -b", "(", "a:b", "back\\slash", "ümlaut 鞋 👟", "%_*?", "the"],
    )
    def test_any_text_finds_the_record_that_has_it(self, collection: Collection, text: str) -> None:
        collection.add_fields({"description": "str"})
        write(collection, [record(1, description=f"{text} one"), record(2, description="two")])
        assert with_words(collection, f"{text} one") == [record(1).uri]

    def test_equally_relevant_records_come_in_the_order_of_their_uris(
        self, collection: Collection
    ) -> None:
        collection.add_fields({"kind": "str"})
        records = [record(number, kind="shoe") for number in range(60)]
        write(collection, records[::-1])
        found = with_words(collection, "shoes", k=7)
        assert len(found) == 7
        if not self.SHARDED:
            assert found == [each.uri for each in records[:7]]

    def test_words_follow_what_becomes_of_the_records(self, collection: Collection) -> None:
        collection.add_fields({"kind": "str"})
        write(collection, [record(1, kind="shoe"), record(2, kind="shoe"), record(3, kind="hat")])
        collection.optimize()
        collection.update_metadata({record(1).id: {"kind": "boot"}, record(3).id: {"kind": None}})
        write(collection, [record(2, kind="scarf"), record(4, kind="boot")])
        assert with_words(collection, "shoe hat") == []
        assert set(with_words(collection, "boot")) == {record(1).uri, record(4).uri}
        collection.delete([record(1).id])
        assert set(with_words(collection, "boot scarf")) == {record(2).uri, record(4).uri}

    def test_a_replacement_has_its_words(
        self, store: VectorStore, collection: Collection, name: str
    ) -> None:
        new = store.replacement(name, OTHER_STAMP)
        new.add_fields({"kind": "str"})
        write(new, [record(3, kind="shoe")])
        store.promote(name, OTHER_STAMP)
        assert with_words(store.open(name), "shoes") == [record(3).uri]

    def test_contents_can_be_excluded_from_a_search(self, collection: Collection) -> None:
        collection.add_fields({"year": "int", "kind": "str"})
        records = [
            record(number, content=number // 2, year=number, kind="shoe") for number in range(12)
        ]
        write(collection, records)
        without = [record(0, content=content).sha256 for content in (0, 2, 77)]
        kept = {each.uri for each in records if each.sha256 not in without}
        query = vectors(1, seed=9)[0]
        for exact in (False, True):
            found = collection.search(query, 100, exclude_digests=without, exact=exact)
            assert {each.record.uri for each in found} == kept
        late = [Condition("year", ">=", 8)]
        expected = {each.uri for each in records[8:]}
        found = collection.search(query, 100, late, exclude_digests=without)
        assert {each.record.uri for each in found} == expected
        by_words = collection.search_text(["shoe"], 100, late, exclude_digests=without)
        assert {each.record.uri for each in by_words} == expected
        everything = [each.sha256 for each in records]
        assert collection.search(query, 5, exclude_digests=everything) == []
        assert collection.search_text(["shoe"], 5, exclude_digests=everything) == []

    def test_a_sample_of_the_records_can_be_searched(self, collection: Collection) -> None:
        collection.add_fields({"year": "int"})
        records = [record(number, content=number // 2, year=number) for number in range(60)]
        write(collection, records)
        query = vectors(1, seed=9)[0]
        everything = {each.id for each in records}

        def sample(share: float, **options: Any) -> set[str]:
            return {
                each.record.id for each in collection.search(query, 100, share=share, **options)
            }

        half = sample(0.5)
        assert half == {each for each in everything if each < "8"}
        assert sample(0.25) < half
        assert sample(1.0) == everything
        assert sample(0.5, exact=True) == half
        (many,) = collection.search_many([VectorQuery(query, 100, share=0.5)])
        assert {each.record.id for each in many} == half
        late = [Condition("year", ">=", 30)]
        assert sample(0.5, where=late) == half & {each.id for each in records[30:]}
        without = [record(0, content=0).sha256]
        assert sample(0.5, exclude_digests=without) == half - {each.id for each in records[:2]}

    def test_as_many_contents_as_promised_can_be_excluded(self, collection: Collection) -> None:
        records = [record(number) for number in range(MAX_EXCLUDED_DIGESTS + 3)]
        write(collection, records)
        without = [each.sha256 for each in records[:MAX_EXCLUDED_DIGESTS]]
        found = collection.search(vectors(1, seed=9)[0], 10, exclude_digests=without)
        assert {each.record.uri for each in found} == {
            each.uri for each in records[MAX_EXCLUDED_DIGESTS:]
        }

    def test_pages_go_through_all_records_by_id(self, collection: Collection) -> None:
        collection.add_fields({"year": "int"})
        records = [record(number, year=number % 7) for number in range(700)]
        write(collection, records)
        by_id = sorted(records, key=lambda each: each.id)
        assert collection.page(3) == by_id[:3]
        assert collection.page(5, by_id[9].id) == by_id[10:15]
        assert collection.page(10_000) == by_id
        assert collection.page(5, by_id[-1].id) == []
        assert collection.page(0) == []
        for where in ([], [Condition("year", "=", 3)], [Condition("year", ">", 9)]):
            expected = [each for each in by_id if all(c.holds(each.metadata) for c in where)]
            after, seen = "", []
            while page := collection.page(60, after, where):
                seen += page
                after = page[-1].id
            assert seen == expected
        with pytest.raises(UsageError, match="is not the id"):
            collection.page(5, "nothing")

    def test_a_page_continues_after_a_removed_record(self, collection: Collection) -> None:
        collection.add_fields({"year": "int"})
        records = [record(number, year=1) for number in range(20)]
        write(collection, records)
        by_id = sorted(records, key=lambda each: each.id)
        collection.delete([by_id[4].id])
        assert collection.page(3, by_id[4].id) == by_id[5:8]
        assert collection.page(3, by_id[4].id, [Condition("year", "=", 1)]) == by_id[5:8]

    def test_scanning_takes_several_folders_and_each_record_once(
        self, collection: Collection
    ) -> None:
        names = ["a/1.jpg", "a/b/2.jpg", "c/3.jpg", "c*/4.jpg", "d/5.jpg", "A/6.jpg", "a?/7.jpg"]
        names += ["a%20b/8.jpg", "a_b/9.jpg", "axb/10.jpg", "\U0010ffff/11.jpg", "\ud7ff/12.jpg"]
        uris = [f"other://host/{name}" for name in names]
        records = [
            ImageRecord(uri, f"{number:064x}", 1, 1, 1, 1) for number, uri in enumerate(uris)
        ]
        # So many others that reading all of them would be the slower way.
        write(collection, records + [record(number) for number in range(300)])

        def scanned(*prefixes: str) -> list[str]:
            places = [f"other://host/{each}" for each in prefixes]
            found = [each.uri for batch in collection.scan(*places) for each in batch]
            uris = [each for batch in collection.uris(*places) for each in batch]
            assert sorted(uris) == sorted(found)
            return sorted(each.removeprefix("other://host/") for each in found)

        assert scanned("a/", "a/b/", "d/") == ["a/1.jpg", "a/b/2.jpg", "d/5.jpg"]
        assert scanned("c*/") == ["c*/4.jpg"]
        assert scanned("a?/") == ["a?/7.jpg"]
        assert scanned("a%") == ["a%20b/8.jpg"]
        assert scanned("a_") == ["a_b/9.jpg"]
        assert scanned("\U0010ffff") == ["\U0010ffff/11.jpg"]
        assert scanned("\ud7ff") == ["\ud7ff/12.jpg"]
        assert scanned("x/") == []
        assert len(scanned("")) == len(names)
        assert len(everything(collection, "")) == len(names) + 300

    def test_a_scan_under_conditions_yields_the_records_that_meet_them(
        self, collection: Collection
    ) -> None:
        collection.add_fields({"year": "int", "kind": "str"})
        records = [
            record(number, year=number % 40, kind="a" if number % 2 else "b")
            for number in range(400)
        ] + [record(number) for number in range(400, 420)]
        write(collection, records)

        def scanned(*prefixes: str, **fields: Value) -> list[ImageRecord]:
            where = [Condition(field, "=", value) for field, value in fields.items()]
            found = [each for batch in collection.scan(*prefixes, where=where) for each in batch]
            return sorted(found, key=lambda each: each.sha256)

        assert scanned(year=7) == records[7:400:40]
        assert scanned(kind="a") == records[1:400:2]
        assert scanned(year=7, kind="b") == []
        prefix = records[47].uri[:-1]
        within = [each for each in records[7:400:40] if each.uri.startswith(prefix)]
        assert scanned(prefix, year=7) == within != []

    def test_dropping_a_collection_drops_its_replacement(
        self, store: VectorStore, collection: Collection, name: str
    ) -> None:
        write(collection, [record(1)])
        write(store.replacement(name, OTHER_STAMP), [record(3)])
        store.drop(name)
        write(store.create(name, STAMP), [record(2)])
        assert store.replacement(name, OTHER_STAMP).count() == 0

    def test_a_handle_learns_of_fields_that_another_one_added(
        self, store: VectorStore, collection: Collection
    ) -> None:
        write(collection, [record(1)])
        reader, writer = store.open(collection.name), store.open(collection.name)
        collection.add_fields({"year": "int", "kind": "str"})
        told: dict[str, Value | None] = {"year": 2012, "kind": "shoe"}
        collection.update_metadata({record(1).id: told})
        assert dict(writer.lookup([record(1).id])[record(1).id].metadata) == told
        assert dict(reader.refresh_fields()) == {"year": "int", "kind": "str"}
        assert dict(reader.fields) == {"year": "int", "kind": "str"}
        with pytest.raises(CollectionMismatchError, match="year"):
            store.open(collection.name).add_fields({"year": "str"})

    @pytest.mark.parametrize("again", ["words", "search", "count", "page", "copies"])
    def test_a_condition_on_a_field_that_another_handle_added_is_understood(
        self, store: VectorStore, collection: Collection, again: str
    ) -> None:
        write(collection, [record(1), record(2)])
        reader = store.open(collection.name)
        collection.add_fields({"year": "int", "kind": "str"})
        collection.update_metadata({record(1).id: {"year": 2012, "kind": "shoe"}})
        where = [Condition("year", "=", 2012)]
        answers = {
            "words": lambda: len(reader.search_text(["shoe"], 5, where)),
            "search": lambda: len(reader.search(vectors(1)[0], 5, where)),
            "count": lambda: reader.count(where),
            "page": lambda: len(reader.page(5, where=where)),
            "copies": lambda: sum(reader.count_by_digest([record(1).sha256], where).values()),
        }
        assert answers[again]() == 1

    def test_an_older_handle_writes_without_harm_to_fields_it_has_not_seen(
        self, store: VectorStore, collection: Collection
    ) -> None:
        writer = store.open(collection.name)
        collection.add_fields({"year": "int"})
        write(collection, [record(1, year=2012)])
        writer.add_fields({"kind": "str"})
        write(writer, [record(1, kind="shoe"), record(2, kind="shoe")])
        assert everything(store.open(collection.name)) == {
            record(1).id: record(1, kind="shoe"),
            record(2).id: record(2, kind="shoe"),
        }
