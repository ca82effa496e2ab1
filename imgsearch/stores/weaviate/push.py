"""Write records: in parallel requests, each object until it is in, or refused for good.

Weaviate tells of each object by itself, and a request as a whole may fail as well. What fails for
the server's reasons (away, restarting, a replica missing, overloaded) is sent again for as long as
the timeout lets it; what fails for its own, a few times, and is then given back with its reason.
Ids are made from URIs, so to send an object again replaces it.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, repeat

from imgsearch.stores.base import Vectors
from imgsearch.stores.weaviate import failures, pending_deletes
from imgsearch.stores.weaviate.client import base_pb2, batch_pb2
from imgsearch.stores.weaviate.connect import Server
from imgsearch.stores.weaviate.failures import Trouble
from imgsearch.stores.weaviate.schema import Schema
from imgsearch.stores.weaviate.values import to_object
from imgsearch.types import ImageRecord

# Larger requests are no faster, and take more memory on both sides.
_REQUEST_BYTES = 2_000_000
_REQUEST_OBJECTS = 500
# How often an object is sent that the server refuses for reasons of its own.
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
    """Write records with their vectors; returns the ids that were refused, with the reason.

    Raises StoreError if the server is away or overloaded for longer than its timeout, read-only,
    or does not let us write.
    """

    def send(part: slice) -> dict[str, str]:
        objects = [
            to_object(class_name, record, vector, schema)
            for record, vector in zip(records[part], vectors[part], strict=True)
        ]
        return send_all(server, class_name, objects)

    refused: dict[str, str] = {}
    for result in _in_parallel(server, send, list(_parts(vectors))):
        refused |= result
    return refused


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
    """Send until each object is in, or has been refused too often."""
    refused: dict[str, str] = {}
    tries: Counter[str] = Counter()
    with _Repeated(server, class_name) as request, server.patience(request.action) as patience:
        while objects:
            problems = request.send(objects)
            tries.update(uuid for uuid, each in problems.items() if each.kind == "refused")
            refused |= {uuid: problems[uuid].text for uuid in problems if tries[uuid] >= _TRIES}
            objects = [each for each in objects if each.uuid in problems.keys() - refused.keys()]
            if server_side := [each for each in problems.values() if each.kind != "refused"]:
                patience.bear(server_side[0])
            elif objects:
                patience.pause()
    return refused


class _Repeated:
    """A request that is made again until it is answered.

    What it was about when the server went away is in doubt (see `doubts`): if it is there, it is
    deleted before it is sent again; it is noted if it is given up.
    """

    def __init__(self, server: Server, class_name: str) -> None:
        self.action = f"collection {class_name} cannot be written to"
        self._server = server
        self._class_name = class_name
        self._deadlines = chain(_DEADLINES, repeat(_DEADLINES[-1]))
        self._in_doubt: dict[str, str] = {}

    def __enter__(self) -> "_Repeated":
        return self

    def __exit__(self, failure: object, *_: object) -> None:
        if failure and self._in_doubt:
            pending_deletes.note(self._server, self._class_name, self._in_doubt)

    def send(self, objects: list[batch_pb2.BatchObject]) -> dict[str, Trouble]:
        """What the server said of the objects that it did not take, by id."""
        failed = self._server.call(self.action, lambda: self._once(objects))
        problems = {objects[at].uuid: failures.of_text(text) for at, text in failed.items()}
        away = {uuid for uuid, each in problems.items() if each.kind == "away"}
        self._in_doubt = {e.uuid: pending_deletes.token_sent(e) for e in objects if e.uuid in away}
        return problems

    def _once(self, objects: list[batch_pb2.BatchObject]) -> dict[int, str]:
        if self._in_doubt:
            pending_deletes.forget(self._server, self._class_name, self._in_doubt)
        try:
            return _request(self._server, objects, next(self._deadlines))
        except Exception as error:
            if failures.of_error(error).kind == "away":
                self._in_doubt = {each.uuid: pending_deletes.token_sent(each) for each in objects}
            raise


def _request(
    server: Server, objects: list[batch_pb2.BatchObject], seconds: float
) -> dict[int, str]:
    """One request; the indexes of the objects that failed, with what the server said."""
    level = server.address.consistency
    reply = server.stub.BatchObjects(
        batch_pb2.BatchObjectsRequest(
            objects=objects, consistency_level=_LEVELS[level] if level else None
        ),
        metadata=server.metadata,
        timeout=seconds,
    )
    return {each.index: each.error for each in reply.errors}
