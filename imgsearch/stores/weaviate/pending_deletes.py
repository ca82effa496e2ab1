"""Objects of which nobody knows whether the server took them whole.

A server that is killed while it takes an object may keep the object itself, and lose its entries
in the indexes of ids, properties and vectors. Sent again, such an object is found to be equal to
the one that is kept, and nothing is written: no filter and no search would ever find it. So an
object that was under way, and is there as it was sent, is deleted before it is written again. One
that is otherwise has been written by somebody else since, or not at all, and stays.

Where a run ends before that, what it had sent is noted under `IMGSEARCH_HOME/doubts`, and the next
run from this machine rewrites it with its current metadata.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from imgsearch import config
from imgsearch.stores.weaviate.client import batch_pb2
from imgsearch.stores.weaviate.connect import Server

Object = Mapping[str, Any]
"""An object as REST gives it: `properties` and `vectors`."""

UNKNOWN = ""
"""The token of an object that an earlier version noted by its id alone."""

_CONTENT = ("sha256", "size", "mtime_ns")


def token_of(properties: Mapping[str, Any]) -> str:
    """Identifies one version of an object's file."""
    size = int(properties.get("size") or 0)
    return f"{properties.get('sha256')}-{size}-{properties.get('mtime_ns')}"


def token_sent(sent: batch_pb2.BatchObject) -> str:
    return token_of({name: sent.properties.non_ref_properties[name] for name in _CONTENT})


def doubtful(server: Server, class_name: str, record_id: str, token: str) -> Object | None:
    """An object that is there as it was sent."""
    found = server.read_object(class_name, record_id)
    return found if found and token in (UNKNOWN, token_of(found["properties"])) else None


def forget(server: Server, class_name: str, sent: Mapping[str, str]) -> None:
    """Delete the objects, by id with their tokens, that are there as they were sent."""
    handle = server.client.collections.use(class_name)
    for record_id, token in sent.items():
        if doubtful(server, class_name, record_id, token):
            handle.data.delete_by_id(record_id)


def note(server: Server, class_name: str, sent: Mapping[str, str]) -> None:
    """Remember objects, by id with their tokens, for `take_notes`."""
    path = _folder(server) / class_name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="ascii") as file:
            file.writelines(f"{record_id} {token}\n" for record_id, token in sent.items())
    except OSError:
        pass  # the run ends with an error of its own, which must be told


def take_notes(server: Server, class_prefix: str) -> Iterator[tuple[str, dict[str, str], Path]]:
    """Each class whose name begins so, with its notes, and the file to delete once they are done.

    Only this process has it: what others note meanwhile goes into another one.
    """
    try:
        paths = sorted(_folder(server).glob(f"{class_prefix}*"))
    except OSError:
        return
    for path in paths:
        class_name = path.name.partition(".")[0]
        own = path.with_name(f"{class_name}.{os.getpid()}")
        try:
            path.rename(own)
            lines = own.read_text(encoding="ascii").splitlines()
        except FileNotFoundError:  # another process was faster
            continue
        pairs = (line.partition(" ") for line in lines if line)
        yield class_name, {record_id: token for record_id, _, token in pairs}, own


def _folder(server: Server) -> Path:
    """One for each server."""
    name = hashlib.sha256(server.address.http.encode()).hexdigest()[:16]
    return config.home() / "doubts" / name
