"""Write records in parallel requests, and retry what fails.

Weaviate reports failures per object, and a request may fail as a whole. Temporary failures (server
away, restarting, overloaded, a replica missing) are retried until the timeout. An object that the
server rejects is retried a few times and then reported. Ids are made from URIs, so that a retry
replaces an object.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, repeat

from imgsearch.stores.base import Vectors
from imgsearch.stores.weaviate import failures, pending_deletes
from imgsearch.stores.weaviate.client import base_pb2, batch_pb2
from imgsearch.stores.weaviate.connection import Server
from imgsearch.stores.weaviate.failures import Failure
from imgsearch.stores.weaviate.schema import Schema
from imgsearch.stores.weaviate.values import to_object
from imgsearch.types import ImageRecord

# Larger requests are no faster, and take more memory on both sides.
_REQUEST_BYTES = 2_000_000
_REQUEST_OBJECTS = 500
# Attempts for an object that the server rejects.
_TRIES = 3
# How long a request may take, at first and when it is made again. A node that dies can leave one
# hanging for good, so that the first must be short; a server that is only slow needs the others.
_DEADLINES = (15.0, 30.0, 60.0, 120.0)

_LEVELS = {
    "ONE": base_pb2.CONSISTENCY_LEVEL_ONE,
    "QUORUM": base_pb2.CONSISTENCY_LEVEL_QUORUM,
    "ALL": base_pb2.CONSISTENCY_LEVEL_ALL,
}


def push(
    server: Server,
    class_name: str,
    schema: Schema,
    records: Sequence[ImageRecord],
    vectors: Vectors,
) -> dict[str, str]:
    """Write records with their vectors; return the reason by id of each rejected record.

    Raises StoreError if the server is away or overloaded for longer than its timeout, read-only,
    or does not let us write.
    """

    def send(part: slice) -> dict[str, str]:
        objects = [
            to_object(class_name, record, vector, schema)
            for record, vector in zip(records[part], vectors[part], strict=True)
        ]
        return send_all(server, class_name, objects)

    rejected: dict[str, str] = {}
    for result in _in_parallel(server, send, list(_parts(vectors))):
        rejected |= result
    return rejected


def _parts(vectors: Vectors) -> Iterator[slice]:
    size = max(1, min(_REQUEST_OBJECTS, _REQUEST_BYTES // max(1, 4 * vectors.shape[1])))
    for start in range(0, len(vectors), size):
        yield slice(start, start + size)


def _in_parallel(
    server: Server, send: Callable[[slice], dict[str, str]], parts: list[slice]
) -> Iterator[dict[str, str]]:
    if len(parts) == 1:
        yield send(parts[0])
        return
    futures = [server.pushers.submit(send, part) for part in parts]
    try:
        for future in futures:
            yield future.result()
    finally:
        for future in futures:
            future.cancel()


def send_all(
    server: Server, class_name: str, objects: list[batch_pb2.BatchObject]
) -> dict[str, str]:
    """Send until each object is stored, or has been rejected too often; return the reasons."""
    rejected: dict[str, str] = {}
    tries: Counter[str] = Counter()
    with _RetriedRequest(server, class_name) as request, server.backoff(request.action) as backoff:
        while objects:
            problems = request.send(objects)
            tries.update(uuid for uuid, each in problems.items() if each.kind == "rejected")
            rejected |= {uuid: problems[uuid].text for uuid in problems if tries[uuid] >= _TRIES}
            objects = [each for each in objects if each.uuid in problems.keys() - rejected.keys()]
            if server_side := [each for each in problems.values() if each.kind != "rejected"]:
                backoff.wait(server_side[0])
            elif objects:
                backoff.pause()
    return rejected


class _RetriedRequest:
    """A request that is repeated until the server answers.

    Objects that were sent when the server went away are unconfirmed (see `pending_deletes`): they
    are deleted before they are sent again, and saved for the next run if this one gives up.
    """

    def __init__(self, server: Server, class_name: str) -> None:
        self.action = f"collection {class_name} cannot be written to"
        self._server = server
        self._class_name = class_name
        self._deadlines = chain(_DEADLINES, repeat(_DEADLINES[-1]))
        self._unconfirmed: dict[str, str] = {}

    def __enter__(self) -> "_RetriedRequest":
        return self

    def __exit__(self, failure: object, *_: object) -> None:
        if failure and self._unconfirmed:
            pending_deletes.save(self._server, self._class_name, self._unconfirmed)

    def send(self, objects: list[batch_pb2.BatchObject]) -> dict[str, Failure]:
        """Send objects; return the failures by id."""
        failed = self._server.call(self.action, lambda: self._once(objects))
        problems = {objects[at].uuid: failures.classify_text(text) for at, text in failed.items()}
        away = {uuid for uuid, each in problems.items() if each.kind == "away"}
        self._unconfirmed = {
            e.uuid: pending_deletes.sent_token(e) for e in objects if e.uuid in away
        }
        return problems

    def _once(self, objects: list[batch_pb2.BatchObject]) -> dict[int, str]:
        if self._unconfirmed:
            pending_deletes.delete_sent(self._server, self._class_name, self._unconfirmed)
        try:
            return _request(self._server, objects, next(self._deadlines))
        except Exception as error:
            if failures.classify_error(error).kind == "away":
                self._unconfirmed = {
                    each.uuid: pending_deletes.sent_token(each) for each in objects
                }
            raise


def _tokens(objects: Iterable[batch_pb2.BatchObject]) -> dict[str, str]:
    return {each.uuid: pending_deletes.sent_token(each) for each in objects}


def _request(
    server: Server, objects: list[batch_pb2.BatchObject], seconds: float
) -> dict[int, str]:
    """Send one request; return the server's messages by the index of the failed object."""
    level = server.address.consistency
    reply = server.stub.BatchObjects(
        batch_pb2.BatchObjectsRequest(
            objects=objects, consistency_level=_LEVELS[level] if level else None
        ),
        metadata=server.metadata,
        timeout=seconds,
    )
    return {each.index: each.error for each in reply.errors}
