"""Several writers on one Weaviate at the same time: none undoes what another does."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
import pytest

from imgsearch import ImageIndex
from imgsearch.errors import CollectionMismatchError
from imgsearch.ingest import ingest
from imgsearch.stores import open_store
from imgsearch.stores.base import Collection, VectorStore
from imgsearch.stores.weaviate import collection as weaviate_collection
from imgsearch.stores.weaviate import patch as patching
from imgsearch.stores.weaviate import pending_deletes
from imgsearch.stores.weaviate.store import WeaviateStore
from imgsearch.types import Condition, FieldType, Metadata, Stamp
from tests.conftest import Painter
from tests.fakes import ColorEncoder
from tests.serving import id_of
from tests.store_contract import OTHER_STAMP, STAMP, everything, record, vectors, with_words, write
from tests.test_weaviate_store import unique_name

pytestmark = pytest.mark.weaviate


@pytest.fixture
def name(one_node: str) -> Iterator[str]:
    """That of a collection which the test makes."""
    chosen = unique_name()
    yield chosen
    with open_store(one_node) as store:
        if chosen in store.names():
            store.drop(chosen)


@pytest.fixture
def stores(one_node: str) -> Iterator[list[VectorStore]]:
    """Three writers, each with connections of its own."""
    opened = [open_store(one_node, 30) for _ in range(3)]
    yield opened
    for each in opened:
        each.close()


def at_once(*actions: Callable[[], Any]) -> list[Any]:
    """What the actions return or raise, begun at the same moment."""
    barrier = threading.Barrier(len(actions))

    def begin(action: Callable[[], Any]) -> Any:
        barrier.wait(60)
        try:
            return action()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(actions)) as pool:
        return list(pool.map(begin, actions))


def test_of_several_that_make_a_collection_all_get_the_same(
    stores: list[VectorStore], name: str
) -> None:
    def first_write(store: VectorStore, number: int) -> Collection:
        collection = store.open_or_create(name, STAMP)
        write(collection, [record(number)])
        return collection

    made = at_once(*(lambda s=s, n=n: first_write(s, n) for n, s in enumerate(stores)))
    assert {type(each).__name__ for each in made} == {"WeaviateCollection"}, made
    assert len({each.class_name for each in made}) == 1
    assert len(everything(stores[0].open(name))) == 3


def test_of_several_that_make_a_collection_with_fields_all_get_all_of_theirs(
    stores: list[VectorStore], name: str
) -> None:
    """Three of the fields have names that Weaviate does not tell apart."""
    fields: list[dict[str, FieldType]] = [
        {"kind": "str", "year": "int"},
        {"kind": "str", "YEAR": "float"},
        {"price": "float", "Year": "bool"},
    ]
    made = at_once(
        *(
            lambda s=s, f=f: s.open_or_create(name, STAMP, f)
            for s, f in zip(stores, fields, strict=True)
        )
    )
    assert {type(each).__name__ for each in made} == {"WeaviateCollection"}, made
    for collection, own in zip(made, fields, strict=True):
        assert own.items() <= collection.fields.items()
    values: Metadata = {"kind": "hat", "year": 1, "YEAR": 2.5, "Year": True, "price": 0.5}
    full = replace(record(1), metadata=values)
    write(made[0], [full])
    assert everything(stores[2].open(name)) == {full.id: full}


def test_of_two_models_one_makes_the_collection_and_the_other_is_rejected(
    stores: list[VectorStore], name: str
) -> None:
    def first_write(store: VectorStore, stamp: Stamp) -> Collection:
        collection = store.open_or_create(name, stamp)
        write(collection, [record(1)])
        return collection

    stamps = [STAMP, OTHER_STAMP]
    made = at_once(
        *(lambda s=s, t=t: first_write(s, t) for s, t in zip(stores, stamps, strict=False))
    )
    (rejected,) = (each for each in made if isinstance(each, Exception))
    assert isinstance(rejected, CollectionMismatchError), rejected
    assert "another writer" in str(rejected)
    (winner,) = (each for each in made if not isinstance(each, Exception))
    assert stores[2].open(name).stamp == winner.stamp
    assert stores[2].open(name).count() == 1


def test_two_concurrent_first_ingests_store_everything(
    one_node: str, name: str, paint: Painter
) -> None:
    folders = [paint(f"{folder}/{n}.png", 10 * n).parent for folder in "ab" for n in range(3)][::3]
    for number, folder in enumerate(folders):
        paint(f"{folder.name}/own.png", 1000 + number)
    command = [sys.executable, "-m", "imgsearch", "ingest", "--store", one_node]
    command += ["--collection", name, "--model", "efficientnet-lite0", "--json"]
    runs = [
        subprocess.Popen(
            [*command, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for folder in folders
    ]
    for run in runs:
        _, errors = run.communicate(timeout=240)
        assert run.returncode == 0, errors
    with open_store(one_node) as store:
        assert store.open(name).count() == 8


def test_leftovers_of_an_interrupted_removal_do_not_return(
    stores: list[VectorStore], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stores[0]
    write(store.create(name, STAMP), [record(1)])
    write(store.replacement(name, OTHER_STAMP), [record(1), record(2)])

    def once(self: Any, name: str, doomed: Any) -> None:
        dropped(self, name, doomed)
        raise KeyboardInterrupt

    dropped = WeaviateStore._drop_classes
    with monkeypatch.context() as patch:
        patch.setattr(WeaviateStore, "_drop_classes", once)
        with pytest.raises(KeyboardInterrupt):
            store.drop(name)
    assert name in store.names()
    store.drop(name)
    assert name not in store.names()
    store.create(name, STAMP)
    assert store.replacement(name, OTHER_STAMP).count() == 0


def test_concurrent_changes_of_different_fields_are_all_stored(
    stores: list[VectorStore], name: str
) -> None:
    fields = [f"field{number}" for number in range(12)]
    collection = stores[0].create(name, STAMP)
    collection.add_fields(dict.fromkeys(fields, "str"))
    written = write(collection, [record(1)])
    handles = [store.open(name) for store in stores]

    def change(number: int) -> None:
        changes = {record(1).id: {fields[number]: f"word{number}"}}
        handles[number % 3].update_metadata(changes)

    done = at_once(*(lambda n=n: change(n) for n in range(12)))
    assert done == [None] * 12
    expected = {f"field{number}": f"word{number}" for number in range(12)}
    assert dict(everything(collection)[record(1).id].metadata) == expected
    for number in range(12):
        assert with_words(collection, f"word{number}") == [record(1).uri]
    assert collection.search(written[0], 1)[0].score == pytest.approx(1, abs=1e-4)


@pytest.fixture
def in_between(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
    """Runs an action between the read and the write of the next metadata update."""

    def arrange(action: Callable[[], Any]) -> None:
        waiting = [action]

        def patch(*arguments: Any) -> None:
            if waiting:
                waiting.pop()()
            patching.patch(*arguments)

        monkeypatch.setattr(weaviate_collection, "patch", patch)

    return arrange


def test_a_change_of_metadata_brings_no_old_vector_back(
    stores: list[VectorStore], name: str, in_between: Callable[[Callable[[], Any]], None]
) -> None:
    collection, other = stores[0].create(name, STAMP), stores[1].open(name)
    collection.add_fields({"kind": "str"})
    write(collection, [record(1)], seed=1)
    in_between(lambda: write(other, [record(1)], seed=2))
    collection.update_metadata({record(1).id: {"kind": "hat"}})
    new = vectors(1, seed=2)[0]
    assert collection.vectors_by_id([record(1).id])[record(1).id] == pytest.approx(new)
    assert collection.search(new, 1)[0].score == pytest.approx(1, abs=1e-4)
    assert everything(collection) == {record(1).id: record(1, kind="hat")}


def test_words_are_those_of_all_changes(
    stores: list[VectorStore], name: str, in_between: Callable[[Callable[[], Any]], None]
) -> None:
    collection, other = stores[0].create(name, STAMP), stores[1].open(name)
    collection.add_fields({"kind": "str", "color": "str"})
    write(collection, [record(1)])
    in_between(lambda: other.update_metadata({record(1).id: {"color": "red"}}))
    collection.update_metadata({record(1).id: {"kind": "hat"}})
    assert with_words(collection, "red") == with_words(collection, "hat") == [record(1).uri]


def test_a_record_that_is_removed_meanwhile_stays_removed(
    stores: list[VectorStore], name: str, in_between: Callable[[Callable[[], Any]], None]
) -> None:
    collection, other = stores[0].create(name, STAMP), stores[1].open(name)
    collection.add_fields({"kind": "str"})
    write(collection, [record(1), record(2)])
    in_between(lambda: other.delete([record(1).id]))
    collection.update_metadata({each.id: {"kind": "hat"} for each in (record(1), record(2))})
    assert everything(collection) == {record(2).id: record(2, kind="hat")}


def test_an_ingest_keeps_what_was_changed_while_it_encoded(
    one_node: str, name: str, paint: Painter
) -> None:
    image = paint("shop/1.png", 1)
    (image.parent / "styles.csv").write_text("id,kind\n1,hat\n")
    encoder = ColorEncoder()
    with (
        open_store(one_node) as store,
        ImageIndex(name, store=one_node, encoder_opener=encoder.open) as index,
        ThreadPoolExecutor(1) as pool,
    ):
        ingest([str(image.parent)], store, name, encoder_opener=encoder.open)
        index.set_metadata(id_of(image), {"description": "old"})
        paint("shop/1.png", 2)
        (image.parent / "styles.csv").write_text("id,kind\n1,shoe\n")
        encoder.gate = threading.Event()
        encoder.at_gate.clear()
        running = pool.submit(ingest, [str(image.parent)], store, name, encoder_opener=encoder.open)
        assert encoder.at_gate.wait(60)
        index.set_metadata(id_of(image), {"description": "new", "price": 2})
        encoder.gate.set()
        assert running.result(30).indexed == 1
        found = index.get(id_of(image)).metadata
        assert found == {"kind": "shoe", "description": "new", "price": 2}
        assert [hit.record.id for hit in index.search(text="new")] == [id_of(image)]


def test_names_that_differ_only_by_case_can_be_added_concurrently(
    stores: list[VectorStore], name: str
) -> None:
    stores[0].create(name, STAMP)
    handles = [store.open(name) for store in stores]
    fields = ["year", "yEar", "YEAR"]
    done = at_once(
        *(lambda h=h, f=f: h.add_fields({f: "int"}) for h, f in zip(handles, fields, strict=True))
    )
    assert done == [None] * 3
    collection = stores[0].open(name)
    values: Mapping[str, int] = {field: number for number, field in enumerate(fields)}
    write(collection, [record(1, **values)])
    for field, value in values.items():
        assert collection.count([Condition(field, "=", value)]) == 1


def test_a_field_that_another_writer_has_just_added_with_another_type_is_rejected(
    stores: list[VectorStore], name: str
) -> None:
    one, other = stores[0].create(name, STAMP), stores[1].open(name)
    other.add_fields({"year": "str"})
    with pytest.raises(CollectionMismatchError, match="'year' as str, not as int"):
        one.add_fields({"year": "int"})


class _Data:
    """Answers the first update with a failure, and remembers what it was sent."""

    def __init__(self, failure: Exception) -> None:
        self.failures = [failure]
        self.sent: list[dict[str, Any]] = []

    def update(self, _: str, properties: dict[str, Any]) -> None:
        self.sent.append(properties)
        if self.failures:
            raise self.failures.pop()


class _Handle:
    def __init__(self, failure: Exception) -> None:
        self.data = _Data(failure)


def test_an_unconfirmed_patch_is_undone_before_a_retry() -> None:
    """A server that stored the object, and lost its index entries, would otherwise write none."""
    handle = _Handle(httpx.ReadError("connection reset"))
    patch = patching._RetriedPatch(handle, "id", {"kind": "hat"})
    with pytest.raises(httpx.ReadError):
        patch()
    patch()
    assert handle.data.sent == [{"kind": "hat"}, {"kind": None}, {"kind": "hat"}]


def test_unconfirmed_objects_are_rewritten_unchanged(stores: list[VectorStore], name: str) -> None:
    """A record that another writer has replaced since stays."""
    store = stores[0]
    assert isinstance(store, WeaviateStore)
    collection = store.open_or_create(name, STAMP)
    collection.add_fields({"kind": "str", "year": "int", "price": "float"})
    records = [record(n, kind=f"shoe {n}", year=2**60 + n, price=0.5) for n in range(3)]
    written = write(collection, records)
    newer = replace(records[1], sha256="f" * 64)
    write(collection, [newer], seed=7)
    sent = {each.id: f"{each.sha256}-{each.size}-{each.mtime_ns}" for each in records}
    with store.write_lock(name):
        pending_deletes.save(store._server, collection.class_name, sent | {record(9).id: "x-1-2"})
    changed = {each.id: _changed_at(store, collection.class_name, each.id) for each in records}
    with store.write_lock(name):
        pass
    assert everything(collection) == {each.id: each for each in (records[0], newer, records[2])}
    for number in (0, 2):
        assert collection.search(written[number], 1)[0].record == records[number]
        assert collection.count([Condition("year", "=", 2**60 + number)]) == 1
        assert with_words(collection, str(number)) == [records[number].uri]
    again = {each.id: _changed_at(store, collection.class_name, each.id) for each in records}
    assert [again[each.id] != changed[each.id] for each in records] == [True, False, True]


def _changed_at(store: WeaviateStore, class_name: str, record_id: str) -> tuple[int, int]:
    found = store._server.read_object(class_name, record_id)
    assert found
    return found["creationTimeUnix"], found["lastUpdateTimeUnix"]
