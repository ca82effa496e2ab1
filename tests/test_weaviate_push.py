"""Retries and rejections of writes, by a scripted server that fails in rare ways."""

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
        self.events: list[Event] = []

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
        server._outage = Outage("weaviate://scripted", 5.0, self.events.append)
        return server

    def push(self) -> dict[str, str]:
        return push(self.server(), "Class", read_schema([]), RECORDS, vectors(3))


def _wants_more_time(error: StoreError) -> bool:
    return error.remedies == (Remedy.RAISE_STORE_TIMEOUT,)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)


def test_an_object_with_a_temporary_failure_is_retried() -> None:
    server = ScriptedServer({1: "context canceled"}, {1: "cannot reach enough replicas"})
    assert server.push() == {}
    assert server.requests == [[each.id for each in RECORDS], [RECORDS[1].id], [RECORDS[1].id]]
    assert [type(each) for each in server.events] == [Note, Note]


def test_objects_that_a_dying_server_may_hold_are_deleted_before_a_retry() -> None:
    server = ScriptedServer(GONE_AWAY, {1: "context canceled"})
    assert server.push() == {}
    assert server.deleted == [*(each.id for each in RECORDS), RECORDS[1].id]
    assert [len(sent) for sent in server.requests] == [3, 3, 1]


@pytest.mark.parametrize("fault", [GONE_AWAY, {0: "context canceled", 2: "context canceled"}])
def test_unconfirmed_objects_of_a_failed_run_are_rewritten_by_the_next(
    fault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ScriptedServer(fault)
    monkeypatch.setattr("imgsearch.stores.weaviate.backoff.Outage.report", lambda *_: 99.0)
    with pytest.raises(StoreError, check=_wants_more_time):
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


def test_objects_that_another_machine_has_written_since_are_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = ScriptedServer(GONE_AWAY)
    with monkeypatch.context() as patch:
        patch.setattr("imgsearch.stores.weaviate.backoff.Outage.report", lambda *_: 99.0)
        with pytest.raises(StoreError, check=_wants_more_time):
            server.push()
    server.stored[RECORDS[0].id]["properties"]["sha256"] = "f" * 64
    del server.stored[RECORDS[1].id]
    repair.rewrite_pending(server.server(), "Class")
    assert server.deleted == [RECORDS[2].id]
    assert server.requests[1:] == [[RECORDS[2].id]]
    assert RECORDS[1].id not in server.stored


def test_a_pending_delete_of_an_earlier_version_loses_no_record() -> None:
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


def test_a_rejected_object_is_retried_and_reported_with_the_reason() -> None:
    server = ScriptedServer(*[{0: "vector lengths don't match"}] * 9)
    assert server.push() == {RECORDS[0].id: "vector lengths don't match"}
    assert [len(sent) for sent in server.requests] == [3, 1, 1]


def test_a_full_queue_and_rate_limits_are_waited_for_and_named() -> None:
    server = ScriptedServer({2: "429 too many requests"}, {2: "the queue is full"})
    assert server.push() == {}
    (first, _) = server.events
    assert isinstance(first, Note)
    assert "overloaded" in first.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("store is read-only: disk usage too high", "read-only.*free some space"),
        ("could not find class Class in schema", "removed or replaced"),
        ("rbac: authorization, forbidden action", "does not allow.*WEAVIATE_API_KEY"),
    ],
)
def test_permanent_failures_end_the_run(text: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        ScriptedServer({0: text}).push()


def test_a_read_only_shard_behind_an_internal_error_is_recognized() -> None:
    assert failures.classify_text("put object: shard is READONLY").kind == "read-only"
    assert failures.classify_error(RuntimeError("rpc error: connection refused")).is_temporary


@pytest.mark.weaviate
def test_a_real_server_rejects_a_vector_of_another_length(one_node: str) -> None:
    with open_store(one_node, 30) as store:
        collection = store.create(unique_name(), STAMP)
        write(collection, RECORDS[:1])
        rejected = collection.upsert([RECORDS[1]], vectors(2).reshape(1, -1))
        assert set(rejected) == {RECORDS[1].id}
        assert "length" in rejected[RECORDS[1].id]
        assert collection.count() == 1
        store.drop(collection.name)
