"""Each object is sent until it is in or refused for good; a scripted server, for what is rare."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict

from imgsearch.errors import Remedy, StoreError
from imgsearch.events import Event, Note
from imgsearch.stores import open_store
from imgsearch.stores.weaviate import failures, pending_deletes, repair
from imgsearch.stores.weaviate.address import parse
from imgsearch.stores.weaviate.backoff import Outage
from imgsearch.stores.weaviate.client import batch_pb2
from imgsearch.stores.weaviate.connection import Server
from imgsearch.stores.weaviate.push import push
from imgsearch.stores.weaviate.schema import read_schema
from tests.store_contract import STAMP, record, vectors, write
from tests.test_weaviate_store import unique_name

RECORDS = [record(number) for number in range(3)]
GONE_AWAY = httpx.ConnectError("connection refused")


class ScriptedServer:
    """Answers each request with the next errors, by number of the record; then takes all.

    An answer that is an exception is raised.
    """

    def __init__(self, *answers: dict[int, str] | Exception) -> None:
        self._answers: Iterator[dict[int, str] | Exception] = iter(answers)
        self.requests: list[list[str]] = []
        self.deleted: list[str] = []
        self.stored: dict[str, Any] = {}
        self.heard: list[Event] = []

    def answer(self, request: Any, **_: object) -> Any:
        sent = [each.uuid for each in request.objects]
        for each in request.objects:
            self.stored[each.uuid] = {
                "properties": MessageToDict(each.properties.non_ref_properties),
                "vectors": {"image": np.frombuffer(each.vectors[0].vector_bytes, "<f4").tolist()},
            }
        self.requests.append(sent)
        answer = next(self._answers, {})
        if isinstance(answer, Exception):
            raise answer
        errors = {RECORDS[number].id: text for number, text in answer.items()}
        return batch_pb2.BatchObjectsReply(
            errors=[
                batch_pb2.BatchObjectsReply.BatchError(index=index, error=errors[uuid])
                for index, uuid in enumerate(sent)
                if uuid in errors
            ]
        )

    def server(self) -> Server:
        server = object.__new__(Server)
        server.address = parse("weaviate://scripted")
        server.stub = SimpleNamespace(BatchObjects=self.answer)  # type: ignore[assignment]
        data = SimpleNamespace(delete_by_id=self.deleted.append)
        handle = SimpleNamespace(exists=lambda: True, data=data)
        collections = SimpleNamespace(use=lambda _: handle)
        server.client = SimpleNamespace(collections=collections)  # type: ignore[assignment]
        server.pushers = ThreadPoolExecutor(1)
        server.read_object = lambda _, uuid: self.stored.get(uuid)  # type: ignore[assignment, method-assign]
        server._outage = Outage("weaviate://scripted", 5.0, self.heard.append)
        return server

    def push(self) -> dict[str, str]:
        return push(self.server(), "Class", read_schema([]), RECORDS, vectors(3))


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)


def test_an_object_that_failed_for_the_servers_reasons_is_sent_again() -> None:
    server = ScriptedServer({1: "context canceled"}, {1: "cannot reach enough replicas"})
    assert server.push() == {}
    assert server.requests == [[each.id for each in RECORDS], [RECORDS[1].id], [RECORDS[1].id]]
    assert [type(each) for each in server.heard] == [Note, Note]


def test_what_a_dying_server_may_hold_in_part_is_deleted_before_it_is_sent_again() -> None:
    server = ScriptedServer(GONE_AWAY, {1: "context canceled"})
    assert server.push() == {}
    assert server.deleted == [*(each.id for each in RECORDS), RECORDS[1].id]
    assert [len(sent) for sent in server.requests] == [3, 3, 1]


@pytest.mark.parametrize("fault", [GONE_AWAY, {0: "context canceled", 2: "context canceled"}])
def test_what_is_in_doubt_when_a_run_gives_up_is_written_anew_by_the_next(
    fault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ScriptedServer(fault)
    monkeypatch.setattr("imgsearch.stores.weaviate.backoff.Outage.report", lambda *_: 99.0)
    with pytest.raises(StoreError, match="--store-timeout"):
        server.push()
    assert server.deleted == []
    repair.rewrite_pending(server.server(), "Other")
    assert server.deleted == []
    repair.rewrite_pending(server.server(), "Cla")
    expected = RECORDS if fault is GONE_AWAY else RECORDS[::2]
    assert server.deleted == [each.id for each in expected]
    assert server.requests[1:] == [[each.id] for each in expected]
    server.deleted.clear()
    repair.rewrite_pending(server.server(), "Cla")
    assert server.deleted == []


def test_what_another_machine_has_written_since_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = ScriptedServer(GONE_AWAY)
    with monkeypatch.context() as patch:
        patch.setattr("imgsearch.stores.weaviate.backoff.Outage.report", lambda *_: 99.0)
        with pytest.raises(StoreError, match="--store-timeout"):
            server.push()
    server.stored[RECORDS[0].id]["properties"]["sha256"] = "f" * 64
    del server.stored[RECORDS[1].id]
    repair.rewrite_pending(server.server(), "Class")
    assert server.deleted == [RECORDS[2].id]
    assert server.requests[1:] == [[RECORDS[2].id]]
    assert RECORDS[1].id not in server.stored


def test_a_note_of_an_earlier_version_costs_no_record() -> None:
    server = ScriptedServer()
    server.push()
    before = dict(server.stored)
    notes = pending_deletes._folder(server.server()) / "Class"
    notes.parent.mkdir(parents=True)
    notes.write_text(f"{RECORDS[0].id}\n")
    repair.rewrite_pending(server.server(), "Class")
    assert server.requests[1:] == [[RECORDS[0].id]]
    assert server.stored == before
    assert list(notes.parent.iterdir()) == []


def test_an_overloaded_server_holds_nothing_in_part() -> None:
    server = ScriptedServer({2: "429 too many requests"})
    assert server.push() == {}
    assert server.deleted == []


def test_an_object_that_is_refused_is_tried_again_and_given_back_with_the_reason() -> None:
    server = ScriptedServer(*[{0: "vector lengths don't match"}] * 9)
    assert server.push() == {RECORDS[0].id: "vector lengths don't match"}
    assert [len(sent) for sent in server.requests] == [3, 1, 1]


def test_a_full_queue_and_rate_limits_are_waited_for_and_called_so() -> None:
    server = ScriptedServer({2: "429 too many requests"}, {2: "the queue is full"})
    assert server.push() == {}
    (first, _) = server.heard
    assert isinstance(first, Note)
    assert "overloaded" in first.text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("store is read-only: disk usage too high", "read-only.*free some space"),
        ("could not find class Class in schema", "removed or replaced"),
        ("rbac: authorization, forbidden action", "does not allow.*WEAVIATE_API_KEY"),
    ],
)
def test_what_waiting_does_not_help_ends_the_run(text: str, told: str) -> None:
    with pytest.raises(StoreError, match=told):
        ScriptedServer({0: text}).push()


def test_a_read_only_shard_behind_an_internal_error_is_told() -> None:
    assert failures.classify_text("put object: shard is READONLY").kind == "read-only"
    assert failures.classify_error(RuntimeError("rpc error: connection refused")).is_temporary


@pytest.mark.weaviate
def test_a_real_server_refuses_a_vector_of_another_length(one_node: str) -> None:
    with open_store(one_node, 30) as store:
        collection = store.create(unique_name(), STAMP)
        write(collection, RECORDS[:1])
        refused = collection.upsert([RECORDS[1]], vectors(2).reshape(1, -1))
        assert set(refused) == {RECORDS[1].id}
        assert "length" in refused[RECORDS[1].id]
        assert collection.count() == 1
        store.drop(collection.name)
