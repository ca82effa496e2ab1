"""Objects of which nobody knows whether the server took them whole.

A server that is killed while it takes an object may keep the object itself, and lose its entries
in the indexes of ids, properties and vectors. Sent again, such an object is found to be equal to
the one that is kept, and nothing is written: no filter and no search would ever find it. So what
was under way is deleted before it is sent again; where a run ends before that, the ids are noted
under `IMGSEARCH_HOME/doubts`, and the next run from this machine deletes them first.
"""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from imgsearch import config
from imgsearch.stores.weaviate.connect import Server


def forget(server: Server, class_name: str, ids: Iterable[str]) -> None:
    """Delete the objects with these ids, by means that need no index. Those not there are fine."""
    handle = server.client.collections.use(class_name)
    if not handle.exists():
        return
    for each in ids:
        handle.data.delete_by_id(each)


def note(server: Server, class_name: str, ids: Iterable[str]) -> None:
    """Remember ids for `settle`."""
    path = _folder(server) / class_name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="ascii") as file:
            file.writelines(f"{each}\n" for each in ids)
    except OSError:
        pass  # the run ends with an error of its own, which must be told


def settle(server: Server, class_prefix: str) -> None:
    """Delete what was noted for the classes whose names begin so. Raises StoreError."""
    for path in _noted(server, class_prefix):
        ids = dict.fromkeys(path.read_text(encoding="ascii").split())
        action = f"collection {path.name} cannot be written to"
        server.call(action, lambda: forget(server, path.name, ids))  # noqa: B023
        path.unlink(missing_ok=True)


def _noted(server: Server, class_prefix: str) -> Iterator[Path]:
    try:
        yield from sorted(_folder(server).glob(f"{class_prefix}*"))
    except OSError:
        return


def _folder(server: Server) -> Path:
    """One for each server."""
    name = hashlib.sha256(server.address.http.encode()).hexdigest()[:16]
    return config.home() / "doubts" / name
