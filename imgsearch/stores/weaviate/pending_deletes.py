"""Objects that a server may have stored without indexing them: to delete before the next write.

A server that is killed while it takes an object may store the object and lose its entries in the
indexes of ids, properties and vectors. Sent again, the object equals the stored one, so nothing is
written, and no filter and no search ever finds it. So an object whose write was not confirmed, and
that is stored as it was sent, is deleted before it is written again. One that differs has been
written by another client since, or not at all, and stays.

A run that ends before that saves the ids under `IMGSEARCH_HOME/doubts`, and the next run from this
machine writes these objects again with their current metadata.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from imgsearch import config
from imgsearch.stores.weaviate.client import batch_pb2
from imgsearch.stores.weaviate.connection import Server

Object = Mapping[str, Any]
"""An object as REST gives it: `properties` and `vectors`."""

UNKNOWN = ""
"""The token of an object that an earlier version saved by its id alone."""

_CONTENT = ("sha256", "size", "mtime_ns")


def version_token(properties: Mapping[str, Any]) -> str:
    """Return a text that identifies one version of an object's file."""
    size = int(properties.get("size") or 0)
    return f"{properties.get('sha256')}-{size}-{properties.get('mtime_ns')}"


def sent_token(sent: batch_pb2.BatchObject) -> str:
    return version_token({name: sent.properties.non_ref_properties[name] for name in _CONTENT})


def find_sent(server: Server, class_name: str, record_id: str, token: str) -> Object | None:
    """Return an object if it is stored as it was sent."""
    found = server.read_object(class_name, record_id)
    return found if found and token in (UNKNOWN, version_token(found["properties"])) else None


def delete_sent(server: Server, class_name: str, sent: Mapping[str, str]) -> None:
    """Delete the objects, given by id with their tokens, that are stored as they were sent."""
    handle = server.client.collections.use(class_name)
    for record_id, token in sent.items():
        if find_sent(server, class_name, record_id, token):
            handle.data.delete_by_id(record_id)


def save(server: Server, class_name: str, sent: Mapping[str, str]) -> None:
    """Save objects, given by id with their tokens, for `claim_saved`."""
    path = _folder(server) / class_name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="ascii") as file:
            file.writelines(f"{record_id} {token}\n" for record_id, token in sent.items())
    except OSError:
        pass  # the run ends with an error of its own, which must be reported


def claim_saved(server: Server, class_prefix: str) -> Iterator[tuple[str, dict[str, str], Path]]:
    """Yield each class with this prefix, its saved objects, and the file to delete afterwards.

    Only this process has the file: what others save meanwhile goes into another one.
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
    """Return the folder of a server."""
    name = hashlib.sha256(server.address.http.encode()).hexdigest()[:16]
    return config.home() / "doubts" / name
